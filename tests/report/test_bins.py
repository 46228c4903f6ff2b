from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.report.bins import edges, mean_count, nice_step, number

moments = st.floats(0, 100, allow_nan=False)
intervals = st.lists(st.tuples(moments, moments).map(sorted), max_size=30)


@given(intervals, st.integers(1, 50))
def test_mean_count_is_the_overlap_of_each_step_with_each_interval(
    spans: list[list[float]], most: int
) -> None:
    steps = edges(0.0, 100.0, most)
    starts, ends = (np.array([span[i] for span in spans], np.float64) for i in (0, 1))
    expected = [
        sum(max(0.0, min(high, b) - max(low, a)) for a, b in spans) / (high - low)
        for low, high in pairwise(steps)
    ]
    # Sums of up to 30 x 100 in double precision; the difference of two such sums is the result.
    assert mean_count(starts, ends, steps) == pytest.approx(expected, abs=1e-9)


@given(st.floats(1e-6, 1e6), st.integers(1, 500))
def test_a_nice_step_cuts_into_at_most_so_many(length: float, most: int) -> None:
    step = nice_step(length, most)
    assert length / step <= most * (1 + 1e-6)
    assert length / step > most / 2.5001 - 1e-6


@given(st.floats(-100, 100), st.floats(1e-3, 1e4), st.integers(1, 300))
def test_edges_cover_the_time_with_at_most_so_many_steps(
    first_s: float, length_s: float, most: int
) -> None:
    steps = edges(first_s, first_s + length_s, most)
    assert steps[0] == first_s
    assert steps[-1] >= first_s + length_s * (1 - 1e-6)
    assert 1 <= len(steps) - 1 <= most + 1


def test_an_empty_time_is_one_step() -> None:
    assert edges(3.0, 3.0, 10).tolist() == [3.0, 4.0]


def test_moments_without_a_time_are_not_counted() -> None:
    assert number(np.array([0.5, np.nan]), np.array([0.0, 1.0, 2.0])).tolist() == [1.0, 0.0]
