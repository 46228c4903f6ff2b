"""Fork routes: ways to a model's end on which two spans may run at the same time.

A fork is a pair of neighbouring spans of which neither needs the other; its two sides start at once
on two processors. Knows, as `coinfer.core.routes`, no request and nothing that waits or runs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from coinfer.core.routes import HANDOVER_S, Branching, Routes, Step
from coinfer.machine.span import Fork, Span

__all__ = ["FORK_S", "ForkRoutes"]

FORK_S = 0.4e-3
"""What a fork costs beside its sides, in seconds: a processor at rest is woken for one of them, and
the one that is done first rests until the other is. Seen on two cores of a virtual machine of 2026:
0.2 to 0.5 ms."""

_Times: TypeAlias = tuple[tuple[str, list[float], int], ...]
"""By processor, where the seconds of one span are kept: in which list, at which place."""

_End: TypeAlias = tuple[float, float, float, str]
"""When a side would end alone, when it could start, its seconds, and its processor."""


class _Sides(NamedTuple):
    fork: Fork
    lefts: _Times
    rights: _Times


class ForkRoutes(Routes):
    """The best remaining times if forks may be taken; beside the plain routes of the same model.

    `seconds` and `step` are of requests that go on in line and may fork later.

    Args:
        units: Number of unit subgraphs.
        rows: Seconds by span and processor.
        allowed: Names of the processors that may be used, in the order of preference.
        forks: Pairs of spans that may run at the same time.
        neighbours: By processor, those that share a compute unit with it, itself included.

    >>> rows = {Span(0, 1): {"p": 9.0}, Span(0, 0): {"p": 5.0}, Span(1, 1): {"p": 5.0, "q": 4.0}}
    >>> routes = ForkRoutes(2, rows, ["p", "q"], [Fork(0, 1, 1)], {"p": ["p"], "q": ["q"]})
    >>> round(routes.rest_s(0), 2), [step.processor for step in routes.soonest(0)[0][:2]]
    (5.0, ['p', 'q'])
    """

    __slots__ = ("_least_s", "_neighbours", "_sides")

    def __init__(
        self,
        units: int,
        rows: Mapping[Span, Mapping[str, float]],
        allowed: Sequence[str],
        forks: Iterable[Fork],
        neighbours: Mapping[str, Collection[str]],
    ) -> None:
        super().__init__(units, rows, allowed)
        self._neighbours = neighbours
        self._sides: list[list[_Sides]] = [[] for _ in range(units)]
        # By boundary, what each of its forks takes and what follows, nothing waiting.
        self._least_s: list[list[float]] = [[] for _ in range(units)]
        for fork in forks:
            if fork.last >= units:
                continue  # a bug elsewhere, or the model was replaced by one of fewer units
            sides = _Sides(fork, self._rows(fork.left), self._rows(fork.right))
            if self._pair(sides, 0.0, None, math.inf) is not None:
                self._sides[fork.first].append(sides)
                self._into[fork.last + 1] |= 1 << fork.first

    @property
    def has_forks(self) -> bool:
        """Whether some fork can be taken at all."""
        return any(self._sides)

    def soonest(
        self,
        position: int,
        here_s: float = 0.0,
        ready_s: Mapping[str, float] | None = None,
        until_s: float = math.inf,
        limit_s: float = math.inf,
    ) -> list[Branching]:
        """Return for each fork at a boundary the pair of processors that is done first.

        Args:
            position: The boundary.
            here_s: When a request reaches it.
            ready_s: By processor, the moment when it can start something; None: at once.
            until_s: Processors that are ready later than this are left out.
            limit_s: Forks with which no request can be done before this moment may be left out.
        """
        if self._stale >> position:
            self._refresh(position)
        return [
            pair
            for sides, least_s in zip(self._sides[position], self._least_s[position], strict=True)
            if here_s + least_s < limit_s
            and (pair := self._pair(sides, here_s, ready_s, until_s)) is not None
        ]

    def observed(self, span: Span, processor: str, seconds: float) -> None:
        """Note that a span takes another time than before."""
        super().observed(span, processor, seconds)
        for first in range(span.first):
            if any(sides.fork.right == span for sides in self._sides[first]):
                self._stale |= 1 << first

    def rest_s(self, position: int) -> float:
        """Return the least seconds from a boundary to the end; infinite if no way leads there."""
        if position == self.units:
            return 0.0
        if self._stale >> position:
            self._refresh(position)
        return self._tails[position] - HANDOVER_S

    def _compute(self, at: int) -> bool:
        before_s = self._tails[at]
        super()._compute(at)
        self._least_s[at] = least_s = []
        for sides in self._sides[at]:
            pair = self._pair(sides, 0.0, None, math.inf)
            assert pair is not None, "what cannot fork was left out"
            least_s.append(pair.end_s + self._tails[sides.fork.last + 1])
            self._tails[at] = min(self._tails[at], least_s[-1] + HANDOVER_S)
        return self._tails[at] != before_s

    def _rows(self, span: Span) -> _Times:
        at = span.last - span.first
        return tuple(
            (name, times, at)
            for name, times in self._times[span.first].items()
            if at < len(times) and times[at] < math.inf
        )

    def _pair(
        self, sides: _Sides, here_s: float, ready_s: Mapping[str, float] | None, until_s: float
    ) -> Branching | None:
        """Find the two processors that share no unit and are done first, started together."""
        lefts = sorted(_ends(sides.lefts, here_s, ready_s, until_s), key=itemgetter(0))
        rights = sorted(_ends(sides.rights, here_s, ready_s, until_s), key=itemgetter(0))
        least_s, best = math.inf, None
        for left in lefts:
            if left[0] >= least_s:
                break
            near = self._neighbours[left[3]]
            for right in rights:
                if right[0] >= least_s:
                    break
                if right[3] not in near:
                    end_s = max(left[1], right[1]) + max(left[2], right[2])
                    if end_s < least_s:
                        least_s, best = end_s, (left, right)
        if best is None:
            return None
        (_, _, left_s, one), (_, _, right_s, other) = best
        fork = sides.fork
        return Branching(
            Step(fork.left, one, left_s), Step(fork.right, other, right_s), least_s + FORK_S
        )


def _ends(
    times: _Times, here_s: float, ready_s: Mapping[str, float] | None, until_s: float
) -> Iterator[_End]:
    for name, row, at in times:
        start_s = here_s
        if ready_s is not None:
            if ready_s[name] > until_s:
                continue
            start_s = max(here_s, ready_s[name])
        yield start_s + row[at], start_s, row[at], name
