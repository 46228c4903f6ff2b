from __future__ import annotations

import math

from coinfer.core.timers import Timers
from coinfer.testing.machine import request


def to_arm(timers: Timers) -> float | None:
    return timers.arm() if timers.next_s < timers.armed_s else None


def test_the_earliest_wish_is_armed_once() -> None:
    timers = Timers()
    assert to_arm(timers) is None
    timers.watch(5.0)
    timers.wake(3.0)
    assert to_arm(timers) == 3.0
    assert to_arm(timers) is None
    timers.add_deadline(request(id=1, deadline_s=2.0), {1: None})
    timers.look_at_deadlines({1: None})
    assert to_arm(timers) == 2.0


def test_a_later_wish_does_not_move_an_armed_timer() -> None:
    timers = Timers()
    timers.wake(3.0)
    to_arm(timers)
    timers.policy_s = 4.0
    timers.settle({})
    assert to_arm(timers) is None
    timers.fired()
    assert to_arm(timers) == 4.0


def test_deadlines_of_requests_that_do_not_wait_arm_nothing() -> None:
    timers = Timers()
    timers.add_deadline(request(id=1, deadline_s=2.0), {})
    timers.add_deadline(request(id=2, deadline_s=3.0), {2: None})
    timers.settle({2: None})
    assert to_arm(timers) == 3.0


def test_expired_are_those_at_or_before_now() -> None:
    timers = Timers()
    waiting = dict.fromkeys(range(3))
    for number in waiting:
        timers.add_deadline(request(id=number, deadline_s=float(number)), waiting)
    assert timers.pop_expired(1.0) == [0, 1]
    assert timers.pop_expired(1.0) == []


def test_answered_requests_do_not_pile_up() -> None:
    timers = Timers()
    for number in range(10_000):
        timers.add_deadline(request(id=number, deadline_s=1e6 + number), {number: None})
    assert len(timers.deadlines) <= 65
    assert timers.policy_s == math.inf
