"""Variants in the bound: further ways of one model, which requests do not mix."""

from __future__ import annotations

import pytest

from coinfer.bound import makespan, throughput_bound
from coinfer.bound.capacity import Capacity
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span

TWO = [Processor(name=n, backend="null", units=frozenset({n})) for n in ("p", "q")]
LESS = {"m": ("m@c",)}


def profile(rows: dict[tuple[str, str, int, int], float]) -> Profile:
    return Profile(
        {
            ProfileKey(model, processor, 1, Span(first, last)): Measurement(seconds=(seconds,))
            for (model, processor, first, last), seconds in rows.items()
        }
    )


def test_of_whole_variants_each_processor_runs_the_faster_one() -> None:
    table = {"m": {"p": 0.2, "q": 0.4}, "m@c": {"p": 0.3, "q": 0.1}, "n": {"p": 0.1}}
    found = throughput_bound(table, TWO, {"m": 1, "n": 1}, variants=LESS)
    best = {"m": {"p": 0.2, "q": 0.1}, "n": {"p": 0.1}}
    assert found == throughput_bound(best, TWO, {"m": 1, "n": 1})
    assert makespan(table, TWO, {"m": 5}, variants=LESS).seconds == pytest.approx(0.4)


def test_no_request_goes_on_in_another_variant() -> None:
    spans = profile(
        {
            ("m", "p", 0, 0): 0.1,
            ("m", "p", 1, 2): 0.9,
            ("m@c", "p", 0, 0): 0.9,
            ("m@c", "p", 1, 1): 0.2,
        }
    )
    found = throughput_bound(spans, TWO[:1], {"m": 1}, variants=LESS)
    assert found.throughput_per_s == pytest.approx(1 / 1.0)
    assert Capacity.of(spans, TWO[:1], {"m": 1}, variants=LESS).steps == (4,)


def test_the_bound_is_that_of_the_best_shares_of_both() -> None:
    spans = profile(
        {
            ("m", "p", 0, 0): 0.2,
            ("m", "p", 1, 1): 0.4,
            ("m", "q", 1, 1): 0.5,
            ("m@c", "q", 0, 0): 0.1,
            ("m@c", "p", 1, 2): 0.9,
            ("m@c", "q", 1, 2): 0.4,
        }
    )
    found = throughput_bound(spans, TWO, {"m": 1}, variants=LESS).throughput_per_s
    apart = [
        throughput_bound(spans, TWO, {"m": 1 - share, "m@c": share}).throughput_per_s
        for share in (at / 200 for at in range(201))
    ]
    assert max(apart) <= found * (1 + 1e-9)
    assert max(apart) == pytest.approx(found, rel=0.01)
    assert found > max(apart[0], apart[-1]) * 1.1
