"""The child of a fork beside real sessions: refused at once, ends well, and may make an engine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forks like that"),
]

PROGRAM = """\
import os, signal, sys
import numpy as np
import coinfer
from coinfer.errors import ClosedError
from coinfer.testing.models import tiny_conv

example = tiny_conv()
model, feed = example.model, example.model.sample_inputs()
backends, threads = sys.argv[1].split(","), int(sys.argv[2])
processors = [
    coinfer.Processor(name=b, backend=b, units=frozenset({"u0", "u1"}), threads=threads)
    for b in backends
]
times = {"m": {b: 1e-3 for b in backends}}


def made():
    profile = coinfer.Profile.from_seconds(times)
    return coinfer.Engine({"m": model}, processors=processors, profile=profile, pin=False)


def check(outputs):
    for name, value in example.reference(feed).items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-5)


def child(engine, waiting):
    for ask in (
        lambda: engine.infer("m", feed),
        lambda: engine.load("n", model),
        lambda: engine.warm_up("m", feed),
        engine.drain,
    ):
        try:
            ask()
        except ClosedError as error:
            assert "make an engine in each process" in str(error), error
        else:
            raise AssertionError("it was served")
    for future in waiting:
        if not future.done():
            raise AssertionError("a request has no answer")
    engine.stop()
    if not waiting:
        with made() as own:
            check(own.infer("m", feed))


def forked(engine, waiting):
    number = os.fork()
    if not number:
        signal.alarm(60)  # what hangs ends by a signal, and the parent says so
        child(engine, waiting)
        sys.exit(3)  # as programs end: with all that libraries do then
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 3


with made() as engine:
    for _ in range(4):
        check(engine.infer("m", feed))
    forked(engine, [])
    for _ in range(3):  # while sessions run
        waiting = [engine.submit("m", feed) for _ in range(50)]
        forked(engine, waiting)
        for future in waiting:
            check(future.result(60))
print("well")
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("backends", ["onnxruntime", "openvino", "onnxruntime,openvino"])
def test_a_fork_beside_sessions_of_real_libraries(backends: str, threads: int) -> None:
    for backend in backends.split(","):
        pytest.importorskip(backend, reason=f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, backends, str(threads)],
        env={**os.environ, "COINFER_PATIENCE_S": "20"},
        capture_output=True,
        text=True,
        timeout=300.0,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")
