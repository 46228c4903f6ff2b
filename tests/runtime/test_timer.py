"""The timer fires at the moment armed last, once, and can be moved and stopped at any time."""

from __future__ import annotations

import math
import threading
import time

import pytest

from coinfer.runtime import clock
from coinfer.runtime.timer import Timer

WAIT_S = 20.0
NEVER_S = 3600.0


class Counter:
    def __init__(self) -> None:
        self.fired: list[float] = []
        self._changed = threading.Condition()

    def __call__(self) -> None:
        with self._changed:
            self.fired.append(clock.now())
            self._changed.notify_all()

    def wait_for(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.fired) >= count, WAIT_S)


def started() -> tuple[Timer, Counter]:
    counter = Counter()
    timer = Timer(counter)
    timer.start()
    return timer, counter


def test_it_fires_once_and_not_before_its_moment() -> None:
    timer, counter = started()
    at_s = clock.now() + 0.02
    timer.arm(at_s)
    assert counter.wait_for(1)
    timer.stop()
    assert len(counter.fired) == 1
    assert counter.fired[0] >= at_s


def test_a_moment_that_has_passed_fires_at_once() -> None:
    timer, counter = started()
    timer.arm(clock.now() - 1.0)
    assert counter.wait_for(1)
    timer.stop()


def test_arming_sooner_moves_it_forward() -> None:
    timer, counter = started()
    timer.arm(clock.now() + NEVER_S)
    timer.arm(clock.now())
    assert counter.wait_for(1)
    timer.stop()


def test_arming_later_puts_it_off() -> None:
    timer, counter = started()
    timer.arm(clock.now() + 0.02)
    late_s = clock.now() + 0.05
    timer.arm(late_s)
    assert counter.wait_for(1)
    timer.stop()
    assert len(counter.fired) == 1
    assert counter.fired[0] >= late_s


def test_it_can_be_armed_again_from_its_own_call() -> None:
    counter = Counter()

    def fire() -> None:
        counter()
        if len(counter.fired) < 3:
            timer.arm(clock.now())

    timer = Timer(fire)
    timer.start()
    timer.arm(clock.now())
    assert counter.wait_for(3)
    timer.stop()
    assert len(counter.fired) == 3


def test_stopping_does_not_wait_for_a_distant_moment() -> None:
    timer, counter = started()
    timer.arm(clock.now() + NEVER_S)
    timer.stop()
    assert not counter.fired


def test_disarming_is_arming_at_infinity() -> None:
    timer, counter = started()
    timer.arm(clock.now() + NEVER_S)
    timer.arm(math.inf)
    timer.stop()
    assert not counter.fired


def test_stopping_from_its_own_call_does_not_wait_for_itself() -> None:
    done = threading.Event()

    def fire() -> None:
        timer.stop()
        done.set()

    timer = Timer(fire)
    timer.start()
    timer.arm(clock.now())
    assert done.wait(WAIT_S)


def test_a_timer_that_was_never_started_can_be_stopped() -> None:
    Timer(Counter()).stop()


def test_after_a_stall_what_runs_may_end_before_it_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead_s = [0.0]
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + ahead_s[0])
    timer, counter = started()
    timer.arm(clock.now() + NEVER_S)
    while timer._bell.qsize():  # it waits for its moment
        time.sleep(0.001)
    ahead_s[0] = NEVER_S + 100.0  # all of the process was stopped, and goes on now
    began_s = clock.now()
    timer.ring()  # as whoever submits does at once
    assert counter.wait_for(1)
    timer.stop()
    assert counter.fired[0] - began_s > 0.5
