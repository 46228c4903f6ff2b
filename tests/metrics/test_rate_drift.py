"""A drift is said of rates that stay far off, and not of bursts, pauses or chance."""

from __future__ import annotations

import random
from collections.abc import Iterable

from coinfer.metrics.rate_drift import WINDOW_S, RateDrift


def noted(drift: RateDrift, windows: Iterable[dict[str, int]]) -> list[set[str]]:
    """Feed counts of windows, the first look at 0 included."""
    drift.note({}, 0.0)
    total: dict[str, int] = {}
    found = []
    for at, window in enumerate(windows, 1):
        total = {name: total.get(name, 0) + window.get(name, 0) for name in {*total, *window}}
        found.append(set(drift.note(total, at * WINDOW_S)))
    return found


def test_rates_that_stay_far_above_or_below_are_a_drift_after_three_windows() -> None:
    drift = RateDrift({"more": 10.0, "less": 10.0, "same": 10.0})
    window = {"more": 250, "less": 30, "same": 110}
    assert noted(drift, [window] * 4) == [set(), set(), {"more", "less"}, {"more", "less"}]


def test_a_burst_or_a_swing_is_none() -> None:
    high, low, fit = {"m": 400}, {"m": 20}, {"m": 100}
    assert not any(noted(RateDrift({"m": 10.0}), [high, high, fit] * 5))
    assert not any(noted(RateDrift({"m": 10.0}), [high, low] * 10))


def test_a_pause_of_everything_tells_nothing() -> None:
    assert not any(noted(RateDrift({"m": 10.0}), [{"m": 100}, *[{}] * 20, {"m": 100}]))


def test_a_model_that_is_no_longer_asked_for_while_others_are_has_drifted() -> None:
    found = noted(RateDrift({"gone": 10.0, "m": 10.0}), [{"m": 100}] * 3)
    assert found[-1] == {"gone"}


def test_chance_makes_no_drift_of_rare_requests() -> None:
    draw = random.Random(1)
    windows = [{"rare": sum(draw.random() < 0.1 for _ in range(10))} for _ in range(2000)]
    assert not any(noted(RateDrift({"rare": 0.1}), windows))
