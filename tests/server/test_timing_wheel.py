"""Looks: each at its time, one per iteration of the loop."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

from coinfer.server.http.timing_wheel import TimingWheel


class Handle:
    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """An event loop whose time is told to it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.iterations = 0
        self.timers: list[tuple[float, Handle]] = []
        self.ready: list[Handle] = []

    def time(self) -> float:
        return self.now_s

    def call_soon(self, act: Callable[[], None]) -> Handle:
        self.ready.append(handle := Handle(act))
        return handle

    def call_later(self, after_s: float, act: Callable[[], None]) -> Handle:
        self.timers.append((self.now_s + after_s, handle := Handle(act)))
        return handle

    @property
    def n_timers(self) -> int:
        return sum(not handle.is_cancelled for _, handle in self.timers)

    def iterate(self, step_s: float = 0.001) -> None:
        self.iterations += 1
        self.now_s += step_s
        due = [each for each in self.timers if each[0] <= self.now_s]
        self.timers = [each for each in self.timers if each not in due]
        now, self.ready = [handle for _, handle in due] + self.ready, []
        for handle in now:
            if not handle.is_cancelled:
                handle.act()


class Thing:
    def __init__(self, loop: Loop, again_s: float | None = None) -> None:
        self.slot = 0
        self.loop = loop
        self.again_s = again_s
        self.looks: list[tuple[int, float]] = []

    def look(self) -> float | None:
        self.looks.append((self.loop.iterations, self.loop.now_s))
        return self.again_s


def made() -> tuple[Loop, TimingWheel]:
    loop = Loop()
    return loop, TimingWheel(cast(Any, loop))


def test_what_is_due_together_is_looked_at_one_per_iteration() -> None:
    loop, wheel = made()
    things = [Thing(loop) for _ in range(50)]
    for each in things:
        wheel.add(each, 1.0)
    assert loop.n_timers == 1
    while loop.now_s < 102.0:
        loop.iterate()
    found = sorted(each.looks[0] for each in things)
    assert [len(each.looks) for each in things] == [1] * 50
    assert [at for at, _ in found] == list(range(found[0][0], found[0][0] + 50))
    assert 101.0 <= found[0][1] < 101.01
    assert loop.n_timers == 0


def test_each_is_looked_at_in_its_time() -> None:
    chance = random.Random(1)
    loop, wheel = made()
    wanted_s = {Thing(loop): chance.uniform(0.0, 1.0) for _ in range(200)}
    for each, after_s in wanted_s.items():
        assert wheel.add(each, after_s) == 100.0
    while loop.now_s < 101.5:
        loop.iterate(0.0003)
    late_s = [each.looks[0][1] - 100.0 - after_s for each, after_s in wanted_s.items()]
    assert min(late_s) >= 0.0
    assert max(late_s) < 0.01


def test_what_was_taken_out_is_not_looked_at() -> None:
    loop, wheel = made()
    there, gone, never = (Thing(loop) for _ in range(3))
    wheel.add(there, 0.5)
    wheel.add(gone, 0.5)
    wheel.discard(gone)
    wheel.discard(gone)
    wheel.discard(never)
    while loop.now_s < 101.0:
        loop.iterate()
    assert (len(there.looks), gone.looks, never.looks) == (1, [], [])


def test_what_is_to_be_looked_at_again_is() -> None:
    loop, wheel = made()
    thing = Thing(loop, again_s=0.1)
    wheel.add(thing, 0.5)
    while len(thing.looks) < 4:
        loop.iterate()
    times_s = [at_s for _, at_s in thing.looks]
    gaps_s = [after - before for before, after in pairwise(times_s)]
    assert all(0.1 <= gap_s < 0.11 for gap_s in gaps_s)
    thing.again_s = None
    loop.iterate(1.0)
    loop.iterate()
    assert len(thing.looks) == 5
    assert loop.n_timers == 0


def test_one_that_is_sooner_does_not_wait_for_the_others() -> None:
    loop, wheel = made()
    later, sooner = Thing(loop), Thing(loop)
    wheel.add(later, 60.0)
    wheel.add(sooner, 0.2)
    assert loop.n_timers == 1
    while not sooner.looks:
        loop.iterate()
    assert loop.now_s < 100.3
    assert not later.looks
    loop.iterate()
    assert loop.n_timers == 1
