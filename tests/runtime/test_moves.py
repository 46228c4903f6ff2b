"""A model moves to other processors while it is asked: nothing is lost, what is left is freed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from coinfer.backends.null import Faults, NullBackend
from coinfer.core.events import ProcessorLost, ProcessorRestored
from coinfer.errors import BackendError, ClosedError, ConfigurationError, UnknownNameError
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.plan import Plan
from coinfer.plan.choice import Choice
from coinfer.replay import LogHeader, recording, replay
from coinfer.runtime.engine import Engine, Observer
from runtime.engines import FEED, MODEL, cpus

NAMES = ("p0", "p1", "p2")
WHY = Choice("auto", "the load drifted")


def planned(
    *at: str, models: Sequence[str] = ("m",), timed: Sequence[str] = NAMES, express: bool = False
) -> Plan:
    """A plan that has times everywhere and loads every model on some processors only."""
    over = [
        Processor(name=f"{n}+", backend="null", units=frozenset({f"{n}+"}), overlays=frozenset({n}))
        for n in (NAMES if express else ())
    ]
    profile = Profile.from_seconds({model: dict.fromkeys(timed, 1e-3) for model in models})
    plan = Plan.of(Machine(processors=(*cpus(*NAMES), *over), profile=profile))
    return plan.loading(profile.of_pairs({(model, name) for model in models for name in at}))


def engine_of(plan: Plan, faults: Faults | None = None, observer: Observer | None = None) -> Engine:
    backend = NullBackend(faults=faults)
    models = dict.fromkeys(plan.models, MODEL)
    return Engine(plan, models, backends={"null": backend}, observer=observer)


def loaded(engine: Engine, model: str = "m") -> list[str]:
    return sorted(engine.placement(model))


def test_requests_run_where_the_model_moved_to_and_the_plan_says_so() -> None:
    with engine_of(planned("p0")) as engine:
        assert loaded(engine) == ["p0"]
        engine.infer("m", FEED)
        engine.move("m", ["p2", "p1"], WHY)
        assert loaded(engine) == ["p1", "p2"]
        assert list(engine.plan.models["m"].original.spans) == ["p2", "p1"]
        assert engine.plan.models["m"].choices[-1] == WHY
        for _ in range(4):
            engine.infer("m", FEED)
        done = {name: each.executions for name, each in engine.stats().processors.items()}
        assert (done["p0"], done["p1"] + done["p2"]) == (1, 4)
        engine.move("m", ["p0"])
        assert "y" in engine.infer("m", FEED)
    assert engine.fault is None


def test_one_name_is_no_list_of_names() -> None:
    with engine_of(planned("p0")) as engine:
        with pytest.raises(ConfigurationError, match=r"must be a list of names.*give \['p1'\]"):
            engine.move("m", "p1")
        assert loaded(engine) == ["p0"]


def test_nothing_is_lost_while_it_moves_to_and_fro_under_load(tmp_path: Path) -> None:
    path, plan = tmp_path / "run.jsonl", planned("p0", models=("m", "n"))
    header = LogHeader(policy=plan.policy.name, processors=plan.processors)
    with recording(path, header) as log, engine_of(plan, observer=log) as engine:
        answers, ended = [], threading.Event()

        def ask() -> None:
            while not ended.is_set():
                answers.extend([engine.submit(name, FEED) for name in ("m", "n")])
                answers[-1].result(10)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for at in range(30):
            engine.move("m", [NAMES[at % 3], NAMES[(at + 1) % 3]])
        ended.set()
        for thread in threads:
            thread.join()
        assert all("y" in answer.result(10) for answer in answers)
        assert len(answers) >= 2
        engine._core.check()
    assert engine.fault is None
    assert replay(path).difference is None


def test_what_is_left_is_closed_when_nothing_runs_there_and_not_before() -> None:
    faults = Faults()
    faults.hang(processor="p0")
    with engine_of(planned("p0"), faults) as engine:
        session = engine._model_store.get("m", *_at(engine, "p0"))
        running = engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        waiting = engine.submit("m", FEED)
        mover = threading.Thread(target=engine.move, args=("m", ["p1"]))
        mover.start()
        assert "y" in waiting.result(10)  # at once, at the new place
        assert mover.is_alive()
        assert not session._closed  # type: ignore[attr-defined]
        faults.release()
        mover.join(10)
        assert "y" in running.result(10)
        assert session._closed  # type: ignore[attr-defined]


def _at(engine: Engine, processor: str) -> tuple[object, str]:
    (span,) = {s for s, p, _ in engine._model_store.items("m") if p == processor}
    return span, processor


def test_a_processor_that_cannot_take_it_is_left_out_and_a_move_nowhere_changes_nothing() -> None:
    faults = Faults()
    faults.fail_load(processor="p1", times=2)
    with engine_of(planned("p0"), faults) as engine:
        engine.move("m", ["p1", "p2"])
        assert loaded(engine) == ["p2"]
        assert any(text.startswith("m does not run on p1: ") for text in engine.warnings)
        before = engine.plan
        with pytest.raises(BackendError, match="stays where it is"):
            engine.move("m", ["p1"])
        assert engine.plan is before
        assert loaded(engine) == ["p2"]
        engine.move("m", ["p0", "p2"])
        faults.fail_load(processor="p1")
        with pytest.raises(BackendError, match="stays where it is"):
            engine.move("m", ["p2", "p1"])  # else it had p2 only
        assert loaded(engine) == ["p0", "p2"]
        assert "y" in engine.infer("m", FEED)


def test_it_does_not_move_to_where_nothing_is_in_service() -> None:
    with engine_of(planned("p0", "p1")) as engine:
        engine._event_loop.tell(ProcessorLost("p1", "dead"))
        with pytest.raises(BackendError, match=r"stays where it is: out of service: p1$"):
            engine.move("m", ["p1"])
        engine._event_loop.tell(ProcessorLost("p2", "dead"))
        with pytest.raises(BackendError, match=r"out of service: p2, p1$"):
            engine.move("m", ["p2", "p1"])
        assert loaded(engine) == ["p0", "p1"]
        assert "y" in engine.infer("m", FEED, timeout_s=10)
        engine._event_loop.tell(ProcessorRestored("p2"))
        engine.move("m", ["p1", "p2"])
        assert "y" in engine.infer("m", FEED, timeout_s=10)


def test_a_request_that_failed_at_the_new_place_tries_again_there() -> None:
    faults = Faults()
    faults.hang(processor="p0")
    with engine_of(planned("p0", "p1"), faults) as engine:
        running = engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        faults.fail(processor="p1")
        waiting = engine.submit("m", FEED)
        while not engine._core.failures.counts:
            pass  # it waits for p0 then
        mover = threading.Thread(target=engine.move, args=("m", ["p1"]))
        mover.start()
        assert "y" in waiting.result(10)
        faults.release()
        mover.join(10)
        assert "y" in running.result(10)


def test_express_processors_follow() -> None:
    with engine_of(planned("p0", express=True)) as engine:
        assert loaded(engine) == ["p0", "p0+"]
        engine.move("m", ["p1"])
        assert loaded(engine) == ["p1", "p1+"]
        assert "y" in engine.infer("m", FEED, deadline_s=1.0, priority=1)


def test_a_session_that_several_processors_share_is_made_once_and_stays() -> None:
    plan = planned("p0")
    real = tuple(replace(p, backend="onnxruntime") for p in plan.processors)
    plan = replace(plan, machine=replace(plan.machine, processors=real))
    with Engine(plan, {"m": MODEL}) as engine:
        (first,) = {session for _, _, session in engine._model_store.items("m")}
        engine.move("m", ["p1", "p2"])
        assert loaded(engine) == ["p1", "p2"]
        assert {session for _, _, session in engine._model_store.items("m")} == {first}
        assert "y" in engine.infer("m", FEED)


def test_what_was_learnt_stays() -> None:
    with engine_of(planned("p0", "p1")) as engine:
        engine.infer("m", FEED)
        lane = engine.view.entrance("m", 1, 0)
        before = dict(engine.view.offered_s(lane))
        engine.move("m", ["p0", "p1", "p2"])
        after = engine.view.offered_s(engine.view.entrance("m", 1, 0))
        assert {name: after[name] for name in before} == before
        assert after["p2"] == 1e-3


def test_it_refuses_what_makes_no_sense() -> None:
    with engine_of(planned("p0", timed=("p0", "p1"))) as engine:
        with pytest.raises(UnknownNameError, match="p3"):
            engine.move("m", ["p3"])
        with pytest.raises(UnknownNameError, match="model"):
            engine.move("x", ["p1"])
        with pytest.raises(ConfigurationError, match="no time of it there"):
            engine.move("m", ["p2"])
        with pytest.raises(ConfigurationError, match="no processor is named"):
            engine.move("m", [])
    with pytest.raises(ClosedError):
        engine.move("m", ["p1"])
    with engine_of(planned("p0")) as engine:  # it is about to get a budget that the core has not
        engine._event_loop.post_beside = lambda _event: None  # type: ignore[method-assign]
        assert engine._memory_watches._begin(None, 0)
        assert not engine.memories
        with pytest.raises(ConfigurationError, match="has a budget"):
            engine.move("m", ["p1"])
    limited = replace(planned("p0"), memory={"host": 2**30})
    with engine_of(limited) as engine, pytest.raises(ConfigurationError, match="has a budget"):
        engine.move("m", ["p1"])


def test_stopping_ends_a_move_between_two_sessions() -> None:
    class Slow(NullBackend):
        def load(self, model: Model, processor: Processor) -> object:  # type: ignore[override]
            if processor.name == "p1":
                began.set()
                stopping.wait(10)
            return super().load(model, processor)

    began, stopping, errors = threading.Event(), threading.Event(), list[Exception]()
    engine = Engine(planned("p0"), {"m": MODEL}, backends={"null": Slow()})

    def move() -> None:
        try:
            engine.move("m", ["p1", "p2"])
        except ClosedError as error:
            errors.append(error)

    mover = threading.Thread(target=move)
    mover.start()
    assert began.wait(10)
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    while not engine._event_loop.closing:
        pass
    stopping.set()
    stopper.join(10)
    mover.join(10)
    assert not stopper.is_alive()
    assert len(errors) == 1
