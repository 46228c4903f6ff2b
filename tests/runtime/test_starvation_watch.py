"""Where other programs starve what gives way, urgent requests stop preempting until it is calm."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field

import pytest

from coinfer.api import Engine
from coinfer.core.commands import Execution
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.runtime import clock
from coinfer.runtime.engine_warnings import EngineWarnings
from coinfer.runtime.starvation_watch import CALM_S, IN_A_ROW, WINDOW_S, StarvationWatch
from coinfer.testing.machine import request
from coinfer.testing.models import tiny_linear
from coinfer.threads.run_time import RunTime, run_time

PATIENCE_S = 30.0
CPU0 = Processor(name="cpu0", backend="null", units=frozenset({"core0"}))
CPU1 = Processor(name="cpu1", backend="null", units=frozenset({"core1"}))
FREE = Processor(name="npu", backend="null", units=frozenset({"npu"}))
EXPRESS = tuple(
    Processor(
        name=f"cpu{n}+",
        backend="null",
        units=frozenset({f"core{n}+"}),
        overlays=frozenset({f"core{n}"}),
    )
    for n in (0, 1)
)


@dataclass
class FakeWorker:
    """What the watch asks a worker."""

    processor: Processor
    thread_id: int
    gives_way: bool
    yielding: object


@dataclass
class FakePool:
    """Workers that are none."""

    workers: dict[str, FakeWorker]


@dataclass
class Scene:
    """A watch on a clock that stands still, with threads whose times are told by hand."""

    monkeypatch: pytest.MonkeyPatch
    now_s: float = 0.0
    process_s: float = 0.0
    times: dict[int, RunTime] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    running: dict[int, Execution] = field(default_factory=dict)
    warnings: EngineWarnings = field(default_factory=EngineWarnings)

    def __post_init__(self) -> None:
        everyone = (CPU0, CPU1, FREE, *EXPRESS)
        self.numbers = {p.name: n for n, p in enumerate(everyone)}
        below = {"cpu0", "cpu1"}
        workers = {
            p.name: FakeWorker(p, n, p.name in below, object() if p.name in below else None)
            for n, p in enumerate(everyone)
        }
        self.times = dict.fromkeys(self.numbers.values(), RunTime(0.0, 0.0))
        self.monkeypatch.setattr(clock, "now", lambda: self.now_s)
        self.pool = FakePool(workers)
        self.watch = StarvationWatch(
            self.pool,  # type: ignore[arg-type]
            self.running,
            self.said.append,
            self.warnings,
            self.times.get,
            lambda: self.process_s,
        )

    def runs(self, processor: str, deadline_s: float = math.inf) -> None:
        number = len(self.running)
        of = (request("m", deadline_s=deadline_s),)
        self.running[number] = Execution(number, "m", Span(), processor, of, 0.0, 0.02)

    def pass_by(self, **met: tuple[float, float]) -> None:
        """Let a window pass in which threads ran and were kept for so many seconds."""
        self.meet(**met)
        self.now_s += WINDOW_S
        assert self.watch.due_in_s() == 0.0
        self.watch.look()
        assert self.watch.due_in_s() == WINDOW_S

    def meet(self, **met: tuple[float, float]) -> None:
        for name, (ran_s, kept_s) in met.items():
            number = self.numbers[name.replace("_express", "+")]
            before = self.times[number]
            self.times[number] = RunTime(before.ran_s + ran_s, before.kept_s + kept_s)
            self.process_s += ran_s


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_what_has_a_deadline_and_starves_ends_preemption_until_it_is_calm(scene: Scene) -> None:
    scene.runs("cpu1", deadline_s=0.1)
    for _ in range(IN_A_ROW):
        assert scene.said == []
        scene.pass_by(cpu1=(0.001, 0.499))
    assert scene.said == ["other programs or threads kept cpu1 from the cores"]
    assert scene.watch.is_given_up
    for _ in range(5):  # others still want the core
        scene.pass_by(cpu1=(0.25, 0.25))
    for _ in range(round(CALM_S / WINDOW_S) - 1):
        scene.pass_by(cpu1=(0.4, 0.02))
        scene.pass_by()  # where nothing runs, nobody knows
    assert scene.watch.is_given_up
    scene.pass_by(cpu1=(0.4, 0.02))
    assert scene.said[1:] == [""]
    assert not scene.watch.is_given_up


def test_the_next_time_it_waits_for_twice_as_long_and_says_so(scene: Scene) -> None:
    scene.runs("cpu0", deadline_s=0.1)
    for patience_s in (CALM_S, 2 * CALM_S):
        for _ in range(IN_A_ROW):
            scene.pass_by(cpu0=(0.0, 0.5))
        for _ in range(round(patience_s / WINDOW_S)):
            assert scene.watch.is_given_up
            scene.pass_by(cpu0=(0.5, 0.0))
        assert not scene.watch.is_given_up
    (text,) = scene.warnings
    assert text == (
        "other programs or threads kept cpu0 from the cores: urgent requests do not preempt until "
        "these are calm for 20 s (given up 2 times); `preempt: false` avoids it"
    )


def test_what_urgent_requests_of_our_own_take_is_not_starving(scene: Scene) -> None:
    scene.runs("cpu1", deadline_s=0.1)
    for _ in range(5):
        scene.pass_by(cpu1=(0.01, 0.49), cpu1_express=(0.45, 0.0))
    assert scene.said == []
    for _ in range(IN_A_ROW):  # those on another core are no reason
        scene.pass_by(cpu1=(0.01, 0.49), cpu0_express=(0.45, 0.0))
    assert len(scene.said) == 1


def test_it_takes_more_than_one_window_in_a_row(scene: Scene) -> None:
    scene.runs("cpu1", deadline_s=0.1)
    for _ in range(5):
        scene.pass_by(cpu1=(0.0, 0.5))
        scene.pass_by(cpu1=(0.4, 0.1))
    assert scene.said == []


def test_what_has_no_deadline_may_starve_but_that_is_said_once(scene: Scene) -> None:
    scene.runs("cpu0")
    scene.runs("cpu1", deadline_s=0.1)
    for _ in range(5):
        scene.pass_by(cpu0=(0.0, 0.5))
    assert scene.said == []
    assert list(scene.warnings) == [
        "other programs or threads kept cpu0 from the cores: what has no deadline gives way to all "
        "that is not idle; leave a core to it, or give `preempt: false`"
    ]


@pytest.mark.parametrize(
    ("met", "may"),
    [
        ({}, True),
        ({"cpu0": (0.01, 0.015)}, True),  # too little to tell
        ({"cpu0": (0.2, 0.02), "cpu1": (0.1, 0.1)}, True),  # one core is free of others
        ({"cpu0": (0.2, 0.2), "cpu1": (0.1, 0.1)}, False),
        ({"cpu0": (0.02, 0.02)}, False),
    ],
)
def test_nothing_is_lowered_where_others_are_seen_to_want_the_cores(
    scene: Scene, met: dict[str, tuple[float, float]], may: bool
) -> None:
    scene.pass_by(cpu0=(0.5, 0.0), cpu1=(0.5, 0.0))
    scene.meet(**met)
    assert scene.pool.may_lower() is may  # type: ignore[attr-defined]
    assert scene.pool.may_lower() is may  # type: ignore[attr-defined]
    scene.pass_by()
    assert scene.said == ([] if may else ["other programs keep the cores busy"])


def test_threads_of_the_application_are_no_reason_not_to_preempt(scene: Scene) -> None:
    scene.pass_by(cpu0=(0.5, 0.0), cpu1=(0.5, 0.0))
    scene.meet(cpu0=(0.1, 0.1), cpu1=(0.1, 0.1))
    scene.process_s += 0.1  # one of them kept one or the other from its core
    assert scene.pool.may_lower()  # type: ignore[attr-defined]


def test_an_engine_that_gave_preemption_up_serves_on_and_preempts_again_later() -> None:
    model = tiny_linear().model
    profile = Profile.from_seconds({"m": {"cpu0": 5e-3, "cpu1": 5e-3}})
    feed = model.sample_inputs()
    with Engine(
        {"m": model}, processors=(CPU0, CPU1, *EXPRESS), profile=profile, pin=False
    ) as engine:
        loop = engine._event_loop
        for reason in ("others are busy", "", "again", ""):
            if not reason:
                loop._yielding.begin()
            loop.preemption.set(reason)
            futures = [engine.submit("m", feed, deadline_s=5.0) for _ in range(20)]
            assert all(future.result(PATIENCE_S) for future in futures)
            express = loop._core._state.express
            assert express is not None
            assert set(express.in_service) == (set() if reason else {"cpu0+", "cpu1+"})


def test_the_time_that_threads_ran_is_told() -> None:
    before = run_time(threading.get_native_id())
    if before is None:
        pytest.skip("this system does not count how long threads waited for a core")
    until_s = time.thread_time() + 0.02
    while time.thread_time() < until_s:
        pass
    after = run_time(threading.get_native_id())
    assert after is not None
    assert after.ran_s - before.ran_s >= 0.01
    assert after.kept_s >= before.kept_s
