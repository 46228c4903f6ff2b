import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.metrics.latency import ExactLatencies, LatencySketch

latencies = st.lists(st.floats(min_value=1e-9, max_value=1e9), min_size=1, max_size=300)
shares = st.floats(min_value=0.0, max_value=1.0)


@given(latencies, shares)
def test_sketch_is_within_half_a_percent_of_the_exact_quantile(
    values: list[float], q: float
) -> None:
    exact, sketch = ExactLatencies(), LatencySketch()
    for value in values:
        exact.add(value)
        sketch.add(value)
    assert sketch.quantile_s(q) == pytest.approx(exact.quantile_s(q), rel=0.005, abs=0.0)
    assert sketch.mean_s() == pytest.approx(exact.mean_s(), rel=1e-9)
    assert sketch.quantile_s(1.0) == exact.quantile_s(1.0) == max(values)


@given(latencies, shares)
def test_exact_quantile_is_the_smallest_value_that_covers_its_share(
    values: list[float], q: float
) -> None:
    exact = ExactLatencies()
    for value in values:
        exact.add(value)
    quantile = exact.quantile_s(q)
    assert quantile in values
    covered = sum(value <= quantile for value in values)
    below = sum(value < quantile for value in values)
    assert covered >= q * len(values) - 1e-9
    assert below < max(1.0, q * len(values))


@given(latencies)
def test_quantiles_of_the_sketch_rise(values: list[float]) -> None:
    sketch = LatencySketch()
    for value in values:
        sketch.add(value)
    found = [sketch.quantile_s(q) for q in (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)]
    assert found == sorted(found)


def test_exact_quantiles_of_twenty_values_are_the_ones_of_the_textbook() -> None:
    exact = ExactLatencies()
    for value in range(20, 0, -1):
        exact.add(float(value))
    assert [exact.quantile_s(q) for q in (0.5, 0.9, 0.95, 0.99, 1.0)] == [10, 18, 19, 20, 20]


def test_sketch_does_not_grow_with_the_number_of_latencies() -> None:
    sketch = LatencySketch()
    for i in range(50_000):
        sketch.add(0.001 + (i % 1000) * 1e-5)
    assert sketch.count == 50_000
    assert len(sketch._fresh) < 1024
    assert len(sketch._buckets) <= math.ceil(math.log(11) / math.log(1.01)) + 1


def test_latencies_of_zero_stay_zero_beside_others() -> None:
    sketch = LatencySketch()
    for seconds in (0.0, 0.0, 0.0, 1.0):
        sketch.add(seconds)
    assert sketch.quantile_s(0.75) == 0.0
    assert sketch.quantile_s(1.0) == 1.0


def test_the_smallest_latencies_keep_their_precision_and_what_is_below_counts_as_zero() -> None:
    sketch = LatencySketch()
    for seconds in (-1e-12, 0.5e-9, 1e-9, 2e-9):
        sketch.add(seconds)
    assert sketch.quantile_s(0.5) == 0.0
    assert sketch.quantile_s(0.75) == pytest.approx(1e-9, rel=0.005, abs=0.0)


@pytest.mark.parametrize("store", [ExactLatencies, LatencySketch])
def test_no_latency_has_no_quantile(store: type[ExactLatencies] | type[LatencySketch]) -> None:
    assert math.isnan(store().quantile_s(0.5))
    assert math.isnan(store().mean_s())
