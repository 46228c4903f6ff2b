"""The bound of models that are cut into spans: a flow through their unit boundaries."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coinfer.bound import makespan, throughput_bound
from coinfer.bound.capacity import Capacity
from coinfer.errors import ConfigurationError
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.testing.machine import processors, profile

BOTH = processors("cpu", "npu")
WIDE = processors("cpu0", "cpu1", "npu", all=("cpu0", "cpu1"))
NAMES = [p.name for p in WIDE]


def cut(rows: dict[str, dict[tuple[int, int], float]], model: str = "m") -> Profile:
    """A profile from seconds by processor and span."""
    return Profile(
        {
            ProfileKey(model, name, 1, Span(*span)): Measurement(seconds=(seconds,))
            for name, row in rows.items()
            for span, seconds in row.items()
        }
    )


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    found = Profile()
    for model in ("a", "b"):
        units = draw(st.integers(1, 4))
        rows = {
            name: {
                (first, last): seconds
                for first in range(units)
                for last in range(first, units)
                if (seconds := draw(st.none() | st.floats(0.01, 5.0))) is not None
            }
            for name in NAMES
        }
        found = found.merged(cut(rows, model))
        assume(rest_s(found, model, lambda name: 1.0) < math.inf)
        assume(found.units(model) == units)
    return found


def rest_s(found: Profile, model: str, price) -> float:
    """The cheapest way from the start to the end, by seconds times the processor's price."""
    units = found.units(model)
    reached = [0.0] + [math.inf] * units
    for key, entry in sorted(found, key=lambda item: item[0].span):
        if key.model == model:
            first, last = key.span
            cost = reached[first] + entry.mean_s * price(key.processor)
            reached[last + 1] = min(reached[last + 1], cost)
    return reached[-1] if units else math.inf


def test_units_that_only_one_processor_can_run_bound_the_whole() -> None:
    # The npu does the first unit in 0.1 s and nothing else; the cpu needs 0.4 s for the second.
    found = cut({"npu": {(0, 0): 0.1}, "cpu": {(0, 0): 0.6, (1, 1): 0.4, (0, 1): 1.0}})
    bound = throughput_bound(found, BOTH, {"m": 1})
    assert bound.throughput_per_s == pytest.approx(2.5)
    assert bound.shares == {
        "cpu": {"m": pytest.approx(1.0)},
        "npu": {"m": pytest.approx(0.25)},
    }
    assert bound.unit_prices == pytest.approx({"cpu": 2.5, "npu": 0.0})


def test_a_model_that_nothing_can_run_whole_has_a_bound() -> None:
    found = profile("m", {"cpu": 0.4, "npu": 0.04}, units=4, gaps={"cpu": {0}, "npu": {1, 2}})
    # Each inference takes the cpu 0.2 s in the middle, the npu 0.01 s before and perhaps after.
    assert throughput_bound(found, BOTH, {"m": 1}).throughput_per_s == pytest.approx(5.0)


def test_cuts_that_gain_nothing_leave_the_bound_as_it_is() -> None:
    table = {"cpu": 0.4, "npu": 0.1}
    whole = throughput_bound({"m": table}, BOTH, {"m": 1})
    parts = throughput_bound(profile("m", table, units=5), BOTH, {"m": 1})
    assert parts.throughput_per_s == pytest.approx(whole.throughput_per_s)
    assert parts.loads == pytest.approx(whole.loads)


def test_whole_models_have_one_edge_per_processor_and_the_same_program() -> None:
    table = {"a": {"cpu": 0.1, "npu": 0.2}, "b": {"npu": 0.3}}
    plain = Capacity.of(table, BOTH, {"a": 1, "b": 2})
    profiled = Capacity.of(Profile.from_seconds(table), BOTH, {"a": 1, "b": 2})
    assert plain.edges == profiled.edges == ((0, 0, (0, 0)), (0, 1, (0, 0)), (1, 1, (0, 0)))
    assert plain.flow().tolist() == [[1, 1, 0], [0, 0, 1]]
    assert plain.asked(plain.amounts).tolist() == [1, 2]


@settings(max_examples=60, deadline=None)
@given(profiles(), st.integers(1, 3), st.integers(1, 3))
def test_prices_prove_the_bound(found: Profile, a: int, b: int) -> None:
    """Strong duality: no chain of spans costs less than its model's price."""
    bound = throughput_bound(found, WIDE, {"a": a, "b": b})
    assert sum(bound.unit_prices.values()) == pytest.approx(bound.throughput_per_s, rel=1e-6)
    for model, price in bound.model_prices.items():
        cheapest = rest_s(found, model, bound.prices.__getitem__)
        assert cheapest == pytest.approx(price, rel=1e-5, abs=1e-9)
    assert max(bound.loads.values()) == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(profiles(), st.randoms(use_true_random=False))
def test_no_schedule_of_spans_beats_the_bound(found: Profile, rng: Random) -> None:
    bound = throughput_bound(found, WIDE, {"a": 1, "b": 1})
    free = {unit: 0.0 for p in WIDE for unit in p.units}
    done_s = 0.0
    for at in range(10):
        model = "ab"[at % 2]
        boundary, now = 0, 0.0
        while boundary < found.units(model):
            ways = [
                (key, entry)
                for key, entry in found
                if key.model == model
                and key.span.first == boundary
                and leads_on(found, model, key.span.last + 1)
            ]
            key, entry = rng.choice(ways)
            (chosen,) = [p for p in WIDE if p.name == key.processor]
            now = max(now, *(free[unit] for unit in chosen.units)) + entry.mean_s
            free.update(dict.fromkeys(chosen.units, now))
            boundary = key.span.last + 1
        done_s = max(done_s, now)
    assert 10 / done_s <= bound.throughput_per_s * (1 + 1e-6)


def leads_on(found: Profile, model: str, boundary: int) -> bool:
    reached = {boundary}
    for key, _ in sorted(found, key=lambda item: item[0].span):
        if key.model == model and key.span.first in reached:
            reached.add(key.span.last + 1)
    return found.units(model) in reached


def test_the_makespan_of_spans_is_exact_on_processors_of_their_own() -> None:
    found = cut({"npu": {(0, 0): 1.0}, "cpu": {(1, 1): 2.0, (0, 1): 4.0}})
    best = makespan(found, BOTH, {"m": 3})
    assert best.proven
    assert best.seconds == pytest.approx(6.0)
    assert best.counts == {"cpu": {"m": 3}, "npu": {"m": 3}}


def test_a_processor_that_holds_one_model_holds_all_its_spans() -> None:
    spans = {"npu": {(0, 0): 0.1, (1, 1): 0.1}, "cpu": {(0, 1): 1.0}}
    found = cut(spans, "a").merged(cut(spans, "b"))
    free = throughput_bound(found, BOTH, {"a": 1, "b": 1})
    held = throughput_bound(found, BOTH, {"a": 1, "b": 1}, one_model={"npu"})
    assert free.throughput_per_s == pytest.approx(6.0)
    assert held.throughput_per_s == pytest.approx(2.0)  # the other one runs on the cpu alone
    assert len(held.shares["npu"]) == 1


def test_a_processor_that_can_hold_one_of_two_models_is_too_few() -> None:
    spans = {"npu": {(0, 0): 0.1}, "cpu": {(1, 1): 1.0}}
    found = cut(spans, "a").merged(cut(spans, "b"))
    with pytest.raises(ConfigurationError, match="cannot hold all of a, b"):
        throughput_bound(found, BOTH, {"a": 1, "b": 1}, one_model={"npu"})


def test_a_model_whose_spans_leave_a_hole_is_named() -> None:
    found = cut({"npu": {(0, 0): 0.1}, "cpu": {(2, 2): 1.0}})
    with pytest.raises(ConfigurationError, match="no processor runs model 'm'"):
        throughput_bound(found, BOTH, {"m": 1})


def test_requests_of_several_samples_take_the_times_of_their_batch() -> None:
    found = profile("m", {"cpu": 0.4, "npu": 0.1}, units=2)
    one = throughput_bound(found, BOTH, {"m": 1}).throughput_per_s
    four = throughput_bound(found, BOTH, {"m": 1}, batches={"m": 4}).throughput_per_s
    assert four == pytest.approx(one / 4)
