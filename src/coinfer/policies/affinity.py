"""Affinity: one model on one processor, the assignment being made from the profiles.

Rule (ETRI study): one model <-> one processor. The assignment is the one whose most loaded
processor has the least to do when all models are asked equally often; found by trying all
assignments if they are few, otherwise longest processing time first (Graham, 1969).

Processors that exclude each other are one place: models are assigned to disjoint sets of compute
units (the smallest there are), and run on the fastest processor of their place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from coinfer.core.lane import Lane
from coinfer.core.policy import Start
from coinfer.core.view import View
from coinfer.policies.assigned import Assigned

__all__ = ["Affinity"]

_MOST_TRIALS = 5_000

_Situation = tuple[frozenset[str], frozenset[str]]

_Costs: TypeAlias = Sequence[Sequence[float]]
"""By model, the seconds at each place; infinite where no processor of the place can run it."""


@dataclass(slots=True, kw_only=True)
class Affinity(Assigned):
    """Serve every model on one processor, chosen from the profiles.

    The assignment is made when the first request is served and again when a model or a processor
    comes or goes; `assignment` shows it.
    """

    assignment: Mapping[str, str] = field(default_factory=dict, init=False)
    _made_for: _Situation | None = field(default=None, init=False, repr=False)

    def decide(self, view: View) -> Iterator[Start]:
        """Start the oldest request whose assigned processor is free."""
        self._assign(view)
        return Assigned.decide(self, view)

    def processor_of(self, view: View, lane: Lane) -> str:
        """Return the assigned processor, or the fastest left if that one cannot run the request."""
        name = self.assignment.get(lane.model)
        return name if name is not None and view.can_run(lane, name) else view.fastest(lane)

    def _assign(self, view: View) -> None:
        situation = (frozenset(view.models), frozenset(view.processors))
        if situation != self._made_for:
            self.assignment = assign(view)
            self._made_for = situation


def assign(view: View) -> dict[str, str]:
    """Return processor by model, the load of the busiest place being smallest.

    With at least as many places as models no two models share a place.
    """
    places = _places(view)
    entrances = {model: view.entrance(model) for model in view.models}
    rows = {model: view.resident_s(lane) for model, lane in entrances.items()}
    rows = {model: seconds for model, seconds in rows.items() if seconds}
    costs = [
        [min(seconds.get(name, math.inf) for name in place) for place in places]
        for seconds in rows.values()
    ]
    chosen = _least_loaded(costs) if costs else ()
    return {
        model: min(places[at], key=partial(_seconds_at, seconds))
        for (model, seconds), at in zip(rows.items(), chosen, strict=True)
    }


def _seconds_at(seconds: Mapping[str, float], name: str) -> float:
    return seconds.get(name, math.inf)


def _least_loaded(costs: _Costs) -> tuple[int, ...]:
    """Return the place of each model; a tie in the busiest place is broken by the total work."""
    load, chosen = min((_loads(costs, each), each) for each in _candidates(costs))
    if load[0] == math.inf:  # some models fit on the same place only: they have to share it
        return _longest_first(costs)
    return chosen


def _places(view: View) -> list[list[str]]:
    """Group processors into places; a processor that contains a smaller one belongs to none."""
    groups: dict[frozenset[str], list[str]] = {}
    for name, processor in view.processors.items():
        groups.setdefault(processor.units, []).append(name)
    smallest = [units for units in groups if not any(other < units for other in groups)]
    return [groups[units] for units in smallest]


def _candidates(costs: _Costs) -> Iterator[tuple[int, ...]]:
    n_models, n_places = len(costs), len(costs[0])
    if n_models <= n_places and math.perm(n_places, n_models) <= _MOST_TRIALS:
        yield from itertools.permutations(range(n_places), n_models)
    elif n_places**n_models <= _MOST_TRIALS:
        yield from itertools.product(range(n_places), repeat=n_models)
    else:
        yield _longest_first(costs)


def _longest_first(costs: _Costs) -> tuple[int, ...]:
    load = [0.0] * len(costs[0])
    chosen = [0] * len(costs)
    for model in sorted(range(len(costs)), key=lambda m: -min(costs[m])):
        at = min(range(len(load)), key=lambda i: load[i] + costs[model][i])
        load[at] += costs[model][at]
        chosen[model] = at
    return tuple(chosen)


def _loads(costs: _Costs, chosen: Sequence[int]) -> tuple[float, float]:
    load = [0.0] * len(costs[0])
    for row, at in zip(costs, chosen, strict=True):
        load[at] += row[at]
    return max(load), sum(load)
