"""The server passes the conformance suite of the protocol, over HTTP and gRPC."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("grpc", reason="the extra `server` is not installed")

import coinfer
from coinfer.server.opening import Opened
from coinfer.server.served_model import served
from coinfer.server.serving import ServeOptions, Server
from coinfer.testing.models import int_gather, tiny_linear, two_inputs
from coinfer.testing.oip import Verdict, run_suite


@pytest.mark.parametrize("has_shared_memory", [True, False])
def test_the_server_speaks_the_protocol(has_shared_memory: bool) -> None:
    models = {"one": tiny_linear().model, "two": two_inputs().model, "ints": int_gather().model}
    described = [served(name, model, most_batch=8) for name, model in models.items()]
    options = ServeOptions(http=0, grpc=0, has_shared_memory=has_shared_memory)
    with Server(options) as server:
        server.open(Opened(engine=coinfer.Engine(dict(models)), models=described))
        url = f"http://127.0.0.1:{server.ports['http']}"
        results = list(run_suite(url, grpc=f"127.0.0.1:{server.ports['grpc']}"))
    failed = {(r.case, r.model): r.reason for r in results if r.verdict is Verdict.FAILED}
    assert not failed
    skipped = {r.case for r in results if r.verdict is Verdict.NOT_OFFERED}
    assert has_shared_memory == ("inputs_and_outputs_in_shared_memory" not in skipped)
    assert len([r for r in results if r.verdict is Verdict.PASSED]) > 100
