"""Trials: let a fused graph compete with the best unfused way, once for processors that are alike.

The best unfused way on some compute units is that processor of those on which the members are
loaded that answers one request of each soonest there; narrower ones would work side by side.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.registry import find_backends
from coinfer.graph.fusing.member import members_of
from coinfer.hardware.environment import cpu_name
from coinfer.machine.processor import Processor, ordinary
from coinfer.machine.profile import Measurement
from coinfer.metrics.paired import LEAST_ROUNDS, PairedRatio, paired_ratio
from coinfer.model import Model
from coinfer.plan.plan import Plan
from coinfer.planner.fusing.graphs import FusedGraph
from coinfer.planner.planning import Planning
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.profiling.fused_trial import FusedTrial, fused_trial
from coinfer.profiling.identity import key_parts

__all__ = ["Place", "Trial", "places", "tried"]

_FEEDS = 2
"""Inputs of each member, in rotation."""


class Place(NamedTuple):
    """Processors that are alike, on one of which a fused graph is tried.

    Attributes:
        processor: The one on which it is tried.
        alike: The names of all of them.
        best: Where its members run soonest on these units, unfused.
        share: How much of these units that takes.
    """

    processor: Processor
    alike: tuple[str, ...]
    best: Processor
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of one fused graph at one place.

    Attributes:
        place: Where.
        trial: The times and the error.
        members: How many models it answers.
        handover_s: What handing over a run takes, be it fused or not.
    """

    place: Place
    trial: FusedTrial
    members: int
    handover_s: float = 0.0

    @property
    def ratio(self) -> PairedRatio:
        """How many times as fast the fused run is as the best unfused way, handed over alike."""
        handover_s, share = self.handover_s, self.place.share
        fused_s = [seconds + handover_s for seconds in self.trial.fused_s]
        # Side by side on narrower processors, they are handed over side by side, too.
        apart_s = [(s + self.members * handover_s) * share for s in self.trial.apart_s]
        return paired_ratio(fused_s, apart_s, larger_is_better=False)

    def measurement(self, plan: Plan, members: Sequence[str], batch: int) -> Measurement:
        """Return the times for a profile: the members' own times there, by the ratio of each round.

        So they can be compared with these, which were measured at another moment.
        """
        best, profile = self.place.best.name, plan.measured
        own = [profile.expected_s(name, best, batch=batch) or math.inf for name in members]
        pairs = zip(self.trial.fused_s, self.trial.apart_s, strict=True)
        return Measurement(
            seconds=tuple(sum(own) * fused / apart for fused, apart in pairs),
            load_s=self.trial.load_s,
            resident_bytes=self.trial.resident_bytes,
            error=self.trial.error,
        )


def places(plan: Plan, members: Sequence[str]) -> list[Place]:
    """Return where a fused graph of these models may run, the first of alike processors."""
    batch = plan.models[members[0]].batch
    timed = [_timed(plan, name, batch) for name in members]
    loaded = [plan.models[name].original.spans for name in members]
    able = [p for p in ordinary(plan.processors) if all(p.name in each for each in timed)]
    used = [p for p in able if all(p.name in each for each in loaded)]
    kinds: dict[Hashable, list[Processor]] = {}
    for processor in able:
        if processor.precision == "fp32":
            kinds.setdefault(_kind(processor), []).append(processor)
    found = []
    for alike in kinds.values():
        first = alike[0]
        within = {p.name: p for p in used if p.units <= first.units}
        costs = {name: sum(row[name] for row in timed) * len(p.units) for name, p in within.items()}
        if costs:
            best = within[min(costs, key=costs.__getitem__)]
            share = len(best.units) / len(first.units)
            found.append(Place(first, tuple(p.name for p in alike), best, share))
    return found


def tried(
    name: str,
    graph: FusedGraph,
    members: Mapping[str, Model],
    place: Place,
    plan: Plan,
    planning: Planning,
    *,
    rounds: int = LEAST_ROUNDS,
) -> Trial:
    """Let a fused graph compete at a place, or recall what came of it.

    Args:
        name: What it is called.
        graph: It.
        members: The models by name, in their order.
        place: Where.
        plan: The plan; its machine knows what handing over a run takes.
        planning: Its budget pays, its cache remembers.
        rounds: How often both are timed; 0: only their outputs are compared.

    Raises:
        BackendError: something cannot be loaded or run there.
    """
    backends = find_backends(plan.processors, planning.profiler.backends)
    handover_s, batch = plan.machine.overhead_s, plan.models[next(iter(members))].batch
    feeds = {n: _feeds(model, planning.samples[n], batch) for n, model in members.items()}
    keys = _keys(name, graph, members, feeds, place, batch, backends, planning)
    cache = planning.profiler.cache
    fused, apart = [cache.get(key, (rounds,)) if cache else None for key in keys]
    if fused is not None and apart is not None:
        error = math.inf if fused.error is None else fused.error
        bytes_ = fused.resident_bytes
        trial = FusedTrial(fused.seconds, apart.seconds, fused.load_s, bytes_, error)
        return Trial(place=place, trial=trial, members=len(members), handover_s=handover_s)
    with planning.profiler.budget.spending():
        own = members_of(graph.model, members)
        trial = fused_trial(
            graph.model,
            [(each, members[each.name], feeds[each.name]) for each in own],
            (place.processor, backends[place.processor.backend]),
            (place.best, backends[place.best.backend]),
            rounds=rounds,
        )
    if cache is not None and math.isfinite(trial.error):
        for key, seconds in zip(keys, (trial.fused_s, trial.apart_s), strict=True):
            entry = Measurement(
                seconds=seconds or (0.0,),
                load_s=trial.load_s,
                resident_bytes=trial.resident_bytes,
                error=trial.error,
            )
            cache.put(key, entry, (rounds,))
    return Trial(place=place, trial=trial, members=len(members), handover_s=handover_s)


def _timed(plan: Plan, name: str, batch: int) -> dict[str, float]:
    """Return the seconds of a model by processor on which it was measured."""
    return {
        key.processor: entry.mean_s
        for key, entry in plan.measured.restricted([name])
        if key.batch == batch and not key.shape and not entry.estimated
    }


def _kind(processor: Processor) -> Hashable:
    options = tuple(sorted(processor.options.items()))
    width, pinned = len(processor.units), bool(processor.cores)
    return (
        processor.backend,
        processor.device,
        processor.threads,
        processor.spread,
        width,
        pinned,
        options,
    )


def _feeds(model: Model, samples: Sequence[Tensors], batch: int) -> list[Tensors]:
    """Return the first inputs, of so many samples where the batch is open; at least one."""
    batched = model.input_check.batched
    return [
        {n: np.concatenate([a] * batch) if batch > 1 and n in batched else a for n, a in s.items()}
        for s in (samples[:_FEEDS] or [model.sample_inputs()])
    ]


def _keys(
    name: str,
    graph: FusedGraph,
    members: Mapping[str, Model],
    feeds: Mapping[str, Sequence[Tensors]],
    place: Place,
    batch: int,
    backends: Mapping[str, Backend],
    planning: Planning,
) -> tuple[dict[str, object], dict[str, object]]:
    """Return what the times of both sides depend on, and how far their outputs are apart."""
    machine, cache = cpu_name(), planning.profiler.cache
    print_ = fingerprint_of(graph.model, cache)
    first, model = next(iter(members.items()))
    parts = {
        "fused": key_parts(
            name,
            graph.model,
            place.processor,
            batch,
            [],
            backends[place.processor.backend],
            machine,
        ),
        "apart": key_parts(
            first, model, place.best, batch, feeds[first], backends[place.best.backend], machine
        ),
        "members": len(members),
        "weights": print_.weights,
    }
    return {**parts, "side": "fused"}, {**parts, "side": "apart"}
