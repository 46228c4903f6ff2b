"""What an engine did is in its stats; what failed and was tried again is counted and told."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coinfer.api import Engine
from coinfer.backends.null import Faults, NullBackend
from coinfer.core.dispatcher import Limits
from coinfer.errors import ClosedError, DroppedError, ExecutionError, InputError
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.model import Model, load_model
from coinfer.testing.models import tiny_linear
from runtime.engines import FEED, MODEL, cpus, null_engine

WAIT_S = 20.0
PATIENT = Limits(set_aside_after=float("inf"))


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Faults that hold nobody after the test."""
    made = Faults()
    yield made
    made.release()


def ask(engine: Engine, model: str = "m", **options: object) -> None:
    engine.submit(model, FEED, **options).result(WAIT_S)  # type: ignore[arg-type]


def test_answers_are_counted_by_model_and_outcome(faults: Faults) -> None:
    models = {"m": MODEL, "other": MODEL}
    with null_engine("p0", faults=faults, models=models, limits=Limits(max_waiting=1)) as engine:
        for _ in range(3):
            ask(engine)
        ask(engine, deadline_s=100.0)
        faults.hang()
        running = engine.submit("m", FEED, deadline_s=1e-9)
        assert faults.wait_until_hanging()
        dropped = engine.submit("m", FEED, deadline_s=1e-9, on_late="drop")
        with pytest.raises(DroppedError):
            dropped.result(WAIT_S)
        waiting = engine.submit("other", FEED)
        rejected = engine.submit("m", FEED)
        assert rejected.exception(WAIT_S) is not None
        now = engine.stats()
        assert (now.models["m"].running, now.models["other"].queue) == (1, 1)
        assert (now.models["m"].submitted, now.models["other"].submitted) == (7, 1)
        assert waiting.cancel()
        faults.release()
        running.result(WAIT_S)
        faults.fail()
        assert engine.submit("m", FEED).exception(WAIT_S) is not None
    m, other = engine.stats().models["m"], engine.stats().models["other"]
    assert (m.submitted, m.completed, m.late, m.dropped, m.rejected, m.failed) == (8, 5, 1, 1, 1, 1)
    assert (m.queue, m.running, m.retried) == (0, 0, 0)
    assert (other.submitted, other.cancelled, other.completed) == (1, 1, 0)
    assert other.latency_ms.p50 is None


def test_latencies_are_those_of_the_completed(faults: Faults) -> None:
    with null_engine("p0") as engine:
        for _ in range(1100):
            ask(engine)
        ask(engine, due_s=-1000.0)
        row = engine.stats().models["m"]
    assert row.completed == 1101
    latency = row.latency_ms
    assert latency.p50 is not None
    assert latency.max is not None
    assert latency.p50 < 1e6 <= latency.max


def test_processors_tell_what_they_did_and_what_is_loaded() -> None:
    entry = Measurement(seconds=(1e-4,), resident_bytes=1000)
    profile = Profile(
        {
            ProfileKey("front", "p0"): entry,
            ProfileKey("front", "p0", 2): Measurement(seconds=(2e-4,), resident_bytes=1500),
            ProfileKey("front", "p1"): entry,
            ProfileKey("back", "p1"): entry,
        }
    )
    with Engine(
        {"front": MODEL, "back": MODEL},
        processors=cpus("p0", "p1", "p2"),
        profile=profile,
        policy="fcfs",
        backends={"null": NullBackend(0.002)},
        pin=False,
    ) as engine:
        for _ in range(5):
            ask(engine, "front")
        stats = engine.stats()
        p0, p1, p2 = stats.processors.values()
        assert list(stats.processors) == ["p0", "p1", "p2"]
        assert p0.loaded == {"front": (Span(),)}
        assert p1.loaded == {"front": (Span(),), "back": (Span(),)}
        assert p2.loaded == {}
        assert [each.resident_bytes for each in (p0, p1, p2)] == [1500, 2000, 0]
        assert (p0.executions + p1.executions, p2.executions) == (5, 0)
        busy_s = (p0.busy_fraction + p1.busy_fraction) * stats.up_s
        assert 0.01 <= busy_s <= stats.up_s
        engine.unload("back")
        assert engine.stats().processors["p1"].resident_bytes == 1000
        assert list(engine.stats().models) == ["front"]
        assert json.loads(json.dumps(stats.to_json()))["models"]["front"]["completed"] == 5
    assert engine.stats().up_s == engine.stats().up_s  # it stands still


def test_a_failure_that_is_tried_again_is_counted_and_warned_of_once(
    faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="coinfer")
    with null_engine("p0", "p1", faults=faults, policy="round_robin", limits=PATIENT) as engine:
        assert engine.warnings == []
        for count in (1, 2, 3):
            faults.fail(processor="p0")
            while engine.stats().processors["p0"].failed < count:
                ask(engine)  # answered by p1
        times = "failed on processor 'p0' and was tried again 3 times"
        assert engine.warnings == [
            f"m: {times}; the last reason: fails because Faults.fail says so"
        ]
        stats = engine.stats()
    assert (stats.models["m"].retried, stats.models["m"].failed) == (3, 0)
    assert (stats.processors["p0"].failed, stats.processors["p1"].failed) == (3, 0)
    [record] = [each for each in caplog.records if "tried again" in each.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.name.startswith("coinfer.")
    assert "tried again once" in record.getMessage()


def test_what_callers_see_fail_is_no_warning(faults: Faults) -> None:
    faults.fail()
    with null_engine("p0", faults=faults) as engine:
        assert engine.submit("m", FEED).exception(WAIT_S) is not None
        assert engine.warnings == []
        assert engine.stats().models["m"].failed == 1
        assert engine.stats().processors["p0"].failed == 1


def test_what_an_engine_that_is_stopped_did_not_run_is_rejected(faults: Faults) -> None:
    faults.hang()
    engine = null_engine("p0", faults=faults)
    futures = [engine.submit("m", FEED) for _ in range(3)]
    assert faults.wait_until_hanging()
    engine.stop(drain=False, timeout_s=0.01)
    assert all(isinstance(future.exception(WAIT_S), ClosedError) for future in futures)
    row = engine.stats().models["m"]
    assert (row.submitted, row.rejected, row.queue, row.running) == (3, 3, 0, 0)


def test_many_threads_are_counted_right() -> None:
    with null_engine("p0", "p1") as engine:

        def many() -> None:
            for _ in range(100):
                ask(engine)

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = engine.stats()
    assert (stats.models["m"].submitted, stats.models["m"].completed) == (400, 400)
    assert sum(each.executions for each in stats.processors.values()) == 400


def test_other_warnings_are_logged_once_too(caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy:
        def observe(self, *step: object) -> None:
            raise ValueError("oops")

    with null_engine("p0", observer=Clumsy()) as engine:
        ask(engine)
        [warning] = engine.warnings
    assert [each.getMessage() for each in caplog.records] == [warning]


def test_a_processor_that_is_set_aside_is_logged(
    faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    faults.fail(processor="p1", times=3)
    limits = Limits(set_aside_after=3)
    with null_engine("p0", "p1", faults=faults, policy="round_robin", limits=limits) as engine:
        for _ in range(12):
            ask(engine)
        assert len(engine.outages) == 1
    text = "processor 'p1' is set aside: fails because Faults.fail says so"
    assert [each.getMessage() for each in caplog.records].count(text) == 1


def saved(tmp_path: Path) -> Model:
    path = tmp_path / "x.onnx"
    path.write_bytes(tiny_linear().model.to_bytes())
    return load_model(path)


def test_messages_name_a_model_as_the_engine_does_and_not_by_its_file(
    faults: Faults, tmp_path: Path
) -> None:
    model = saved(tmp_path)
    assert model.name == "x"
    with null_engine("p0", faults=faults, models={"front": model}) as engine:
        faults.fail(model="front", times=2)
        error = engine.submit("front", FEED).exception(WAIT_S)
        assert isinstance(error, ExecutionError)
        assert str(error) == (
            "request 0 of model 'front': model 'front' on processor 'p0': "
            "fails because Faults.fail says so; no processor in service can run model 'front'"
        )
        with pytest.raises(InputError, match=r"^model 'front': "):
            engine.submit("front", {})
        with pytest.raises(ExecutionError, match=r"^model 'front' on processor 'p0': fails"):
            engine.warm_up("front", FEED)
    assert model.renamed("front").content is model.content


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_errors_of_a_library_name_the_model_as_the_engine_does(
    backend: str, tmp_path: Path
) -> None:
    pytest.importorskip(backend)
    (cpu,) = cpus("p0")
    processor = cpu.__class__(name="p0", backend=backend, units=cpu.units)
    profile = Profile.from_seconds({"front": {"p0": 1e-4}})
    with Engine(
        {"front": saved(tmp_path)}, processors=[processor], profile=profile, pin=False
    ) as engine:
        for _, _, session in engine._model_store.items("front"):
            session.close()
        error = engine.submit("front", FEED).exception(WAIT_S)
    assert str(error) == (
        "request 0 of model 'front': model 'front' on processor 'p0': "
        "the session is closed; load the model again; "
        "no processor in service can run model 'front'"
    )
