from __future__ import annotations

import pytest

from coinfer.core.estimates import SMOOTHING, Estimates
from coinfer.machine.span import Span
from coinfer.testing.machine import profile

WHOLE = Span(0, 0)


@pytest.fixture
def estimates() -> Estimates:
    estimates = Estimates()
    estimates.add("m", profile("m", {"cpu0": 0.1, "cpu1": 0.2}))
    return estimates


def test_the_profile_comes_first(estimates: Estimates) -> None:
    assert estimates.expected_s("m", "cpu0", WHOLE, 1) == 0.1
    assert estimates.expected_s("m", "cpu0", WHOLE, 4) == pytest.approx(0.4)
    assert estimates.expected_s("m", "gpu", WHOLE, 1) is None
    assert estimates.expected_s("m", "cpu0", Span(0, 1), 1) is None


def test_an_observation_moves_only_its_own_estimate(estimates: Estimates) -> None:
    row = estimates.row("m", WHOLE, 1)
    estimates.observe("m", "cpu0", WHOLE, 1, 0.15)
    assert row == {"cpu0": pytest.approx(0.1 + SMOOTHING * 0.05), "cpu1": 0.2}
    assert estimates.expected_s("m", "cpu0", WHOLE, 2) == pytest.approx(0.2)


def test_observations_of_what_is_not_known_are_ignored(estimates: Estimates) -> None:
    estimates.observe("gone", "cpu0", WHOLE, 1, 0.3)
    estimates.observe("m", "gpu", WHOLE, 1, 0.3)
    estimates.row("m", WHOLE, 1)
    estimates.observe("m", "gpu", WHOLE, 1, 0.3)
    assert estimates.expected_s("m", "gpu", WHOLE, 1) is None


def test_loading_again_starts_from_the_new_profile(estimates: Estimates) -> None:
    estimates.row("m", WHOLE, 1)
    estimates.add("m", profile("m", {"cpu0": 0.7}))
    assert estimates.row("m", WHOLE, 1) == {"cpu0": 0.7}


def test_one_stall_does_not_make_a_processor_look_slow(estimates: Estimates) -> None:
    estimates.row("m", WHOLE, 1)
    estimates.observe("m", "cpu0", WHOLE, 1, 50.0)
    assert estimates.expected_s("m", "cpu0", WHOLE, 1) <= 0.1 * (1 + SMOOTHING) + 1e-9
    for _ in range(100):
        estimates.observe("m", "cpu0", WHOLE, 1, 1.0)
    assert estimates.expected_s("m", "cpu0", WHOLE, 1) == pytest.approx(1.0, rel=0.01)


def test_a_blame_keeps_the_shape_of_a_curve() -> None:
    estimates = Estimates()
    estimates.add("m", profile("m", {"cpu0": 0.1}), as_curve=True)
    ratio = estimates.row("m", WHOLE, 2)["cpu0"] / estimates.row("m", WHOLE, 1)["cpu0"]
    for _ in range(5):
        estimates.blame("m", "cpu0", WHOLE, 2)
    for _ in range(100):
        estimates.observe("m", "cpu0", WHOLE, 1, 0.1)
    after = estimates.row("m", WHOLE, 2)["cpu0"] / estimates.row("m", WHOLE, 1)["cpu0"]
    assert after == pytest.approx(ratio)


def test_empty_batches_tell_nothing_of_others() -> None:
    estimates = Estimates()
    estimates.add("m", profile("m", {"cpu0": 0.1}), as_curve=True)
    estimates.row("m", WHOLE, 1)
    estimates.row("m", WHOLE, 0)
    for _ in range(30):
        estimates.observe("m", "cpu0", WHOLE, 0, 1e-4)
    assert estimates.expected_s("m", "cpu0", WHOLE, 1) == 0.1
    assert estimates.expected_s("m", "cpu0", WHOLE, 0) < 0.01


@pytest.mark.parametrize("as_curve", [False, True])
def test_what_was_learnt_stays_where_the_measured_time_is_the_same(as_curve: bool) -> None:
    estimates = Estimates()
    estimates.add("m", profile("m", {"cpu0": 0.1, "cpu1": 0.2}, most=4), as_curve=as_curve)
    for _ in range(3):
        for batch, processor in ((1, "cpu0"), (2, "cpu0"), (1, "cpu1")):
            estimates.row("m", WHOLE, batch)
            estimates.observe("m", processor, WHOLE, batch, 0.35)
    before = {batch: dict(estimates.row("m", WHOLE, batch)) for batch in (1, 2)}
    fresh = profile("m", {"cpu0": 0.1, "cpu1": 0.3, "cpu2": 0.4}, most=4)
    estimates.add("m", fresh, as_curve=as_curve)
    for batch, row in before.items():
        after = estimates.row("m", WHOLE, batch)
        assert after["cpu0"] == pytest.approx(row["cpu0"], rel=1e-9)
        assert after["cpu1"] == fresh.expected_s("m", "cpu1", batch=batch)
        assert after["cpu2"] == fresh.expected_s("m", "cpu2", batch=batch)
