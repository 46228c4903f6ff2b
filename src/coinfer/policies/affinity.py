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

from coinfer.core.lane import Lane
from coinfer.core.policy import Start
from coinfer.core.view import View
from coinfer.policies.assigned import Assigned

__all__ = ["Affinity"]

_MOST_TRIALS = 5_000

_Situation = tuple[frozenset[str], frozenset[str]]


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
    models = [model for model, entrance in entrances.items() if view.runners(entrance)]
    seconds = {
        model: [min(view.expected_s(entrances[model], n) for n in place) for place in places]
        for model in models
    }
    chosen = _least_loaded(models, seconds, len(places))
    return {
        model: view.fastest(entrances[model], places[at])
        for model, at in zip(models, chosen, strict=True)
    }


def _least_loaded(
    models: Sequence[str], seconds: Mapping[str, Sequence[float]], n_places: int
) -> tuple[int, ...]:
    """Return the place of each model; a tie in the busiest place is broken by the total work."""
    if not models:
        return ()
    load, chosen = min(
        (_loads(models, seconds, candidate, n_places), candidate)
        for candidate in _candidates(models, seconds, n_places)
    )
    if load[0] == math.inf:  # some models fit on the same place only: they have to share it
        return _longest_first(models, seconds, n_places)
    return chosen


def _places(view: View) -> list[list[str]]:
    """Group processors into places; a processor that contains a smaller one belongs to none."""
    groups: dict[frozenset[str], list[str]] = {}
    for name, processor in view.processors.items():
        groups.setdefault(processor.units, []).append(name)
    smallest = [units for units in groups if not any(other < units for other in groups)]
    return [groups[units] for units in smallest]


def _candidates(
    models: Sequence[str], seconds: Mapping[str, Sequence[float]], n_places: int
) -> Iterator[tuple[int, ...]]:
    if len(models) <= n_places and math.perm(n_places, len(models)) <= _MOST_TRIALS:
        yield from itertools.permutations(range(n_places), len(models))
    elif n_places ** len(models) <= _MOST_TRIALS:
        yield from itertools.product(range(n_places), repeat=len(models))
    else:
        yield _longest_first(models, seconds, n_places)


def _longest_first(
    models: Sequence[str], seconds: Mapping[str, Sequence[float]], n_places: int
) -> tuple[int, ...]:
    load = [0.0] * n_places
    chosen: dict[str, int] = {}
    for model in sorted(models, key=lambda m: -min(seconds[m])):
        at = min(range(n_places), key=lambda i: load[i] + seconds[model][i])
        load[at] += seconds[model][at]
        chosen[model] = at
    return tuple(chosen[model] for model in models)


def _loads(
    models: Sequence[str],
    seconds: Mapping[str, Sequence[float]],
    chosen: Sequence[int],
    n_places: int,
) -> tuple[float, float]:
    load = [0.0] * n_places
    for model, at in zip(models, chosen, strict=True):
        load[at] += seconds[model][at]
    return max(load), sum(load)
