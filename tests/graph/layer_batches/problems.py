"""Small problems of layer-wise batches, and a slow way to tell what a plan costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from coinfer.graph.layer_batches.layer_group import BatchProblem, LayerGroup, MemoryBudget
from coinfer.graph.layer_batches.segment import Segment

BATCHES = (1, 2, 4)


@st.composite
def problems(draw: st.DrawFn, most_groups: int = 4) -> BatchProblem:
    kept = draw(st.lists(st.integers(0, 9), min_size=2, max_size=most_groups + 1))
    requests = draw(st.integers(1, 9))
    able = [batch for batch in BATCHES if batch <= requests]
    groups = [
        LayerGroup(
            name=f"g{at}",
            weight_bytes=draw(st.integers(0, 40)),
            input_bytes=before,
            output_bytes=after,
            seconds={batch: draw(st.integers(1, 30)) / 8 for batch in able},
            inner_bytes=draw(st.integers(0, 5)),
        )
        for at, (before, after) in enumerate(pairwise(kept))
    ]
    least = max(1, *(group.working_set(1) for group in groups))
    memory = MemoryBudget(
        bytes=least + draw(st.integers(0, 120)),
        load_bytes_per_s=draw(st.sampled_from([8.0, 64.0])),
        load_s=draw(st.sampled_from([0.0, 0.25])),
        copy_bytes_per_s=draw(st.sampled_from([16.0, 256.0])),
    )
    return BatchProblem(groups=groups, requests=requests, memory=memory)


def played_s(problem: BatchProblem, segments: Sequence[Segment]) -> float:
    """Play a plan pass by pass with weights that come and go; return the seconds."""
    memory, seconds = problem.memory, 0.0
    for segment in segments:
        groups = problem.groups[segment.first : segment.last + 1]
        peak = max(group.activation_bytes(segment.batch) for group in groups)
        resident: list[LayerGroup] = []
        waiting = problem.requests
        while waiting:
            samples = min(segment.batch, waiting)
            waiting -= samples
            for group in groups:
                if group not in resident:
                    if group.weight_bytes:
                        seconds += group.weight_bytes / memory.load_bytes_per_s + memory.load_s
                    resident.append(group)
                over = group.working_set(segment.batch) - memory.bytes
                seconds += 2 * max(0, over) / memory.load_bytes_per_s
                seconds += group.seconds_at(samples)
            if sum(group.weight_bytes for group in groups) + peak > memory.bytes:
                resident = []
    for before, after in pairwise(segments):
        kept = problem.requests * problem.groups[after.first].input_bytes
        if before.batch != after.batch:
            seconds += kept / memory.copy_bytes_per_s
        left = memory.bytes - max(_needed(problem, before), _needed(problem, after))
        seconds += 2 * (kept - min(kept, max(0, left))) / memory.load_bytes_per_s
    return seconds


def _needed(problem: BatchProblem, segment: Segment) -> int:
    groups = problem.groups[segment.first : segment.last + 1]
    return sum(group.weight_bytes for group in groups) + max(
        group.activation_bytes(segment.batch) for group in groups
    )
