"""A library that hangs is given up, said with model and processor, and the others go on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest

from backends.hanging import Hanging
from coinfer.api import Engine
from coinfer.backends import registry
from coinfer.backends.loading import load
from coinfer.backends.null import NullBackend
from coinfer.backends.patience import VARIABLE, HangError, closing_unless_hung, patiently
from coinfer.backends.registry import available, get_backend
from coinfer.errors import BackendError, ConfigurationError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.profiling import Effort, Skip, profile_models
from coinfer.testing.models import tiny_linear

WAIT_S = 20.0
MODEL = tiny_linear().model.renamed("net")
CPU, NPU = (Processor(name=n, backend="null", units=frozenset({n})) for n in ("cpu", "npu"))
QUICK = Effort(warmup_runs=1, min_runs=2, max_runs=2)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0.3")


@pytest.fixture
def hanging() -> Iterator:
    made: list[Hanging] = []

    def make(at: str, **options: int) -> Hanging:
        made.append(Hanging(at, **options))
        return made[-1]

    yield make
    for backend in made:
        backend.go_on.set()
    for thread in threading.enumerate():
        if thread.name in ("coinfer-library", "coinfer-profiler"):
            thread.join(WAIT_S)


def test_what_returns_is_returned_and_what_raises_raises() -> None:
    assert patiently(lambda: 7, "counting") == 7
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 // 0, "dividing")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon"])
def test_a_limit_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigurationError, match=VARIABLE):
        patiently(lambda: 7, "counting")


@pytest.mark.parametrize("text", ["", "inf"])
def test_no_limit_and_the_usual_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    assert patiently(lambda: 7, "counting") == 7


def test_a_load_that_hangs_is_said_and_does_not_keep_others_from_loading(hanging) -> None:
    backend = hanging("load")
    with pytest.raises(HangError, match=r"'net' on processor 'npu' .* 0\.3 s.*" + VARIABLE):
        load(backend, MODEL, NPU)
    load(backend, MODEL, CPU).close()


def test_a_session_that_comes_too_late_is_closed(hanging) -> None:
    backend = hanging("load")
    with pytest.raises(HangError):
        load(backend, MODEL, NPU)
    assert backend.closed == []
    backend.go_on.set()
    for thread in threading.enumerate():
        if thread.name == "coinfer-library":
            thread.join(WAIT_S)
    assert backend.closed == ["npu"]


def test_what_hangs_is_not_closed() -> None:
    backend = Hanging("nowhere")
    with pytest.raises(HangError), closing_unless_hung(backend.load(MODEL, NPU)):
        raise HangError.of("it", 1.0)
    with pytest.raises(KeyError), closing_unless_hung(backend.load(MODEL, CPU)):
        raise KeyError
    assert backend.closed == ["cpu"]


@pytest.mark.parametrize(("at", "runs"), [("load", 0), ("run", 0), ("run", 1), ("run", 3)])
def test_measuring_goes_on_with_other_processors(hanging, at: str, runs: int) -> None:
    backend = hanging(at, runs=runs)
    skips: list[Skip] = []
    measured = profile_models(
        {"net": MODEL}, [NPU, CPU], effort=QUICK, backends={"null": backend}, skipped=skips.append
    )
    assert measured.processors() == ("cpu",)
    [skip] = skips
    assert (skip.model, skip.processor) == ("net", "npu")
    assert "'net' on processor 'npu' has not returned" in skip.reason
    assert "npu" not in backend.closed


def engine_on(backend: NullBackend, *processors: Processor) -> Engine:
    times = {"net": {processor.name: 0.01 for processor in processors}}
    return Engine(
        {"net": MODEL},
        processors=processors,
        profile=Profile.from_seconds(times),
        backends={"null": backend},
        pin=False,
    )


def test_an_engine_leaves_a_processor_out_whose_library_hangs(hanging) -> None:
    with engine_on(hanging("load"), CPU, NPU) as engine:
        assert engine.submit("net", MODEL.sample_inputs()).result(WAIT_S)
        [warning] = engine.warnings
        assert "net does not run on npu: loading model 'net' on processor 'npu'" in warning


def test_an_engine_whose_only_processor_hangs_says_so(hanging) -> None:
    with pytest.raises(BackendError, match="loading model 'net' on processor 'npu'"):
        engine_on(hanging("load"), NPU)


def test_a_warm_up_that_hangs_is_said_and_its_session_is_never_closed(hanging) -> None:
    backend = hanging("run")
    with engine_on(backend, CPU, NPU) as engine:
        with pytest.raises(HangError, match="first run of model 'net' on processor 'npu'"):
            engine.warm_up("net", MODEL.sample_inputs())
        assert engine.models == ("net",)
    assert backend.closed == ["cpu"]


def test_devices_that_cannot_be_found_make_a_backend_unusable(
    hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = hanging("devices")
    monkeypatch.setattr(registry, "_instances", {**registry._instances, "null": backend})
    monkeypatch.setattr(registry, "_hanging", {})
    found = {each.name: each for each in available()}
    assert found["null"].backend is None
    assert "devices of backend 'null' has not returned" in found["null"].problem
    assert found["onnxruntime"].backend is not None
    backend.hangs.clear()
    with pytest.raises(HangError):  # at once: it is not asked again
        get_backend("null")
    assert not backend.hangs.is_set()


def test_a_process_with_something_that_hangs_ends(tmp_path) -> None:
    program = """\
import textwrap
import threading
from coinfer.backends.patience import HangError, patiently
from coinfer.profiling.measure import on_cores

try:
    patiently(threading.Event().wait, "waiting")
except HangError:
    print("given up", flush=True)
try:
    on_cores((), lambda stop: threading.Event().wait(), "measuring", n_calls=1)
except HangError:
    print("given up", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, VARIABLE: "0.2"},
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "given up\n" * 2, "")


def test_a_process_ends_when_all_that_was_begun_has_returned(tmp_path) -> None:
    """A thread that returns from a library to an ending interpreter aborts the process."""
    code = """
        import pathlib, time
        from coinfer.backends.patience import begun

        def call(name):
            time.sleep(0.7)
            pathlib.Path(name).touch()

        for name in ("first", "second"):
            begun(lambda name=name: call(name), "loading")
        raise KeyboardInterrupt
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}


CLOSING = """
import os, signal, time
from coinfer.backends.patience import begun
from coinfer.profiling.measure import on_cores

class Session:
    def __call__(self, *_):
        if interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)  # so that this thread is the last that knows it
    def __del__(self):
        time.sleep(0.3)
        os.write(1, b"closed")

interrupted = {interrupted}
try:
    {call}
except KeyboardInterrupt as error:
    error.__traceback__ = None
"""


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("call", ["begun(Session(), '')()", "on_cores((), Session())"])
def test_the_interpreter_waits_for_a_thread_that_still_closes_sessions(
    call: str, interrupted: bool
) -> None:
    code = CLOSING.format(call=call, interrupted=interrupted)
    # No limit that is so short that what starts late counts as hanging.
    environment = {**os.environ, VARIABLE: "20"}
    process = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "closed", "")
