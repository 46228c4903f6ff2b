"""What preempts is performed by the thread that asks for it, once other threads give way."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from coinfer.api import Engine
from coinfer.backends.null import NullBackend
from coinfer.core.preemption import BRIEF_S
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.testing.models import tiny_linear
from coinfer.threads.priority import LOWEST, lower_current_thread
from runtime import noting
from runtime.test_attention import in_thread

MODEL = tiny_linear().model
FEED = MODEL.sample_inputs()
PATIENCE_S = 30.0
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")


class Noting(NullBackend):
    """Notes where and by which thread each run is done; runs on `cpu0` wait to be let go."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[tuple[str, str]] = []
        self.began = threading.Event()
        self.go_on = threading.Event()

    def sharing_key(self, processor: Processor) -> str:
        return processor.name

    def load(self, model: Model, processor: Processor) -> Any:
        session = super().load(model, processor)
        run = session.run

        def noted(inputs: Any) -> Any:
            self.runs.append((processor.name, threading.current_thread().name))
            if processor.name == "cpu0":
                self.began.set()
                assert self.go_on.wait(PATIENCE_S)
            return run(inputs)

        session.run = noted  # type: ignore[method-assign]
        return session


def overtaken(
    ask: Callable[[Engine], object], *, seconds: float = BRIEF_S, device: str = "CPU"
) -> list[tuple[str, str]]:
    """Return who performed what preempts, asked for twice while another run is on the core."""
    backend = Noting()
    express = Processor(
        name="cpu0+",
        backend="null",
        device=device,
        units=frozenset({"core0+"}),
        overlays=frozenset({"core0"}),
    )
    with Engine(
        {"slow": MODEL, "quick": MODEL},
        processors=[
            Processor(name="cpu0", backend="null", device=device, units=frozenset({"core0"})),
            express,
        ],
        profile=Profile.from_seconds({"slow": {"cpu0": 10.0}, "quick": {"cpu0": seconds}}),
        backends={"null": backend},
        pin=False,
    ) as engine:
        slow = engine.submit("slow", FEED)
        assert backend.began.wait(PATIENCE_S)
        for _ in range(2):
            in_thread(lambda: ask(engine))
        assert not slow.done()
        backend.go_on.set()
        slow.result(PATIENCE_S)
    return [each for each in backend.runs if each[0] == "cpu0+"]


def infer(engine: Engine) -> object:
    return engine.infer("quick", FEED, deadline_s=5.0)


def attend(engine: Engine) -> None:
    """Submit in a thread that performs only what is urgent, and look on."""
    soon = list[Callable[[], None]]()
    engine.attend(threading.get_ident(), soon.append, only_urgent=True)
    future = engine.submit("quick", FEED, deadline_s=5.0)
    assert not future.done()
    soon.pop()()
    future.result(PATIENCE_S)
    engine.attend(threading.get_ident(), None)


WORKER = ("cpu0+", "coinfer-cpu0+")


@linux
def test_the_first_makes_others_give_way_and_further_ones_are_performed_by_who_asks() -> None:
    assert overtaken(infer) == [WORKER, ("cpu0+", "asks")]


@linux
def test_so_they_are_by_a_thread_that_performs_nothing_else() -> None:
    assert overtaken(attend) == [WORKER, ("cpu0+", "asks")]


@linux
def test_what_is_not_brief_is_the_workers() -> None:
    assert overtaken(infer, seconds=40 * BRIEF_S) == [WORKER] * 2


@linux
def test_so_is_what_a_thread_asks_that_gives_way_itself() -> None:
    def ask(engine: Engine) -> object:
        assert lower_current_thread()
        return infer(engine)

    assert overtaken(ask) == [WORKER] * 2
    assert LOWEST > 0


def test_so_is_a_brief_run_where_the_thread_performs_only_what_is_urgent() -> None:
    backend = noting.Noting()

    def act() -> None:
        soon = list[Callable[[], None]]()
        made.attend(threading.get_ident(), soon.append, only_urgent=True)
        future = made.submit("m", noting.FEED)
        soon.pop()()
        future.result(PATIENCE_S)
        made.attend(threading.get_ident(), None)

    with noting.noting_engine(backend) as made:
        in_thread(act)
    assert backend.threads == ["coinfer-p0"]


def test_so_is_what_preempts_on_a_device() -> None:
    assert overtaken(infer, device="CUDA:0") == [WORKER] * 2
