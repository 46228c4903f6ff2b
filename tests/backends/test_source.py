"""Models too large for a message: libraries open only the files that were checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinfer.backends.base import Backend
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.model import Model, load_model
from model.onnx_files import dense, external


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> Backend:
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    if request.param == "onnxruntime":
        from coinfer.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend()
    from coinfer.backends.openvino import OpenVinoBackend

    return OpenVinoBackend()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model that no message can hold, as far as anybody knows."""
    _, path = external(dense(), tmp_path / "model")
    monkeypatch.setattr("coinfer.model.content.PROTOBUF_LIMIT_BYTES", 40)
    return load_model(path)


class Before:
    """A library before whose calls something happens."""

    def __init__(self, core: Any, name: str, happens: Callable[[], object]) -> None:
        self.core, self.name, self.happens = core, name, happens

    def __getattr__(self, name: str) -> Any:
        if name == self.name:
            self.happens()
        return getattr(self.core, name)


def load(backend: Backend, model: Model) -> Any:
    units = frozenset({"u"})
    return backend.load(model, Processor(name="cpu", backend=backend.name, units=units))


def test_it_runs_as_it_does_from_bytes(backend: Backend, large: Model) -> None:
    feed = large.sample_inputs()
    session = load(backend, large)
    weights = np.fromfile(large.source.parent / "weights.bin", np.float32).reshape(4, 3)
    made = feed["x"] @ weights
    np.testing.assert_allclose(session.run(feed)["y"], np.maximum(made, made * 0.1), rtol=1e-4)
    session.close()


@pytest.mark.parametrize("call", ["read_model", "compile_model"])
def test_weights_written_while_a_library_reads_them_are_refused(
    backend: Backend, large: Model, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = large.source.parent / "weights.bin"

    def write() -> None:
        with weights.open("r+b") as file:  # the same file, as long as before
            file.write(b"\0\0\x80?" * 12)
        os.utime(weights, ns=(0, 0))  # however coarse the clock of the disk is

    if backend.name == "onnxruntime":
        from coinfer.backends.onnxruntime import compiling as module

        create = module.create
        monkeypatch.setattr(module, "create", lambda *given: (write(), create(*given))[1])
    else:
        monkeypatch.setattr(backend, "_core", Before(backend._core, call, write))
    with pytest.raises(BackendError, match="load the model again"):
        load(backend, large)
