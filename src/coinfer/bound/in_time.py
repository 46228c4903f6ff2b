"""In time: the most requests that any schedule can answer by their deadlines.

Of a fixed list, by a mixed program: each request is one job, released, to be ended by its deadline,
on one processor without a break. Two jobs on a shared unit follow one another, in one order or the
other: Manne's formulation ("On the job-shop scheduling problem", Operations Research 1960), with
processors to choose. What is not answered in time is left out, which no schedule can do better
than. And per second, in the long run, by a linear program.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from coinfer.errors import InvariantError
from coinfer.machine.processor import Processor

__all__ = ["Job", "most_in_time", "most_in_time_per_s"]

_SLACK = 1e-6
"""Of a job, what rounding in the solver may add to a bound that is a whole number."""


class Job(NamedTuple):
    """One request.

    Attributes:
        release_s: When it is there.
        deadline_s: When it must be answered.
        seconds: By processor that runs it, how long that takes.
        after: Number of the job that must be answered before it starts; None: of none.
    """

    release_s: float
    deadline_s: float
    seconds: Mapping[str, float]
    after: int | None = None


def most_in_time(
    jobs: Sequence[Job], processors: Sequence[Processor], *, time_limit_s: float = 10.0
) -> int:
    """Return a number of jobs of which no schedule answers more in time.

    It is the largest number that a schedule can reach, unless the time was not enough to prove it.

    Args:
        jobs: A few; beyond some fifteen it takes long.
        processors: Those that may be used.
        time_limit_s: After this what was proven until then is returned.

    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> most_in_time([Job(0.0, 3.0, {"cpu": 2.0}), Job(0.0, 3.5, {"cpu": 2.0})], [cpu])
    1
    """
    program = _Program(jobs, {p.name: p.units for p in processors})
    if not program.places:
        return 0
    found = milp(
        program.objective(),
        constraints=program.constraints(),
        bounds=program.bounds(),
        integrality=program.integrality(),
        options={"time_limit": time_limit_s},
    )
    proven = -found.mip_dual_bound if found.mip_dual_bound is not None else len(jobs)
    return min(len(jobs), math.floor(proven + _SLACK))


def most_in_time_per_s(
    rates: Mapping[str, float],
    seconds: Mapping[str, Mapping[str, float]],
    processors: Sequence[Processor],
) -> float:
    """Return how many requests per second there is time for in the long run.

    Args:
        rates: Requests per second by model.
        seconds: By model and processor, only of those that are fast enough.
        processors: Those that may be used.

    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> seconds = {"a": {"cpu": 0.01}, "b": {"cpu": 0.02}}
    >>> round(most_in_time_per_s({"a": 10.0, "b": 90.0}, seconds, [cpu]), 6)
    55.0
    """
    edges = [(model, p) for model in rates for p in processors if p.name in seconds[model]]
    if not edges:
        return 0.0
    units = sorted({unit for _, p in edges for unit in p.units})
    rows = [[float(model == each) for each, _ in edges] for model in rates]
    rows += [[(unit in p.units) * seconds[m][p.name] for m, p in edges] for unit in units]
    limits = [*rates.values(), *(1.0 for _ in units)]
    found = linprog(-np.ones(len(edges)), A_ub=np.array(rows), b_ub=np.array(limits))
    if found.fun is None:
        raise InvariantError(f"the program has no optimum: {found.message}")
    return -float(found.fun)


class _Program:
    """The variables: 0 or 1 per job and processor, a start per job, 0 or 1 per pair in any order.

    Attributes:
        places: The (job, processor) pairs that can be in time at all.
    """

    def __init__(self, jobs: Sequence[Job], units: Mapping[str, frozenset[str]]) -> None:
        self._jobs, self._units = jobs, units
        self.places = [
            (number, name)
            for number, job in enumerate(jobs)
            for name, seconds in job.seconds.items()
            if name in units and job.release_s + seconds <= job.deadline_s
        ]
        self._pairs = [pair for pair in combinations(range(len(jobs)), 2) if self._meet(*pair)]
        self._starts = len(self.places)
        self._orders = self._starts + len(jobs)
        self._width = self._orders + len(self._pairs)

    def objective(self) -> npt.NDArray[np.float64]:
        """Return what is made small: the jobs in time, below 0."""
        found = np.zeros(self._width)
        found[: self._starts] = -1
        return found

    def integrality(self) -> npt.NDArray[np.intp]:
        """Return 1 for whole numbers."""
        found = np.ones(self._width, dtype=np.intp)
        found[self._starts : self._orders] = 0
        return found

    def bounds(self) -> Bounds:
        """Return how small and large the variables may be."""
        low, high = np.zeros(self._width), np.ones(self._width)
        low[self._starts : self._orders] = [job.release_s for job in self._jobs]
        high[self._starts : self._orders] = [job.deadline_s for job in self._jobs]
        return Bounds(low, high)

    def constraints(self) -> LinearConstraint:
        """Return all rows, each of which must not exceed its limit."""
        rows = list(self._rows())
        matrix, limits = np.zeros((len(rows), self._width)), np.zeros(len(rows))
        for at, (row, limit) in enumerate(rows):
            limits[at] = limit
            for column, value in row.items():
                matrix[at, column] = value
        return LinearConstraint(matrix, -np.inf, limits)

    def _rows(self) -> Iterator[tuple[dict[int, float], float]]:
        for number, job in enumerate(self._jobs):
            yield dict.fromkeys(self._of(number), 1.0), 1.0
            yield {self._starts + number: 1.0, **self._seconds(number)}, job.deadline_s
            if job.after is not None:
                yield from self._after(number, job.after)
        for at, (one, other) in enumerate(self._pairs):
            for unit in sorted(self._common(one, other)):
                yield self._before(one, other, unit, self._orders + at, is_first=True)
                yield self._before(other, one, unit, self._orders + at, is_first=False)

    def _after(self, number: int, before: int) -> Iterator[tuple[dict[int, float], float]]:
        """Let a job be in time only if another one is, and start after it."""
        yield (
            {**dict.fromkeys(self._of(number), 1.0), **dict.fromkeys(self._of(before), -1.0)},
            0.0,
        )
        room_s = self._jobs[before].deadline_s - self._jobs[number].release_s
        row = {self._starts + before: 1.0, self._starts + number: -1.0, **self._seconds(before)}
        for place in self._of(number):
            row[place] = row.get(place, 0.0) + max(0.0, room_s)
        yield row, max(0.0, room_s)

    def _before(
        self, one: int, other: int, unit: str, order: int, *, is_first: bool
    ) -> tuple[dict[int, float], float]:
        """Let one job end before another one starts, if both use a unit and are in that order."""
        room_s = max(0.0, self._jobs[one].deadline_s - self._jobs[other].release_s)
        row = {self._starts + one: 1.0, self._starts + other: -1.0, **self._seconds(one)}
        for number in (one, other):
            for place in self._of(number):
                if unit in self._units[self.places[place][1]]:
                    row[place] = row.get(place, 0.0) + room_s
        row[order] = room_s if is_first else -room_s
        return row, 3 * room_s if is_first else 2 * room_s

    def _of(self, number: int) -> list[int]:
        return [at for at, (job, _) in enumerate(self.places) if job == number]

    def _seconds(self, number: int) -> dict[int, float]:
        return {at: self._jobs[number].seconds[self.places[at][1]] for at in self._of(number)}

    def _common(self, one: int, other: int) -> frozenset[str]:
        sets = [
            frozenset[str]().union(*(self._units[self.places[at][1]] for at in self._of(number)))
            for number in (one, other)
        ]
        return sets[0] & sets[1]

    def _meet(self, one: int, other: int) -> bool:
        """Tell whether two jobs can be there at the same time."""
        a, b = self._jobs[one], self._jobs[other]
        return a.release_s < b.deadline_s and b.release_s < a.deadline_s
