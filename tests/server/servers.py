"""Servers for tests: in this process, on a free port of the loopback, with tiny models."""

from __future__ import annotations

import gc
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

import coinfer
from coinfer.backends.base import Backend
from coinfer.ensembles import EnsembleDescription
from coinfer.model import Model
from coinfer.server.inference import Inference
from coinfer.server.opening import Opened
from coinfer.server.served_model import served
from coinfer.server.serving import ServeOptions, Server
from coinfer.server.tls import Tls
from coinfer.testing.models import model_from_text, tiny_linear

ECHO = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float",
    "FP64": "double",
    "BYTES": "string",
}
"""ONNX's name of each datatype."""


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread."""
    end_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.002)


@contextmanager
def futures_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ref[Any]]]:
    """Note the futures of inferences while nothing collects what only the collector can free."""
    found: list[ref[Any]] = []
    infer = server.service.infer

    def noted(*given: Any, **named: Any) -> Inference:
        inference = infer(*given, **named)
        found.append(ref(inference.future))
        return inference

    monkeypatch.setattr(server.service, "infer", noted)
    gc.collect()
    gc.disable()
    try:
        yield found
    finally:
        gc.enable()


def echo(datatype: str) -> Model:
    kind = ECHO[datatype]
    text = f"agraph ({kind}[N,M] x) => ({kind}[N,M] y) {{ y = Identity(x) }}"
    return model_from_text(text, name=f"echo_{datatype}")


def engine_of(
    models: Mapping[str, Model],
    *,
    backend: str = "onnxruntime",
    seconds: float = 1e-4,
    backends: Mapping[str, Backend] | None = None,
    **how: Any,
) -> coinfer.Engine:
    processors = [
        coinfer.Processor(name=f"p{n}", backend=backend, units=frozenset({f"core{n}"}))
        for n in range(2)
    ]
    times = dict.fromkeys(("p0", "p1"), seconds)
    profile = coinfer.Profile.from_seconds(dict.fromkeys(models, times))
    return coinfer.Engine(
        models, processors=processors, profile=profile, backends=backends, pin=False, **how
    )


@contextmanager
def serving(
    models: Mapping[str, Model],
    *,
    options: ServeOptions | None = None,
    described: Mapping[str, Mapping[str, Any]] | None = None,
    ensembles: Iterable[EnsembleDescription] = (),
    **how: Any,
) -> Iterator[Server]:
    """Serve models; the port is `server.ports["http"]`."""
    with Server(options or ServeOptions(http=0)) as server:
        said = described or {}
        seen = [served(name, model, **said.get(name, {})) for name, model in models.items()]
        opened = Opened(engine=engine_of(models, **how), models=seen)
        server.open(opened, ensembles=ensembles)
        yield server


def address(server: Server) -> str:
    return f"127.0.0.1:{server.ports['http']}"


def tiny_models() -> dict[str, Model]:
    return {"linear": tiny_linear().model, **{name: echo(name) for name in ECHO}}


def new_certificate(folder: Path) -> Tls:
    """Make a certificate of localhost that vouches for itself, with openssl."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = [*make, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    return Tls(certificate=certificate, key=key)
