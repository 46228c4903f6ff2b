"""Segment: consecutive groups that run at one batch size, and what that costs. Chooses nothing.

The samples of a batch go through all groups of a segment before the next batch begins. Between two
segments the values of all requests are kept. So one segment is a network run in fixed batches, and
a segment for each group is a network run layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from coinfer.graph.layer_batches.layer_group import BatchProblem, LayerGroup

__all__ = ["Cost", "Segment", "border_cost", "plan_cost", "segment_cost", "working_set"]


class Segment(NamedTuple):
    """Groups `first` to `last` at one batch size."""

    first: int
    last: int
    batch: int


class Cost(NamedTuple):
    """Seconds by what they are spent on.

    Attributes:
        run_s: Running the groups.
        load_s: Loading weights, again for each pass that finds them evicted.
        regroup_s: Stacking samples anew where the batch size changes.
        spill_s: Writing out and reading again what does not fit beside the working set.
    """

    run_s: float = 0.0
    load_s: float = 0.0
    regroup_s: float = 0.0
    spill_s: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.run_s + self.load_s + self.regroup_s + self.spill_s

    def plus(self, other: Cost) -> Cost:
        """Add up two."""
        return Cost(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def working_set(problem: BatchProblem, segment: Segment) -> int:
    """Return what a segment needs to keep all its weights between passes, in bytes."""
    groups = _groups(problem, segment)
    activations = max(group.activation_bytes(segment.batch) for group in groups)
    return sum(group.weight_bytes for group in groups) + activations


def segment_cost(problem: BatchProblem, segment: Segment) -> Cost:
    """Return what it costs to run all requests through a segment.

    Weights are loaded once if the working set fits, and in every pass if it does not: by then those
    used longest ago are evicted, which are those needed next. What one group's activations take
    beyond the budget is written out and read again in every pass.
    """
    batch, memory = segment.batch, problem.memory
    groups = _groups(problem, segment)
    full, rest = divmod(problem.requests, batch)
    run_s = sum(full * g.seconds_at(batch) + (g.seconds_at(rest) if rest else 0.0) for g in groups)
    passes = full + bool(rest)
    fits = working_set(problem, segment) <= memory.bytes
    loaded = [group.weight_bytes for group in groups if group.weight_bytes]
    once_s = sum(loaded) / memory.load_bytes_per_s + len(loaded) * memory.load_s
    excess = sum(max(0, group.working_set(batch) - memory.bytes) for group in groups)
    return Cost(
        run_s=run_s,
        load_s=once_s if fits else passes * once_s,
        spill_s=passes * 2 * excess / memory.load_bytes_per_s,
    )


def border_cost(problem: BatchProblem, at: int, largest: int, *, changes: bool) -> Cost:
    """Return what it costs to keep the values of all requests between two segments.

    Args:
        problem: What is asked.
        at: The first group of the second segment.
        largest: The larger one of the two working sets, in bytes.
        changes: Whether the batch size does.
    """
    kept = problem.requests * problem.groups[at].input_bytes
    memory = problem.memory
    spilled = min(kept, max(0, kept + largest - memory.bytes))
    return Cost(
        regroup_s=kept / memory.copy_bytes_per_s if changes else 0.0,
        spill_s=2 * spilled / memory.load_bytes_per_s,
    )


def plan_cost(problem: BatchProblem, segments: Sequence[Segment]) -> Cost:
    """Return what a whole network costs that is run in these segments."""
    cost = Cost()
    for segment in segments:
        cost = cost.plus(segment_cost(problem, segment))
    for before, after in pairwise(segments):
        largest = max(working_set(problem, before), working_set(problem, after))
        changes = before.batch != after.batch
        cost = cost.plus(border_cost(problem, after.first, largest, changes=changes))
    return cost


def _groups(problem: BatchProblem, segment: Segment) -> Sequence[LayerGroup]:
    return problem.groups[segment.first : segment.last + 1]
