"""The search, with made-up times and errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from coinfer.graph.compressing.layer import WAS, Kind, Layer, Ranks
from coinfer.graph.compressing.search import Choice, Found, search

LOW, HIGH = Ranks(2, 2), Ranks(4, 4)


def conv(key: str) -> Layer:
    sizes = {"groups": 1, "inputs": 8, "outputs": 8, "kernel": (3, 3)}
    return Layer(key=key, name=key, kind=Kind.CONVOLUTION, in_places=1, out_places=1, **sizes)  # type: ignore[arg-type]


@dataclass
class MadeUp:
    """Times by layer and ranks on two processors; errors add up as squares."""

    times: Mapping[str, Mapping[Ranks, Sequence[float]]]
    errors: Mapping[tuple[str, Ranks], float]
    useless: frozenset[str] = frozenset()
    timed: list[str] = field(default_factory=list)

    def seconds(self, layer: Layer, ranks: Sequence[Ranks]) -> Mapping[Ranks, Sequence[float]]:
        self.timed.append(layer.key)
        return {each: self.times[layer.key][each] for each in ranks}

    def error(self, choice: Choice) -> float:
        return math.sqrt(sum(self.errors[each] ** 2 for each in choice.items()))

    def gain(self, choice: Choice, than: Choice) -> float:
        return 0.9 if self.useless & (choice.keys() - than.keys()) else 1.1


TIMES = {
    "a": {WAS: (10.0, 10.0), HIGH: (8.0, 7.0), LOW: (4.0, 4.0)},
    "b": {WAS: (10.0, 10.0), HIGH: (5.0, 5.0), LOW: (4.9, 4.9)},
}
ERRORS = {("a", HIGH): 0.01, ("a", LOW): 0.04, ("b", HIGH): 0.01, ("b", LOW): 0.5}


def found(
    times: Mapping[str, Mapping[Ranks, Sequence[float]]] = TIMES,
    *,
    max_error: float = 1.0,
    useless: frozenset[str] = frozenset(),
    kinds: Mapping[str, str] | None = None,
) -> Found:
    layers = [conv(key) for key in times]
    ranks = {key: [LOW, HIGH] for key in times}
    gauge = MadeUp(times, ERRORS, useless)
    return search(layers, ranks, kinds or {key: key for key in times}, gauge, max_error)


def test_the_error_is_spent_where_it_saves_most() -> None:
    assert found(max_error=0.015).choice == {"a": HIGH, "b": HIGH}
    assert found(max_error=0.05).choice == {"a": LOW, "b": HIGH}
    assert found(max_error=1.0).choice == {"a": LOW, "b": LOW}


def test_no_choice_is_beyond_the_error() -> None:
    for percent in range(1, 60):
        chosen = found(max_error=percent / 100).choice
        assert MadeUp(TIMES, ERRORS).error(chosen) <= percent / 100


def test_if_nothing_fits_the_least_error_is_told() -> None:
    nothing = found(max_error=0.001)
    assert not nothing.choice
    assert nothing.least_error == 0.01


def test_a_layer_must_be_faster_on_every_processor() -> None:
    slow_on_one = {**TIMES, "a": {WAS: (10.0, 10.0), HIGH: (5.0, 10.0), LOW: (4.0, 11.0)}}
    result = found(slow_on_one)
    assert "a" not in result.choice
    assert not any(key == "a" for key, _ in result.errors), "its error is not even measured"


def test_what_is_slower_in_context_is_undone() -> None:
    result = found(useless=frozenset({"a"}))
    assert result.choice.keys() == {"b"}
    assert result.undone == {"a"}


def test_layers_of_one_kind_are_timed_once() -> None:
    gauge = MadeUp({"a": TIMES["a"], "c": TIMES["a"]}, {**ERRORS, ("c", LOW): 0, ("c", HIGH): 0})
    search([conv("a"), conv("c")], {"a": [LOW], "c": [LOW]}, dict.fromkeys("ac", 1), gauge, 1.0)
    assert gauge.timed == ["a"]


def test_no_candidates_no_measurement() -> None:
    gauge = MadeUp(TIMES, ERRORS)
    result = search([conv("a")], {"a": []}, {"a": 1}, gauge, 1.0)
    assert (gauge.timed, result.choice, result.least_error) == ([], {}, None)


def test_the_curve_has_what_was_measured() -> None:
    curve = found(max_error=0.05).curve
    assert {point.taken for point in curve} >= {1, 2}
    assert all(point.saved_s > 0 for point in curve)


@pytest.mark.parametrize("max_error", [0.02, math.inf])
def test_equal_measurements_give_equal_choices(max_error: float) -> None:
    assert found(max_error=max_error) == found(max_error=max_error)
