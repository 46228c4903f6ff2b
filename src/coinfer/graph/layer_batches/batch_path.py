"""Batch path: the batch size of each layer group with which all requests end soonest. Exact.

The shortest path over segments: a segment costs its runs and loads, the step between two what is
kept, stacked anew and spilled there. Running the whole network in batches of one size is a path of
one segment, so the path found is never longer than the best of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coinfer.graph.layer_batches.layer_group import BatchProblem
from coinfer.graph.layer_batches.segment import (
    Cost,
    Segment,
    border_cost,
    plan_cost,
    segment_cost,
    working_set,
)

__all__ = ["BatchPath", "GroupBatch", "count_plans", "exhaustive_s", "find_batch_path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupBatch:
    """What was chosen for a group.

    Attributes:
        name: The group.
        segment: The segment that it is part of.
        other_batch: The next best batch size of this group, all others chosen anew; None: there
            is no other.
        other_s: Seconds that this takes longer in all.
    """

    name: str
    segment: Segment
    other_batch: int | None
    other_s: float

    @property
    def batch(self) -> int:
        """The batch size chosen."""
        return self.segment.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPath:
    """Batch sizes of all groups of a network, and what else would take how long.

    Attributes:
        groups: By group, in order.
        segments: What runs together, in order.
        cost: What all requests take, in this order of running.
        fixed_s: Seconds of the whole network in batches of one size, by that size.
        layered_s: Seconds of one group after the other, all in batches of one size, by that size.
    """

    groups: tuple[GroupBatch, ...]
    segments: tuple[Segment, ...]
    cost: Cost
    fixed_s: Mapping[int, float]
    layered_s: Mapping[int, float]

    @property
    def seconds(self) -> float:
        """Seconds until all requests are answered."""
        return self.cost.seconds

    @property
    def best_fixed(self) -> int:
        """The size of batches that is best for the whole network."""
        return min(self.fixed_s, key=lambda batch: self.fixed_s[batch])

    @property
    def best_layered(self) -> int:
        """The size of batches that is best for one group after the other."""
        return min(self.layered_s, key=lambda batch: self.layered_s[batch])


def find_batch_path(problem: BatchProblem) -> BatchPath:
    """Find the batch sizes with which all requests are through all groups soonest.

    Takes time in proportion to groups^3 batches^2.

    >>> from coinfer.graph.layer_batches.layer_group import LayerGroup, MemoryBudget
    >>> early = LayerGroup(
    ...     name="early", weight_bytes=1, input_bytes=40, output_bytes=1, seconds={1: 1.0, 4: 4.0}
    ... )
    >>> late = LayerGroup(
    ...     name="late", weight_bytes=90, input_bytes=1, output_bytes=1, seconds={1: 1.0, 4: 1.0}
    ... )
    >>> memory = MemoryBudget(bytes=99, load_bytes_per_s=90.0)
    >>> path = find_batch_path(BatchProblem(groups=[early, late], requests=4, memory=memory))
    >>> [(group.name, group.batch) for group in path.groups], path.best_fixed
    ([('early', 1), ('late', 4)], 4)
    """
    graph = _Graph(problem)
    chosen = graph.path()
    cost = plan_cost(problem, chosen)
    others = graph.by_group_and_batch()
    end = len(problem.groups) - 1
    return BatchPath(
        groups=tuple(
            _group_batch(problem.groups[at].name, segment, others[at], cost.seconds)
            for segment in chosen
            for at in range(segment.first, segment.last + 1)
        ),
        segments=tuple(chosen),
        cost=cost,
        fixed_s={batch: graph.own_s[Segment(0, end, batch)] for batch in problem.batches},
        layered_s={batch: _layered_s(problem, batch) for batch in problem.batches},
    )


def _layered_s(problem: BatchProblem, batch: int) -> float:
    each_alone = [Segment(at, at, batch) for at in range(len(problem.groups))]
    return plan_cost(problem, each_alone).seconds


def _group_batch(
    name: str, segment: Segment, totals: Mapping[int, float], seconds: float
) -> GroupBatch:
    others = {batch: total for batch, total in totals.items() if batch != segment.batch}
    if not others:
        return GroupBatch(name=name, segment=segment, other_batch=None, other_s=math.inf)
    other = min(others, key=lambda batch: others[batch])
    return GroupBatch(
        name=name,
        segment=segment,
        other_batch=other,
        other_s=max(0.0, others[other] - seconds),
    )


def count_plans(problem: BatchProblem) -> int:
    """Return in how many ways a network could be run: batches, and where segments end."""
    choices = len(problem.batches)
    return int(choices * (choices + 1) ** (len(problem.groups) - 1))


def exhaustive_s(problem: BatchProblem) -> float:
    """Return the least seconds over all ways to run a network, each added up. For few of them."""
    return min(plan_cost(problem, plan).seconds for plan in _all_plans(problem, 0))


def _all_plans(problem: BatchProblem, first: int) -> Iterator[list[Segment]]:
    if first == len(problem.groups):
        yield []
    for last in range(first, len(problem.groups)):
        for rest in _all_plans(problem, last + 1):
            for batch in problem.batches:
                yield [Segment(first, last, batch), *rest]


def _all_segments(problem: BatchProblem) -> Iterator[Segment]:
    count = len(problem.groups)
    for first in range(count):
        for last in range(first, count):
            for batch in problem.batches:
                yield Segment(first, last, batch)


class _Graph:
    """Segments are the nodes; the ways lead from each to those that begin where it ends."""

    def __init__(self, problem: BatchProblem) -> None:
        self.problem = problem
        segments = list(_all_segments(problem))
        self.own_s = {each: segment_cost(problem, each).seconds for each in segments}
        self._sets = {each: working_set(problem, each) for each in segments}
        count = len(problem.groups)
        self._starting: list[list[Segment]] = [[] for _ in range(count + 1)]
        self._ending: list[list[Segment]] = [[] for _ in range(count + 1)]
        for each in segments:
            self._starting[each.first].append(each)
            self._ending[each.last + 1].append(each)
        self._to_go = self._seconds_after()

    def path(self) -> list[Segment]:
        """Return the segments of the shortest path; among equals the fewest."""
        options = self._starting[0]
        chosen: list[Segment] = []
        best = min(options, key=lambda each: (self.own_s[each] + self._to_go[each], -each.last))
        chosen.append(best)
        while best.last + 1 < len(self.problem.groups):
            now = best
            best = min(
                self._starting[now.last + 1],
                key=lambda each: (
                    self._step_s(now, each) + self.own_s[each] + self._to_go[each],
                    -each.last,
                ),
            )
            chosen.append(best)
        return chosen

    def by_group_and_batch(self) -> list[dict[int, float]]:
        """Return by group the seconds of the shortest path through each of its batch sizes."""
        before = self._seconds_before()
        found: list[dict[int, float]] = [{} for _ in self.problem.groups]
        for each, own_s in self.own_s.items():
            total = before[each] + own_s + self._to_go[each]
            for at in range(each.first, each.last + 1):
                found[at][each.batch] = min(total, found[at].get(each.batch, math.inf))
        return found

    def _seconds_after(self) -> dict[Segment, float]:
        to_go: dict[Segment, float] = {}
        for at in range(len(self.problem.groups), 0, -1):
            nexts = self._starting[at]
            rest = {each: self.own_s[each] + to_go[each] for each in nexts}
            for now in self._ending[at]:
                ways = [self._step_s(now, each) + rest[each] for each in nexts]
                to_go[now] = min(ways, default=0.0)
        return to_go

    def _seconds_before(self) -> dict[Segment, float]:
        before = dict.fromkeys(self._starting[0], 0.0)
        for at in range(1, len(self.problem.groups)):
            done = {each: before[each] + self.own_s[each] for each in self._ending[at]}
            for now in self._starting[at]:
                before[now] = min(s + self._step_s(each, now) for each, s in done.items())
        return before

    def _step_s(self, before: Segment, after: Segment) -> float:
        largest = max(self._sets[before], self._sets[after])
        changes = before.batch != after.batch
        return border_cost(self.problem, after.first, largest, changes=changes).seconds
