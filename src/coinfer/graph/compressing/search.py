"""Search: ranks by measured time, within an error. It measures through a gauge and runs nothing.

Of each layer only those ranks count with which it is faster on every processor. All layers take
steps in the order of error added per time saved, as far as the error allows, measured on the whole
network. Layers that lose in context are undone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from coinfer.graph.compressing.allocation import Option, Step, chosen_after, steps
from coinfer.graph.compressing.layer import WAS, Layer, Ranks

__all__ = ["Choice", "Found", "Gauge", "Point", "search"]

Choice = Mapping[str, Ranks]
"""Ranks by layer; those that are not in it are left as they are."""

_CLEARLY = 0.97
"""A layer must take so much of its time at most: what is nearer may be noise."""

_CURVE = 12
"""At so many steps, about, the error is measured in any case."""


class Gauge(Protocol):
    """Measures."""

    def seconds(self, layer: Layer, ranks: Sequence[Ranks]) -> Mapping[Ranks, Sequence[float]]:
        """Time a layer alone at these ranks side by side; seconds by processor."""
        ...

    def error(self, choice: Choice) -> float:
        """Return how far the outputs of the whole network are from the original's."""
        ...

    def gain(self, choice: Choice, than: Choice) -> float:
        """Return how many times as fast the first is as the second, where it gains least."""
        ...


class Point(NamedTuple):
    """What some steps come to.

    Attributes:
        taken: How many.
        saved_s: Seconds that they save, by the times of layers alone, on average over processors.
        error: Of the whole network, on the samples that are chosen with.
    """

    taken: int
    saved_s: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a search.

    Attributes:
        choice: The ranks.
        seconds: Of each layer at the ranks that were timed, by processor.
        errors: Of the whole network with one layer at these ranks.
        curve: Error against time, as measured.
        undone: Layers that were faster alone and not in context.
        least_error: The smallest error of any layer that would be faster; None: none would.
    """

    choice: Choice
    seconds: Mapping[str, Mapping[Ranks, Sequence[float]]]
    errors: Mapping[tuple[str, Ranks], float]
    curve: Sequence[Point]
    undone: frozenset[str]
    least_error: float | None


def search(
    layers: Sequence[Layer],
    candidates: Mapping[str, Sequence[Ranks]],
    kinds: Mapping[str, Hashable],
    gauge: Gauge,
    max_error: float,
) -> Found:
    """Choose ranks.

    Args:
        layers: Those that may be decomposed.
        candidates: Ranks to choose from by key, those that keep less first.
        kinds: By key: layers of equal kinds take equally long at equal ranks.
        gauge: Measures.
        max_error: The most that the whole network's outputs may be off; infinite: it is not
            looked at.
    """
    bench = _Bench(gauge, max_error, candidates)
    for layer in layers:
        bench.consider(layer, kinds[layer.key])
    undone: set[str] = set()
    while True:
        choice = bench.allocated(undone)
        losers = _losers(choice, kinds, gauge)
        if not losers:
            break
        undone |= losers
    return Found(
        choice=choice,
        seconds=bench.seconds,
        errors=bench.errors,
        curve=sorted(bench.curve),
        undone=frozenset(undone),
        least_error=min(bench.errors.values(), default=None),
    )


@dataclass(slots=True)
class _Bench:
    """What was measured of one network."""

    gauge: Gauge
    max_error: float
    candidates: Mapping[str, Sequence[Ranks]]
    seconds: dict[str, Mapping[Ranks, Sequence[float]]] = field(default_factory=dict)
    errors: dict[tuple[str, Ranks], float] = field(default_factory=dict)
    curve: list[Point] = field(default_factory=list)
    _options: dict[str, list[Option[Ranks]]] = field(default_factory=dict)
    _timed: dict[Hashable, Mapping[Ranks, Sequence[float]]] = field(default_factory=dict)

    def consider(self, layer: Layer, kind: Hashable) -> None:
        """Time a layer's candidates, and measure the errors of those that are faster."""
        ranks = self.candidates[layer.key]
        known = self._timed.get(kind, {})
        missing = [each for each in ranks if each not in known]
        if missing:
            found = self.gauge.seconds(layer, [WAS, *missing])
            # Relative to what the layer took beside them: another moment is another speed.
            was = known.get(WAS, found[WAS])
            scaled = {
                each: [s * w / f for s, w, f in zip(found[each], was, found[WAS], strict=True)]
                for each in missing
            }
            known = {**known, WAS: was, **scaled}
            self._timed[kind] = known
        self.seconds[layer.key] = {each: known[each] for each in (WAS, *ranks) if ranks}
        options = [
            Option(each, saved_s, self._squared(layer.key, each))
            for each, saved_s in self._faster(layer)
        ]
        # Infinite: an output that is no measure, such as the number of a class, is another one.
        self._options[layer.key] = [each for each in options if each.error < math.inf]

    def allocated(self, undone: set[str]) -> dict[str, Ranks]:
        """Take as many steps as the error allows, none on layers that were undone."""
        left = {key: each for key, each in self._options.items() if key not in undone}
        ordered = steps(left)
        within, beyond = 0, len(ordered) + 1
        for taken in self._marks(len(ordered)):
            if within < taken < beyond:
                if self._fits(ordered[:taken]):
                    within = taken
                else:
                    beyond = taken
        while beyond - within > 1:
            middle = (within + beyond) // 2
            if self._fits(ordered[:middle]):
                within = middle
            else:
                beyond = middle
        return self._filled(ordered, within)

    def _filled(self, ordered: Sequence[Step[str, Ranks]], within: int) -> dict[str, Ranks]:
        """Behind the first step that is too much, smaller ones may fit."""
        taken, stuck, tries = list(ordered[:within]), set[str](), 0
        for step in ordered[within:]:
            if step.key in stuck or tries >= _CURVE:
                stuck.add(step.key)
                continue
            tries += 1
            if self._fits([*taken, step]):
                taken.append(step)
            else:
                stuck.add(step.key)
        return chosen_after(taken)

    def _marks(self, count: int) -> list[int]:
        """Return numbers of steps at which to measure, for the curve, up to the first too many."""
        return sorted({round(count * at / _CURVE) for at in range(1, _CURVE + 1)} - {0})

    def _fits(self, taken: Sequence[Step[str, Ranks]]) -> bool:
        error = self.gauge.error(chosen_after(taken))
        self.curve.append(Point(len(taken), sum(step.saved for step in taken), error))
        return error <= self.max_error

    def _faster(self, layer: Layer) -> list[tuple[Ranks, float]]:
        """Return the ranks at which a layer is faster on all processors, and what that saves."""
        times = self.seconds[layer.key]
        found = []
        for ranks, seconds in times.items():
            pairs = list(zip(seconds, times[WAS], strict=True))
            if ranks != WAS and all(now <= _CLEARLY * then for now, then in pairs):
                found.append((ranks, sum(then - now for now, then in pairs) / len(pairs)))
        # Of two of which one has both ranks smaller and saves less, it is of no use.
        return [
            (ranks, saved)
            for ranks, saved in found
            if not any(_keeps_more(other, ranks) and more >= saved for other, more in found)
        ]

    def _squared(self, key: str, ranks: Ranks) -> float:
        """Errors of layers add up as squares: they are hardly correlated."""
        if (key, ranks) not in self.errors:
            self.errors[key, ranks] = self.gauge.error({key: ranks})
        return self.errors[key, ranks] ** 2


def _keeps_more(one: Ranks, other: Ranks) -> bool:
    """Whether one keeps at least as much on both sides, and more on one."""
    pairs = [
        (float("inf") if a is None else a, float("inf") if b is None else b)
        for a, b in zip(one, other, strict=True)
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _losers(choice: Choice, kinds: Mapping[str, Hashable], gauge: Gauge) -> set[str]:
    """Return the layers without which the network would be as fast, like ones together."""
    alike: defaultdict[tuple[Hashable, Ranks], list[str]] = defaultdict(list)
    for key, ranks in choice.items():
        alike[kinds[key], ranks].append(key)
    losers: set[str] = set()
    for keys in alike.values():
        rest = {key: ranks for key, ranks in choice.items() if key not in keys}
        if gauge.gain(choice, rest) <= 1.0:
            losers.update(keys)
    return losers
