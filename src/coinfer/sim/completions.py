"""Completions: when the executions that run will end. Knows what runs, not what waits.

Without contention an end is known at the start. With it, work proceeds at a speed that depends on
who else runs; whenever that set changes, the work done so far is taken off and the ends are
computed anew. An execution whose speed did not change keeps its end to the last bit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Protocol, TypeAlias

from coinfer.core.commands import Execution
from coinfer.machine.contention import Contention

__all__ = ["Completions", "End", "SharedCompletions", "completions"]


End: TypeAlias = tuple[float, int, Execution, float]
"""The end of an execution: when, its number, the execution, and its seconds on the processor alone,
slowed down by others but without the overhead. Ends order themselves by time, then by the start.
"""


class Completions(Protocol):
    """What a simulation needs: the ends to come, soonest first."""

    ends: list[End]
    """A heap, for looking at the soonest without a call. Always the same list."""

    def start(self, execution: Execution, work_s: float, now: float, /) -> None:
        """Take in an execution with the seconds that it needs undisturbed."""

    def running(self) -> Iterable[Execution]:
        """Return what runs."""

    def hold_up(self, numbers: Collection[int], seconds: float, /) -> None:
        """Let executions that run end so much later, for they stood still."""

    @property
    def pop(self) -> Callable[[], End]:
        """Take out the soonest end."""


def completions(contention: Contention, overheads: Iterator[float]) -> Completions:
    """Choose the simpler way where processors do not disturb each other.

    Args:
        contention: How they do.
        overheads: By how many seconds each execution occupies its processor beyond its own time.
    """
    if contention:
        return SharedCompletions(contention, overheads)
    return _FreeCompletions(overheads)


class _FreeCompletions:
    """Ends on processors that do not disturb each other."""

    __slots__ = ("_overhead_s", "ends", "pop")

    def __init__(self, overheads: Iterator[float]) -> None:
        self.ends: list[End] = []
        self.pop = partial(heapq.heappop, self.ends)
        self._overhead_s = overheads.__next__

    def start(self, execution: Execution, work_s: float, now: float) -> None:
        end_s = now + work_s + self._overhead_s()
        heapq.heappush(self.ends, (end_s, execution.id, execution, work_s))

    def running(self) -> Iterable[Execution]:
        return [execution for _, _, execution, _ in self.ends]

    def hold_up(self, numbers: Collection[int], seconds: float) -> None:
        ends = self.ends
        for at, (end_s, number, execution, work_s) in enumerate(ends):
            if number in numbers:
                ends[at] = (end_s + seconds, number, execution, work_s + seconds)
        heapq.heapify(ends)


class _Work:
    """What is left of an execution, in undisturbed seconds, at the moment `since_s`."""

    __slots__ = ("end_s", "execution", "left_s", "overhead_s", "since_s", "slowdown")

    def __init__(
        self, execution: Execution, work_s: float, overhead_s: float, now: float, slowdown: float
    ) -> None:
        self.overhead_s = overhead_s
        self.left_s = work_s + overhead_s
        self.since_s = now
        self.slowdown = slowdown
        self.execution = execution
        self.end_s = now + self.left_s * slowdown

    def proceed(self, now: float, slowdown: float) -> None:
        """Go on at another speed from now on."""
        if slowdown == self.slowdown:
            return
        self.left_s = max(0.0, self.left_s - (now - self.since_s) / self.slowdown)
        self.since_s, self.slowdown = now, slowdown
        self.end_s = now + self.left_s * slowdown

    def hold_up(self, seconds: float) -> None:
        """End so much later, whatever its speed until then."""
        self.left_s += seconds / self.slowdown
        self.end_s += seconds


class SharedCompletions:
    """Ends on processors that slow each other down."""

    __slots__ = ("_contention", "_overhead_s", "_slowdowns", "_works", "ends")

    def __init__(self, contention: Contention, overheads: Iterator[float]) -> None:
        self.ends: list[End] = []
        self._contention = contention
        self._overhead_s = overheads.__next__
        self._works: dict[int, _Work] = {}
        self._slowdowns: dict[tuple[str, frozenset[str]], float] = {}

    def start(self, execution: Execution, work_s: float, now: float) -> None:
        """Take in an execution; all others may become slower."""
        busy = frozenset([execution.processor, *self._busy()])
        slowdown = self._slowdown(execution.processor, busy)
        work = _Work(execution, work_s, self._overhead_s(), now, slowdown)
        self._works[execution.id] = work
        self._proceed(now, busy)

    def running(self) -> Iterable[Execution]:
        """Return what runs."""
        return [work.execution for work in self._works.values()]

    def hold_up(self, numbers: Collection[int], seconds: float) -> None:
        """Let executions that run end so much later, for they stood still."""
        for number in numbers:
            self._works[number].hold_up(seconds)
        self._order()

    def pop(self) -> End:
        """Take out the soonest end; all others may become faster."""
        end = self.ends[0]
        at_s, number, _, _ = end
        del self._works[number]
        self._proceed(at_s, frozenset(self._busy()))
        return end

    def _busy(self) -> list[str]:
        return [work.execution.processor for work in self._works.values()]

    def _proceed(self, now: float, busy: frozenset[str]) -> None:
        for work in self._works.values():
            work.proceed(now, self._slowdown(work.execution.processor, busy))
        self._order()

    def _order(self) -> None:
        # As many as there are processors: sorting them anew costs less than stale heap entries.
        self.ends[:] = sorted([self._end(work) for work in self._works.values()])

    def _end(self, work: _Work) -> End:
        execution, end_s = work.execution, work.end_s
        service_s = max(0.0, end_s - execution.started_s - work.overhead_s)
        return end_s, execution.id, execution, service_s

    def _slowdown(self, processor: str, busy: frozenset[str]) -> float:
        key = (processor, busy)
        found = self._slowdowns.get(key)
        if found is None:
            others = sorted(busy - {processor})  # sorted: products must not depend on hash order
            found = self._slowdowns[key] = self._contention.slowdown(processor, others)
        return found
