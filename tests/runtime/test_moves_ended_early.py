"""A move that an exception or the end of the engine cuts short: nothing is lost, all is freed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from coinfer.backends.null import Faults, NullBackend, NullSession
from coinfer.errors import ClosedError
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.runtime import engine as engine_module
from coinfer.runtime.engine import Engine
from runtime.engines import FEED, MODEL
from runtime.test_moves import engine_of, loaded, planned


def interrupts(act: Callable[..., object], *, after: bool) -> Callable[..., object]:
    """As a signal that comes just before something was done, or just after."""

    def interrupted(*arguments: object, **others: object) -> object:
        if after:
            act(*arguments, **others)
        raise KeyboardInterrupt

    return interrupted


def spans(engine: Engine) -> list[str]:
    return list(engine.plan.models["m"].original.spans)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("owner", "step"),
    [
        ("_model_store", "extend"),
        ("_event_loop", "start"),
        ("_model_loader", "extend"),
        ("_event_loop", "tell"),
        ("_event_loop", "runs"),
        ("_model_store", "shrink"),
        ("_model_loader", "finish_moves"),
    ],
)
def test_ctrl_c_at_any_step_leaves_an_engine_that_answers_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, owner: str, step: str, after: bool
) -> None:
    with engine_of(planned("p0")) as engine:
        found = getattr(engine, owner)
        with monkeypatch.context() as patch:
            if step == "finish_moves":  # it is called before anything is done, too
                known = engine._model_loader.finish_moves
                calls = iter([known, interrupts(known, after=after)])
                patch.setattr(found, step, lambda *given: next(calls)(*given))
            else:
                patch.setattr(found, step, interrupts(getattr(found, step), after=after))
            with pytest.raises(KeyboardInterrupt):
                engine.move("m", ["p1"])
        assert {*spans(engine)} <= {*loaded(engine)}
        for _ in range(3):
            assert "y" in engine.infer("m", FEED, timeout_s=10)
        engine.move("m", ["p2"])
        assert loaded(engine) == spans(engine) == ["p2"]
        assert "y" in engine.infer("m", FEED, timeout_s=10)
        engine._core.check()
        assert engine.fault is None


def test_what_a_move_left_is_closed_by_the_next_change_once_nothing_runs_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = Faults()
    faults.hang(processor="p0")
    with engine_of(planned("p0", models=("m", "n")), faults) as engine:
        running = engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        with monkeypatch.context() as patch:
            patch.setattr(engine._event_loop, "runs", interrupts(bool, after=False))
            with pytest.raises(KeyboardInterrupt):
                engine.move("m", ["p1"])
        assert (spans(engine), loaded(engine)) == (["p1"], ["p0", "p1"])
        assert "y" in engine.infer("m", FEED, timeout_s=10)
        faults.release()
        assert "y" in running.result(10)
        engine.unload("n")
        assert loaded(engine) == ["p1"]


def test_a_model_that_leaves_is_not_brought_back_by_its_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with engine_of(planned("p0", models=("m", "n"))) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(engine._event_loop, "runs", interrupts(bool, after=False))
            with pytest.raises(KeyboardInterrupt):
                engine.move("m", ["p1"])
        with monkeypatch.context() as patch:
            withdraw = engine._model_loader.withdraw
            finish = engine._model_loader.finish_moves
            patch.setattr(engine._model_loader, "finish_moves", lambda _plan: None)
            patch.setattr(engine._model_loader, "withdraw", interrupts(withdraw, after=True))
            with pytest.raises(KeyboardInterrupt):
                engine.unload("m")
            finish(engine.plan)
        assert "m" not in engine.view.models
        engine.unload("m")
        assert engine.models == ("n",)
        assert not engine._model_store.processors("m")


def test_stop_does_not_wait_for_a_load_that_takes_long_and_all_is_closed_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(NullBackend):
        def load(self, model: Model, processor: Processor) -> NullSession:
            if processor.name == "p1":
                began.set()
                stopped.wait(10)
            made.append(super().load(model, processor))
            return made[-1]

    monkeypatch.setattr(engine_module, "_RELEASE_PATIENCE_S", 0.01)
    began, stopped = threading.Event(), threading.Event()
    made, errors = list[NullSession](), list[ClosedError]()
    engine = Engine(planned("p0"), {"m": MODEL}, backends={"null": Slow()})

    def move() -> None:
        try:
            engine.move("m", ["p1"])
        except ClosedError as error:
            errors.append(error)

    mover = threading.Thread(target=move)
    mover.start()
    assert began.wait(10)
    engine.stop()
    stopped.set()
    mover.join(10)
    assert len(errors) == 1
    assert [session._closed for session in made] == [True, True]
