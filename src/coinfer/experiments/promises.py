"""Promises: what a scenario asks for, in the order of its weight, as figures of a run.

Deadlines come first, then the score if the scenario has one, then throughput. Of models that differ
in priority the more urgent ones come first in each. Two runs are compared by the first figure in
which they differ by more than its margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from coinfer.experiments.saturation import Kept, Quality
from coinfer.metrics.counts import RunCounts
from coinfer.metrics.xrbench import xrbench_score
from coinfer.workload.scenario import Scenario

__all__ = ["IN_TIME", "Figures", "Goal", "Promises", "mean"]

IN_TIME = Kept(quality=Quality.HIT_RATE, least=0.95)
"""When deadlines are kept: this share of them, in every model that has one."""

Figures = tuple[float, ...]
"""One figure per goal."""


class Goal(NamedTuple):
    """One figure of a run; more is better.

    Attributes:
        margin: Figures whose ratio is nearer to 1 than this are the same.
        measure: Takes it from the counts.
        text: How it is written; empty where it says nothing to readers.
    """

    margin: float
    measure: Callable[[RunCounts], float]
    text: str


@dataclass(frozen=True, slots=True)
class Promises:
    """What a scenario asks for.

    >>> from coinfer.workload.scenario_file import parse_scenario
    >>> promises = Promises.of(parse_scenario('''
    ... models: {net: {source: "zoo:lenet", deadline: 20ms}, log: "zoo:tiny_cnn"}
    ... arrivals: {net: {periodic: 30/s}, log: {closed: 1}}
    ... '''))
    >>> promises.words((1.0, 0.98, 12.5))
    '98.0% in time, 12.5/s per model, geometric mean'
    """

    goals: tuple[Goal, ...]

    @classmethod
    def of(cls, scenario: Scenario) -> Promises:
        """Find out what a scenario promises."""
        goals = []
        timed = [name for name, spec in scenario.models.items() if spec.deadline is not None]
        if timed:
            goals.append(Goal(0.0, partial(_all_kept, timed), ""))
        for names, level in _by_priority(scenario, timed):
            goals.append(Goal(0.005, partial(_in_time, names), f"{{:.1%}} in time{level}"))
        if scenario.score is not None:
            goals.append(Goal(0.01, _score, "score {:.1f}"))
        for names, level in _by_priority(scenario, scenario.models):
            what = " per model, geometric mean" if len(names) > 1 else ""
            goals.append(Goal(0.02, partial(_rate_per_s, names), f"{{:.4g}}/s{what}{level}"))
        return cls(tuple(goals))

    def figures(self, run_counts: RunCounts) -> Figures:
        """Return the figures of a run."""
        return tuple(goal.measure(run_counts) for goal in self.goals)

    def words(self, figures: Figures) -> str:
        """Say figures in words."""
        texts = (goal.text.format(each) for goal, each in zip(self.goals, figures, strict=True))
        return ", ".join(text for text in texts if text)

    def best(self, candidates: Sequence[Figures]) -> int:
        """Return the number of the best: 0 if the first one is as good as any.

        Goal by goal only those stay whose figure is within the margin of the best one.
        """
        left = list(range(len(candidates)))
        for at, goal in enumerate(self.goals):
            top = max(candidates[i][at] for i in left)
            left = [i for i in left if candidates[i][at] >= top * (1 - goal.margin)]
        return 0 if left[0] == 0 else max(left, key=candidates.__getitem__)

    def gain(self, one: Figures, other: Figures) -> float:
        """Return by how much one is better in the first figure in which the two differ.

        Whether all deadlines are kept is left out: near the limit a single request turns it over.

        Returns:
            The ratio less 1: 0.1 is 10 % more, below 0 is less; 0 if they do not differ.

        >>> from coinfer.workload.scenario_file import parse_scenario
        >>> promises = Promises.of(parse_scenario('''
        ... models: {net: {source: "zoo:lenet", deadline: 20ms}}
        ... arrivals: {net: {periodic: 30/s}}
        ... '''))
        >>> promises.gain((0.0, 0.9, 20.0), (0.0, 0.75, 20.0))
        0.2
        """
        for a, b, goal in zip(one, other, self.goals, strict=True):
            if goal.text and min(a, b) < max(a, b) * (1 - goal.margin):
                return round(a / b - 1, 9) if b else math.inf
        return 0.0

    def is_worse(self, one: Figures, other: Figures) -> bool:
        """Tell whether the first goal in which two differ speaks against the first one."""
        for a, b, goal in zip(one, other, self.goals, strict=True):
            if min(a, b) < max(a, b) * (1 - goal.margin):
                return a < b
        return False


def mean(both: Sequence[Figures]) -> Figures:
    """Return the mean of each figure over several runs."""
    return tuple(math.fsum(each) / len(both) for each in zip(*both, strict=True))


def _by_priority(scenario: Scenario, names: Iterable[str]) -> list[tuple[list[str], str]]:
    """Group models by priority, the highest first, with words where there are several groups."""
    levels: dict[int, list[str]] = {}
    for name in names:
        levels.setdefault(scenario.models[name].priority, []).append(name)
    return [
        (levels[level], f" at priority {level}" if len(levels) > 1 else "")
        for level in sorted(levels, reverse=True)
    ]


def _all_kept(models: Iterable[str], run_counts: RunCounts) -> float:
    shares = [IN_TIME.share(name, run_counts) for name in models]
    return float(all(share is None or share >= IN_TIME.least for share in shares))


def _in_time(models: Iterable[str], run_counts: RunCounts) -> float:
    """Return the share of the frames of all models that were answered in time."""
    kept, frames = zip(*(IN_TIME.frames(name, run_counts) for name in models), strict=True)
    return sum(kept) / sum(frames) if any(frames) else 1.0


def _score(run_counts: RunCounts) -> float:
    found = xrbench_score(run_counts)
    return found.score if found is not None and found.score is not None else 0.0


def _rate_per_s(models: Sequence[str], run_counts: RunCounts) -> float:
    """Geometric mean: a policy does not win by starving the slow ones of several loops.

    One request more than was served counts, so that short trials in which a model was not served
    yet can be told apart.
    """
    if not run_counts.duration_s:
        return 0.0
    served = [run_counts.models[n].served if n in run_counts.models else 0 for n in models]
    logs = math.fsum(math.log(n + 1) for n in served) / len(served)
    return math.expm1(logs) / run_counts.duration_s
