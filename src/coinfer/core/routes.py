"""Routes: how requests of a model of several units get to its end, and in what time at best.

On some ways two spans run at the same time. A fork is a pair of neighbouring spans of which neither
needs the other; its two sides start at once on two processors.

Knows no request and nothing that waits or runs: what a processor has to do before is for
`coinfer.core.request_schedule` to add.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add, itemgetter
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from coinfer.machine.span import Fork, Span

__all__ = ["FORK_S", "HANDOVER_S", "Branching", "ForkRoutes", "RouteSeconds", "Routes", "Step"]

HANDOVER_S = 30e-6
"""What going on in another execution costs: the end, a decision and a start of the driver's. The
times of spans do not hold it, and without it nothing would speak against a cut that gains nothing.
"""

_NOTHING: Mapping[str, float] = MappingProxyType({})


Endings: TypeAlias = Sequence[tuple[float, float, int]]
"""Spans from a boundary: the seconds to the model's end, those of the span, where it ends."""


FORK_S = 0.4e-3
"""What a fork costs beside its sides, in seconds: a processor at rest is woken for one of them, and
the one that is done first rests until the other is. Seen on two cores of a virtual machine of 2026:
0.2 to 0.5 ms."""

_Times: TypeAlias = tuple[tuple[str, list[float], int], ...]
"""By processor, where the seconds of one span are kept: in which list, at which place."""

_End: TypeAlias = tuple[float, float, float, str]
"""When a side would end alone, when it could start, its seconds, and its processor."""


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


@dataclass(slots=True, eq=False)
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
        ways: By boundary, `seconds`; this and what follows is as of the last `refresh`.
        ranked: The same as (seconds, place in `allowed`, processor), the fastest first.
        first_steps: By boundary and processor, `step`, as far as somebody asked for it.
        tails: By boundary, what is added to a span that ends there: the best rest, and the
            handover to it.
        guesses: By boundary, the steps to the end that were good when somebody last looked.

    >>> rows = {Span(0, 1): {"cpu": 9.0}, Span(0, 0): {"npu": 1.0}, Span(1, 1): {"cpu": 4.0}}
    >>> routes = Routes(2, rows, ["cpu", "npu"])
    >>> {name: round(seconds, 2) for name, seconds in routes.seconds(0).items()}
    {'cpu': 9.0, 'npu': 5.0}
    >>> routes.step(0, "npu")
    Step(span=Span(first=0, last=0), processor='npu', seconds=1.0)
    """

    units: int
    rows: Mapping[Span, Mapping[str, float]]
    allowed: Sequence[str]
    forked: ForkRoutes | None = field(default=None, init=False)
    guesses: dict[int, tuple[Step, ...]] = field(default_factory=dict, init=False)
    ways: list[dict[str, float]] = field(init=False)
    ranked: list[list[tuple[float, int, str]]] = field(init=False)
    first_steps: list[dict[str, Step]] = field(init=False)
    tails: list[float] = field(init=False)
    times: list[dict[str, list[float]]] = field(init=False)
    _into: list[int] = field(init=False)
    _endings: list[dict[str, Endings]] = field(init=False)
    _outdated: int = field(default=0, init=False)
    _stale: int = field(init=False)

    def __post_init__(self) -> None:
        """Note what can be run from where; all else is computed when it is asked for."""
        units, rows = self.units, self.rows
        longest: list[dict[str, int]] = [{} for _ in range(units)]
        for (first, last), row in rows.items():
            if last < units:
                for name in row:
                    longest[first][name] = max(last, longest[first].get(name, 0))
        # By boundary and processor: the seconds of the spans from there on, the shortest span
        # first, infinite where a span may not run.
        self.times = [
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
        self.ways = [{} for _ in range(units)]
        self.ranked = [[] for _ in range(units)]
        self.first_steps = [{} for _ in range(units)]
        # The spans of each, the one that begins the best way first, likewise as far as asked for.
        self._endings = [{} for _ in range(units)]
        # Of `_outdated`, as bits: the boundaries of which these are out of date.
        self.tails = [math.inf] * units + [0.0]
        # As bits: the boundaries whose best must be computed again.
        self._stale = (1 << units) - 1

    def observed(self, span: Span, processor: str, seconds: float) -> None:
        """Note that a span takes another time than before."""
        times = self.times[span.first].get(processor)
        at = span.last - span.first
        if times is not None and at < len(times) and times[at] < math.inf:
            times[at] = seconds
            self._stale |= 1 << span.first
            self._endings[span.first].pop(processor, None)
            if self.forked is not None:
                self.forked.observed(span, processor, seconds)

    def seconds(self, position: int) -> Mapping[str, float]:
        """Return the seconds to the end by the processor that runs the next span, nothing waiting.

        A processor from which no way leads to the end is not among them.
        """
        if self._stale >> position:
            self.refresh(position)
        return self.ways[position]

    def step(self, position: int, processor: str) -> Step:
        """Return what the processor runs next on its best way to the end."""
        if self._stale >> position:
            self.refresh(position)
        steps = self.first_steps[position]
        step = steps.get(processor)
        if step is None:
            # The shortest of the best, found again: most are never asked for.
            times = self.times[position][processor]
            totals = list(map(add, times, self.tails[position + 1 :]))
            at = totals.index(self.ways[position][processor])
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

    def endings(self, position: int) -> Mapping[str, Endings]:
        """Return what is known of `endings_of` by processor; to be refreshed before."""
        if self._outdated >> position & 1:
            self._outdated ^= 1 << position
            self._endings[position].clear()
        return self._endings[position]

    def endings_of(self, position: int, processor: str) -> Endings:
        """Return the spans of a processor from a boundary, by the best times to the end."""
        times = self.times[position][processor]
        totals = map(add, times, self.tails[position + 1 :])
        endings = sorted(zip(totals, times, range(position + 1, self.units + 1), strict=False))
        self._endings[position][processor] = endings
        return endings

    def refresh(self, position: int) -> None:
        """Bring what is known up to date, from the last boundary back to this one."""
        while self._stale >> position:
            at = self._stale.bit_length() - 1
            self._stale &= ~(1 << at)
            if self._compute(at):
                self._stale |= self._into[at]
                self._outdated |= self._into[at]

    def _compute(self, at: int) -> bool:
        """Find the best of one boundary; tell whether its least time changed."""
        tails = self.tails[at + 1 :]
        seconds = self.ways[at]
        seconds.clear()
        self.first_steps[at].clear()
        for name, times in self.times[at].items():
            best = min(map(add, times, tails))
            if best < math.inf:
                seconds[name] = best
        ranked = sorted([(s, rank, name) for rank, (name, s) in enumerate(seconds.items())])
        self.ranked[at] = ranked
        tail = (ranked[0][0] if ranked else math.inf) + HANDOVER_S
        if tail == self.tails[at]:
            return False
        self.tails[at] = tail
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


class _Sides(NamedTuple):
    fork: Fork
    lefts: _Times
    rights: _Times


@dataclass(slots=True, eq=False)
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

    forks: Iterable[Fork]
    neighbours: Mapping[str, Collection[str]]
    _sides: list[list[_Sides]] = field(init=False)
    _least_s: list[list[float]] = field(init=False)

    def __post_init__(self) -> None:
        """Note which forks can be taken."""
        Routes.__post_init__(self)
        self._sides = [[] for _ in range(self.units)]
        # By boundary, what each of its forks takes and what follows, nothing waiting.
        self._least_s = [[] for _ in range(self.units)]
        for fork in self.forks:
            if fork.last >= self.units:
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
            self.refresh(position)
        return [
            pair
            for sides, least_s in zip(self._sides[position], self._least_s[position], strict=True)
            if here_s + least_s < limit_s
            and (pair := self._pair(sides, here_s, ready_s, until_s)) is not None
        ]

    def observed(self, span: Span, processor: str, seconds: float) -> None:
        """Note that a span takes another time than before."""
        Routes.observed(self, span, processor, seconds)
        for first in range(span.first):
            if any(sides.fork.right == span for sides in self._sides[first]):
                self._stale |= 1 << first

    def rest_s(self, position: int) -> float:
        """Return the least seconds from a boundary to the end; infinite if no way leads there."""
        if position == self.units:
            return 0.0
        if self._stale >> position:
            self.refresh(position)
        return self.tails[position] - HANDOVER_S

    def _compute(self, at: int) -> bool:
        before_s = self.tails[at]
        Routes._compute(self, at)
        self._least_s[at] = least_s = []
        for sides in self._sides[at]:
            pair = self._pair(sides, 0.0, None, math.inf)
            assert pair is not None, "what cannot fork was left out"
            least_s.append(pair.end_s + self.tails[sides.fork.last + 1])
            self.tails[at] = min(self.tails[at], least_s[-1] + HANDOVER_S)
        return self.tails[at] != before_s

    def _rows(self, span: Span) -> _Times:
        at = span.last - span.first
        return tuple(
            (name, times, at)
            for name, times in self.times[span.first].items()
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
            near = self.neighbours[left[3]]
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
