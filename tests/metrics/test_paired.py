"""The paired ratio: bounds that hold as often as they say, whatever the rounds are like."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.errors import ConfigurationError
from coinfer.metrics.paired import LEAST_ROUNDS, PairedRatio, in_turn, paired_ratio, wins

FIGURES = st.lists(
    st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), min_size=LEAST_ROUNDS, max_size=60
)


def ratio_of(ratios: list[float]) -> PairedRatio:
    """Ours in the given relation to theirs, as rates."""
    return paired_ratio(ratios, [1.0] * len(ratios), larger_is_better=True)


def test_of_nine_rounds_the_second_ones_bound_the_median() -> None:
    found = ratio_of([1.09, 1.01, 1.05, 1.02, 1.08, 1.03, 1.07, 1.04, 1.06])
    assert found == PairedRatio(median=1.05, lower=1.02, upper=1.08, rounds=9)


@pytest.mark.parametrize(
    ("rounds", "k"),
    # Table of the sign test at 5 %, both sides: fewer than k is significant.
    [(9, 2), (10, 2), (11, 2), (12, 3), (15, 4), (17, 5), (20, 6), (25, 8), (40, 14), (60, 22)],
)
def test_more_rounds_come_closer(rounds: int, k: int) -> None:
    found = ratio_of([float(number) for number in range(1, rounds + 1)])
    assert (found.lower, found.upper) == (k, rounds + 1 - k)


@pytest.mark.parametrize("rounds", [9, 12, 25, 40])
@pytest.mark.parametrize("heavy_tails", [False, True])
def test_the_interval_holds_the_true_ratio_in_95_of_100_cases(
    rounds: int, heavy_tails: bool
) -> None:
    """With lognormal ratios, and with a tenth of the rounds disturbed on either side."""
    true, cases = 1.07, 4_000
    random = np.random.default_rng(rounds)
    spread = 0.05 * random.standard_normal((cases, rounds))
    if heavy_tails:
        spread *= np.where(random.random((cases, rounds)) < 0.1, 20.0, 1.0)
    theirs = np.exp(random.normal(0.0, 0.5, (cases, rounds)))  # drift that hits both
    ours = true * theirs * np.exp(spread)
    held = sum(
        found.lower <= true <= found.upper
        for found in (
            paired_ratio(a.tolist(), b.tolist(), larger_is_better=True)
            for a, b in zip(ours, theirs, strict=True)
        )
    )
    # Three standard deviations of the count; ranks are whole numbers, so it may be more than 95 %.
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / cases) <= held / cases <= 0.99


def test_equal_contestants_are_called_better_once_in_forty_times_at_most() -> None:
    random = np.random.default_rng(1)
    cases = 8_000
    rounds = np.exp(0.03 * random.standard_normal((cases, LEAST_ROUNDS)))
    called = sum(ratio_of(each.tolist()).is_better for each in rounds)
    assert called / cases <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / cases)


@given(FIGURES, st.booleans())
def test_who_changes_sides_gets_the_inverse(
    figures: list[tuple[float, float]], larger_is_better: bool
) -> None:
    ours, theirs = zip(*figures, strict=True)
    one = paired_ratio(ours, theirs, larger_is_better=larger_is_better)
    for other in (
        paired_ratio(theirs, ours, larger_is_better=larger_is_better).inverse,
        paired_ratio(theirs, ours, larger_is_better=not larger_is_better),
    ):
        assert other.median == pytest.approx(one.median)
        assert (other.lower, other.upper) == pytest.approx((one.lower, one.upper))
    assert one.lower <= one.median * (1 + 1e-9)
    assert one.median <= one.upper * (1 + 1e-9)


@given(FIGURES, st.randoms())
def test_the_order_of_the_rounds_does_not_matter(
    figures: list[tuple[float, float]], random: object
) -> None:
    shuffled = list(figures)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        paired_ratio(*zip(*each, strict=True), larger_is_better=True)
        for each in (figures, shuffled)
    )
    assert one == other


def test_equal_figures_are_a_tie_that_nobody_wins() -> None:
    tie = ratio_of([1.0] * 9)
    assert tie == PairedRatio(median=1.0, lower=1.0, upper=1.0, rounds=9)
    assert not tie.is_better
    assert tie.is_not_worse


def test_drift_of_the_machine_changes_nothing() -> None:
    drift = [2.0**number for number in range(9)]
    assert paired_ratio([1.1 * d for d in drift], drift, larger_is_better=True).is_better


@pytest.mark.parametrize(("lost", "is_better"), [(1, True), (2, False)])
def test_one_lost_round_of_nine_is_forgiven_however_bad(lost: int, is_better: bool) -> None:
    assert ratio_of([0.01] * lost + [1.02] * (9 - lost)).is_better is is_better


@pytest.mark.parametrize(("worst", "is_not_worse"), [(0.95, True), (0.949, False)])
def test_not_worse_is_decided_by_the_lower_bound(worst: float, is_not_worse: bool) -> None:
    found = ratio_of([worst, worst] + [1.1] * 7)
    assert found.is_not_worse is is_not_worse
    assert not found.is_better


def test_times_are_better_if_they_are_smaller() -> None:
    found = paired_ratio([2.0] * 9, [3.0] * 9, larger_is_better=False)
    assert found.median == pytest.approx(1.5)
    assert found.is_better
    assert str(found) == "1.50x (1.50 to 1.50)"


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([1.0] * 8, [1.0] * 8, "8 rounds are too few .* measure at least 9"),
        ([1.0] * 9, [1.0] * 10, "9 rounds of ours and 10 of theirs"),
        ([1.0] * 8 + [0.0], [1.0] * 9, "0.0 cannot be compared"),
        ([1.0] * 9, [1.0] * 8 + [-1.0], "-1.0 cannot be compared"),
        ([1.0] * 9, [1.0] * 8 + [math.inf], "inf cannot be compared"),
        ([1.0] * 8 + [math.nan], [1.0] * 9, "nan cannot be compared"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_error(
    ours: list[float], theirs: list[float], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        paired_ratio(ours, theirs, larger_is_better=True)


def test_contestants_are_measured_in_turn_and_in_reverse_in_every_second_round() -> None:
    calls: list[str] = []
    slower = itertools.count(1)  # a machine that becomes slower with every measurement

    def measure(name: str, seconds: float) -> float:
        calls.append(name)
        return seconds * 1.01 ** next(slower)

    found = wins(lambda: measure("a", 1.0), lambda: measure("b", 1.05), larger_is_better=False)
    assert calls == ["a", "b", "b", "a"] * 4 + ["a", "b"]
    assert found.rounds == LEAST_ROUNDS
    assert found.is_better
    assert found.median == pytest.approx(1.05, rel=0.011)


def test_nothing_is_measured_where_the_rounds_are_too_few() -> None:
    def never() -> float:
        raise AssertionError

    with pytest.raises(ConfigurationError, match="8 rounds are too few"):
        wins(never, never, larger_is_better=True, rounds=8)


def test_everybody_has_a_turn_in_each_round() -> None:
    turns = list(in_turn("abc", 3))
    assert "".join(name for _, name in turns) == "abccbaabc"
    assert [number for number, _ in turns] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
