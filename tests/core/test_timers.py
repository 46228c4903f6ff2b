from __future__ import annotations

import math

from coinfer.core.timers import Timers
from coinfer.testing.machine import request


def test_the_earliest_wish_is_armed_once() -> None:
    timers = Timers()
    assert timers.to_arm({}) is None
    timers.watchdog_s = 5.0
    timers.policy_s = 3.0
    assert timers.to_arm({}) == 3.0
    assert timers.to_arm({}) is None
    timers.add_deadline(request(id=1, deadline_s=2.0), {1: None})
    assert timers.to_arm({1: None}) == 2.0


def test_a_later_wish_does_not_move_an_armed_timer() -> None:
    timers = Timers()
    timers.policy_s = 3.0
    timers.to_arm({})
    timers.policy_s = 4.0
    assert timers.to_arm({}) is None
    timers.fired(3.0)
    assert timers.to_arm({}) == 4.0


def test_deadlines_of_requests_that_do_not_wait_arm_nothing() -> None:
    timers = Timers()
    timers.add_deadline(request(id=1, deadline_s=2.0), {})
    timers.add_deadline(request(id=2, deadline_s=3.0), {2: None})
    assert timers.to_arm({2: None}) == 3.0


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
    assert len(timers._deadlines) <= 65
    assert timers.policy_s == math.inf
