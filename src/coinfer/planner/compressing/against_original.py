"""Against the original: what a smaller model gains on each processor, measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from coinfer.backends.base import Backend, Tensors
from coinfer.machine.processor import Processor
from coinfer.metrics.paired import LEAST_ROUNDS
from coinfer.model import Model
from coinfer.planner.compressing.report import ProcessorReport
from coinfer.profiling.side_by_side import Contest, contest

__all__ = ["contests", "processor_reports"]

_MORE_ROUNDS = 31
"""Where the least rounds do not tell, because other programs run or little is gained."""


def contests(
    ours: Model,
    theirs: Model,
    feeds: Sequence[Tensors],
    processors: Sequence[Processor],
    backends: Mapping[str, Backend],
    *,
    rounds: int = LEAST_ROUNDS,
) -> list[Contest]:
    """Let two models of the same inputs compete on each processor."""
    return [
        contest(ours, theirs, feeds, each, backends[each.backend], rounds=rounds)
        for each in processors
    ]


def processor_reports(
    processors: Sequence[Processor], compete: Callable[[int], Sequence[Contest]]
) -> list[ProcessorReport]:
    """Say what is gained on each processor; where that is not clear, measure more.

    Args:
        processors: In their order.
        compete: Lets the model and its original compete on each of them, for so many rounds.
    """
    found = compete(LEAST_ROUNDS)
    if any(each.ratio.median > 1 and not each.ratio.is_better for each in found):
        found = compete(_MORE_ROUNDS)
    return [
        ProcessorReport(
            name=processor.name, before_s=each.theirs_s, after_s=each.ours_s, ratio=each.ratio
        )
        for processor, each in zip(processors, found, strict=True)
    ]
