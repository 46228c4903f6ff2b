"""Steadiness: whether the machine is still as fast as it was.

A virtual core can be moved, or get a neighbour, while nothing of it is seen in the system's counts.
What was measured before such a change says nothing about what comes after it.

Two things tell of a change: a canary that is timed before and after, and in a run that equal work
takes longer for some seconds. The second looks at times of the run itself, so it makes what is kept
more even; neither looks at how well anything was foreseen.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import cycle
from typing import NamedTuple, Self, TypeAlias, TypeVar

from coinfer.backends import get_backend
from coinfer.backends.base import Session, Tensors, caller_cores
from coinfer.machine.processor import Processor
from coinfer.metrics.recorder import Recorder
from coinfer.metrics.records import ExecutionRecord
from coinfer.runtime.prepared import Prepared
from coinfer.threads.pinning import pin_current_thread

__all__ = ["Canary", "Pace", "Watch", "unevenness"]

T = TypeVar("T")

_LOOK_S = 0.7
_WAIT_S = 5.0
_MOST_DISCARDED = 40
_MOST_FIRST = 3
_WINDOW_S = 2.0
_FEWEST = 10
_EVEN = 0.25
"""By how much more the work of some seconds of a run may take than the same work in all of it."""


class _Bird(NamedTuple):
    """A network, and the cores of the thread that runs it."""

    cores: Sequence[int]
    session: Session
    feeds: Sequence[Tensors]

    def seconds(self, until_s: float, found: list[float]) -> None:
        """Run until a moment; add the median time of a run."""
        pin_current_thread(self.cores)
        took = []
        for feed in cycle(self.feeds):
            began_s = time.perf_counter()
            if began_s >= until_s and took:
                break
            self.session.run(feed)
            took.append(time.perf_counter() - began_s)
        found.append(statistics.median(took))


Look: TypeAlias = Mapping[tuple[str, str], float]
"""Seconds of a run by library and manner: on a core alone, on all at once, over several cores."""


class Pace(NamedTuple):
    """How long runs took around a measurement, as shares of what they took at first.

    Attributes:
        ratios: By library and manner, as a look has them.
    """

    ratios: Look

    def of(self, processor: Processor) -> float:
        """Return the share for a processor; 1 if nothing is known of its library."""
        manners = ("wide",) if processor.threads > 1 else ("alone", "together")
        found = (self.ratios.get((processor.backend, manner), 1.0) for manner in manners)
        return statistics.fmean(found)

    def __str__(self) -> str:
        """Say between which shares it lies."""
        return f"{min(self.ratios.values()):.2f} to {max(self.ratios.values()):.2f}"


class Canary(AbstractContextManager["Canary"]):
    """Times a network by every library in use: on each core alone, on all at once, over several.

    Args:
        ready: Its largest model but one is timed.
    """

    def __init__(self, ready: Prepared) -> None:
        if not any(p.threads == 1 for p in ready.plan.processors):
            raise SystemExit("no processor has one core: nothing tells whether the machine changes")
        by_time = sorted(
            ready.models,
            key=lambda name: max(
                ready.plan.measured.expected_s(name, p.name) or 0.0 for p in ready.plan.processors
            ),
        )
        name = by_time[-2:][0]
        self._stack = ExitStack()
        self._singles: dict[str, list[_Bird]] = defaultdict(list)
        self._wide: dict[str, _Bird] = {}
        for processor in ready.plan.processors:
            backend = get_backend(processor.backend)
            session = backend.load(ready.models[name], processor)
            self._stack.callback(session.close)
            bird = _Bird(caller_cores(backend, processor), session, ready.feeds[name])
            if processor.threads == 1:
                self._singles[processor.backend].append(bird)
            else:
                self._wide[processor.backend] = bird

    def __enter__(self) -> Self:
        """Return the canary."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sessions."""
        self._stack.close()

    def look(self) -> Look:
        """Return seconds of a run, mean of the cores."""
        found = {}
        for library, flock in self._singles.items():
            found[library, "alone"] = statistics.fmean(_together([bird])[0] for bird in flock)
            found[library, "together"] = statistics.fmean(_together(flock))
        for library, bird in self._wide.items():
            found[library, "wide"] = _together([bird])[0]
        return found

    @staticmethod
    def change(before: Look, after: Look) -> float:
        """Return by what share times have changed on average, or half of that of a single one.

        A machine that is slower is so for all; a single look at one of six is often 10 % off.
        """
        ratios = [after[manner] / before[manner] for manner in before]
        most = max(max(ratio, 1 / ratio) - 1 for ratio in ratios)
        return max(abs(statistics.geometric_mean(ratios) - 1), most / 2)


def _together(birds: Sequence[_Bird]) -> list[float]:
    found: list[list[float]] = [[] for _ in birds]
    until_s = time.perf_counter() + _LOOK_S
    threads = [
        threading.Thread(target=bird.seconds, args=(until_s, each))
        for bird, each in zip(birds, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each[0] for each in found]


class Watch:
    """Measures only while the machine is as it was when it was measured first.

    What was measured while it changed is measured again; how well a result was foreseen never
    decides that, only `uneven` may.

    Args:
        canary: Looks at the machine.
        tell: Told what is thrown away.
        tolerance: Largest change of the machine's own times during a measurement that counts.
        patience_s: How long to wait in all for the machine to be as it was.
        follows: Whether the machine may be another one than at first, as long as it is the same
            before and after a measurement: its `pace` then tells how it differs.

    Attributes:
        discarded: How many measurements were thrown away.
        pace: How long runs took around the last measurement that counts.
    """

    def __init__(
        self,
        canary: Canary,
        tell: Callable[[str], None],
        *,
        tolerance: float = 0.1,
        patience_s: float = 1200.0,
        follows: bool = False,
    ) -> None:
        self._canary = canary
        self._tell = tell
        self._tolerance = tolerance
        self._patience_s = patience_s
        self._follows = follows
        self._seen: Look = {}
        self._before: Look = {}
        self.discarded = 0
        self.pace = Pace({})

    def first(self, what: str, measure: Callable[[], T]) -> T:
        """Measure until the machine is the same before and after; so it has to be from then on.

        One that may change is measured a few times only; the last counts, however it changed.
        """
        while True:
            self._seen = self._before = self._canary.look()
            found = measure()
            if (after := self._steady_after(what)) is not None:
                self._seen = _mean(self._before, after)
                return found
            if self._follows and self.discarded == _MOST_FIRST:
                self._tell(f"  {what}: that is how it is taken; it never stays as it is")
                return found

    def steady(
        self, what: str, measure: Callable[[], T], uneven: Callable[[T], float] = lambda _: 0.0
    ) -> T:
        """Measure until the machine is as it was, before and after, and if it can be told between.

        Args:
            what: Name of the measurement.
            measure: Makes it.
            uneven: The `unevenness` of what was measured.
        """
        while True:
            self._wait()
            found = measure()
            excess = uneven(found)
            if excess > _EVEN:
                self._discard(f"{what}: for some seconds all took {excess:.0%} longer")
            elif (after := self._steady_after(what)) is not None:
                around = _mean(self._before, after)
                self.pace = Pace({at: around[at] / seconds for at, seconds in self._seen.items()})
                return found

    @property
    def note(self) -> str:
        """Say how much was thrown away."""
        return f"{self.discarded} measurements thrown away because the machine changed meanwhile"

    def _wait(self) -> None:
        while True:
            self._before = self._canary.look()
            if self._follows or self._canary.change(self._seen, self._before) <= self._tolerance:
                return
            time.sleep(_WAIT_S)
            self._patience_s -= _WAIT_S
            if self._patience_s <= 0:
                raise SystemExit("the machine does not become again what it was: no figures")

    def _steady_after(self, what: str) -> Look | None:
        """Look once more; return None, and say so, if the machine is another one."""
        after = self._canary.look()
        change = self._canary.change(self._before if self._follows else self._seen, after)
        if change <= self._tolerance:
            return after
        self._discard(f"{what}: the machine changed by {change:.0%}")
        return None

    def _discard(self, why: str) -> None:
        self.discarded += 1
        if self.discarded > _MOST_DISCARDED:
            raise SystemExit(f"{why}; it is never steady for long enough: no figures")
        self._tell(f"  {why}; measured again")


def _mean(one: Look, other: Look) -> Look:
    return {at: (seconds + other[at]) / 2 for at, seconds in one.items()}


def unevenness(run: Recorder) -> float:
    """Return by what share the work of some seconds of a run took longer than usual in that run.

    Only the measuring window counts: what runs first after a load is slow on every machine.
    """
    times: dict[tuple[object, ...], list[float]] = defaultdict(list)
    counted = []
    for execution in run.executions():
        seconds = execution.service_s
        if seconds is not None and execution.started_s >= run.window.start_s:
            counted.append((execution, seconds))
            times[_kind(execution)].append(seconds)
    usually = {kind: statistics.fmean(all_of) for kind, all_of in times.items()}
    windows: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for execution, seconds in counted:
        usual_s = usually[_kind(execution)]
        windows[int(execution.finished_s / _WINDOW_S)].append((seconds, usual_s))
    excesses = [
        sum(took for took, _ in pairs) / sum(usual for _, usual in pairs) - 1
        for pairs in windows.values()
        if len(pairs) >= _FEWEST
    ]
    return max(excesses, default=0.0)


def _kind(execution: ExecutionRecord) -> tuple[object, ...]:
    """What executions of equal work have in common."""
    return (
        execution.model,
        execution.processor,
        execution.span,
        execution.batch,
        execution.sizes,
    )
