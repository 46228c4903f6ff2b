"""Routes: how requests of a model of several units get to its end, and in what time at best.

Knows no request and nothing that waits or runs: what a processor has to do before is for
`coinfer.core.request_schedule` to add.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from operator import add
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from coinfer.machine.span import Span

__all__ = ["HANDOVER_S", "Branching", "RouteSeconds", "Routes", "Step"]

HANDOVER_S = 30e-6
"""What going on in another execution costs: the end, a decision and a start of the driver's. The
times of spans do not hold it, and without it nothing would speak against a cut that gains nothing.
"""

_NOTHING: Mapping[str, float] = MappingProxyType({})


Endings: TypeAlias = Sequence[tuple[float, float, int]]
"""Spans from a boundary: the seconds to the model's end, those of the span, where it ends."""


class Step(NamedTuple):
    """One span on one processor.

    Attributes:
        span: The units that it runs.
        processor: Where.
        seconds: How long, once it runs.
    """

    span: Span
    processor: str
    seconds: float


class Branching(NamedTuple):
    """The two sides of a fork on the processors that are done with both first.

    Attributes:
        left: The side that comes first in the line of units.
        right: The other; its processor shares no unit with the first.
        end_s: When both are done, the cost of the fork included.
    """

    left: Step
    right: Step
    end_s: float


class Routes:
    """The best remaining time from each unit boundary to the end, by the processor that goes first.

    It is computed when it is asked for, and again after a time has changed, but only for the
    boundaries that the change can reach. So it is never out of date.

    Args:
        units: Number of unit subgraphs.
        rows: Seconds by span and processor; a span that is missing may not run there.
        allowed: Names of the processors that may be used, in the order of preference.

    Attributes:
        forked: The same with forks, for those who may take them; None if there are none.
        guesses: By boundary, the steps to the end that were good when somebody last looked.

    >>> rows = {Span(0, 1): {"cpu": 9.0}, Span(0, 0): {"npu": 1.0}, Span(1, 1): {"cpu": 4.0}}
    >>> routes = Routes(2, rows, ["cpu", "npu"])
    >>> {name: round(seconds, 2) for name, seconds in routes.seconds(0).items()}
    {'cpu': 9.0, 'npu': 5.0}
    >>> routes.step(0, "npu")
    Step(span=Span(first=0, last=0), processor='npu', seconds=1.0)
    """

    __slots__ = (
        "_endings",
        "_into",
        "_outdated",
        "_ranked",
        "_seconds",
        "_stale",
        "_steps",
        "_tails",
        "_times",
        "allowed",
        "forked",
        "guesses",
        "units",
    )

    def __init__(
        self, units: int, rows: Mapping[Span, Mapping[str, float]], allowed: Sequence[str]
    ) -> None:
        self.units = units
        self.allowed = tuple(allowed)
        self.forked: Routes | None = None
        self.guesses: dict[int, tuple[Step, ...]] = {}
        longest: list[dict[str, int]] = [{} for _ in range(units)]
        for (first, last), row in rows.items():
            if last < units:
                for name in row:
                    longest[first][name] = max(last, longest[first].get(name, 0))
        # By boundary and processor: the seconds of the spans from there on, the shortest span
        # first, infinite where a span may not run.
        self._times: list[dict[str, list[float]]] = [
            {
                name: [rows.get(Span(first, last), _NOTHING).get(name, math.inf)
                       for last in range(first, upto[name] + 1)]
                for name in self.allowed
                if name in upto
            }
            for first, upto in enumerate(longest)
        ]  # fmt: skip
        # By boundary, as bits: the boundaries from which one span leads to it.
        self._into = [0] * (units + 1)
        for first, last in rows:
            if last < units:
                self._into[last + 1] |= 1 << first
        self._seconds: list[dict[str, float]] = [{} for _ in range(units)]
        # The same in the order of the seconds, with the place in the order of preference.
        self._ranked: list[list[tuple[float, int, str]]] = [[] for _ in range(units)]
        # The first steps of the best ways, as far as somebody asked for them.
        self._steps: list[dict[str, Step]] = [{} for _ in range(units)]
        # The spans of each, the one that begins the best way first, likewise as far as asked for.
        self._endings: list[dict[str, Endings]] = [{} for _ in range(units)]
        # As bits: the boundaries of which these are out of date.
        self._outdated = 0
        # What is added to a span that ends at a boundary: the best rest, and the handover to it.
        self._tails = [math.inf] * units + [0.0]
        # As bits: the boundaries whose best must be computed again.
        self._stale = (1 << units) - 1

    def observed(self, span: Span, processor: str, seconds: float) -> None:
        """Note that a span takes another time than before."""
        times = self._times[span.first].get(processor)
        at = span.last - span.first
        if times is not None and at < len(times) and times[at] < math.inf:
            times[at] = seconds
            self._stale |= 1 << span.first
            self._endings[span.first].pop(processor, None)
            if self.forked is not None:
                self.forked.observed(span, processor, seconds)

    def soonest(
        self,
        _position: int,
        _here_s: float = 0.0,
        _ready_s: Mapping[str, float] | None = None,
        _until_s: float = math.inf,
        _limit_s: float = math.inf,
    ) -> list[Branching]:
        """Return the forks that may be taken at a boundary: none, here (see `ForkRoutes`)."""
        return []

    def seconds(self, position: int) -> Mapping[str, float]:
        """Return the seconds to the end by the processor that runs the next span, nothing waiting.

        A processor from which no way leads to the end is not among them.
        """
        if self._stale >> position:
            self._refresh(position)
        return self._seconds[position]

    def step(self, position: int, processor: str) -> Step:
        """Return what the processor runs next on its best way to the end."""
        if self._stale >> position:
            self._refresh(position)
        steps = self._steps[position]
        step = steps.get(processor)
        if step is None:
            # The shortest of the best, found again: most are never asked for.
            times = self._times[position][processor]
            totals = list(map(add, times, self._tails[position + 1 :]))
            at = totals.index(self._seconds[position][processor])
            step = steps[processor] = Step(Span(position, position + at), processor, times[at])
        return step

    def rest_s(self, position: int) -> float:
        """Return the least seconds from a boundary to the end; infinite if no way leads there."""
        return (
            min(self.seconds(position).values(), default=math.inf) if position < self.units else 0.0
        )

    def leads_on(self, span: Span) -> bool:
        """Tell whether the end can be reached after a span."""
        return self.rest_s(span.last + 1) < math.inf

    def times(self, position: int) -> Mapping[str, Sequence[float]]:
        """Return by processor the seconds of each span from a boundary, the shortest first."""
        return self._times[position]

    def endings(self, position: int) -> Mapping[str, Endings]:
        """Return what is known of `endings_of` by processor."""
        if self._stale >> position:
            self._refresh(position)
        if self._outdated >> position & 1:
            self._outdated ^= 1 << position
            self._endings[position].clear()
        return self._endings[position]

    def endings_of(self, position: int, processor: str) -> Endings:
        """Return the spans of a processor from a boundary, by the best times to the end."""
        times = self._times[position][processor]
        totals = map(add, times, self._tails[position + 1 :])
        endings = sorted(zip(totals, times, range(position + 1, self.units + 1), strict=False))
        self._endings[position][processor] = endings
        return endings

    def ways(self, position: int) -> Sequence[Mapping[str, float]]:
        """Return `seconds` by boundary, right from `position` on."""
        if self._stale >> position:
            self._refresh(position)
        return self._seconds

    def ranked(self, position: int) -> Sequence[Sequence[tuple[float, int, str]]]:
        """Return `ways` as (seconds, place in `allowed`, processor), the fastest first."""
        if self._stale >> position:
            self._refresh(position)
        return self._ranked

    def first_steps(self, position: int) -> Sequence[Mapping[str, Step]]:
        """Return what is known of `step` by boundary, right from `position` on."""
        if self._stale >> position:
            self._refresh(position)
        return self._steps

    def tails(self, position: int) -> Sequence[float]:
        """Return by boundary the seconds after a span that ends there, right after `position`."""
        if self._stale >> position:
            self._refresh(position)
        return self._tails

    def _refresh(self, position: int) -> None:
        """Compute what changed, from the last boundary back to this one."""
        while self._stale >> position:
            at = self._stale.bit_length() - 1
            self._stale &= ~(1 << at)
            if self._compute(at):
                self._stale |= self._into[at]
                self._outdated |= self._into[at]

    def _compute(self, at: int) -> bool:
        """Find the best of one boundary; tell whether its least time changed."""
        tails = self._tails[at + 1 :]
        seconds = self._seconds[at]
        seconds.clear()
        self._steps[at].clear()
        for name, times in self._times[at].items():
            best = min(map(add, times, tails))
            if best < math.inf:
                seconds[name] = best
        ranked = sorted([(s, rank, name) for rank, (name, s) in enumerate(seconds.items())])
        self._ranked[at] = ranked
        tail = (ranked[0][0] if ranked else math.inf) + HANDOVER_S
        if tail == self._tails[at]:
            return False
        self._tails[at] = tail
        return True


class RouteSeconds(Mapping[str, float]):
    """The seconds of one boundary as a mapping that follows what is observed."""

    __slots__ = ("_position", "_routes")

    def __init__(self, routes: Routes, position: int) -> None:
        self._routes = routes
        self._position = position

    def __getitem__(self, processor: str) -> float:
        """Return the seconds to the end if this processor runs the next span."""
        return self._routes.seconds(self._position)[processor]

    def __contains__(self, processor: object) -> bool:
        """Tell whether this processor can run the next span of a way to the end."""
        return processor in self._routes.seconds(self._position)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the processors."""
        return iter(self._routes.seconds(self._position))

    def __len__(self) -> int:
        """Count the processors."""
        return len(self._routes.seconds(self._position))
