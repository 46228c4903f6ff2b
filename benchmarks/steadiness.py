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
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import cycle
from typing import NamedTuple, Self, TypeVar

from coinfer.backends import get_backend
from coinfer.backends.base import Session, Tensors
from coinfer.hardware.pinning import pin_current_thread
from coinfer.metrics.recorder import Recorder
from coinfer.planner.preparation import Preparation
from coinfer.processor import Processor

__all__ = ["Canary", "Watch", "unevenness"]

T = TypeVar("T")

_LOOK_S = 0.7
_WAIT_S = 5.0
_MOST_DISCARDED = 20
_WINDOW_S = 2.0
_FEWEST = 10
_EVEN = 0.25
"""By how much more the work of some seconds of a run may take than the same work in all of it."""


class _Bird(NamedTuple):
    """A network on a core."""

    processor: Processor
    session: Session
    feeds: Sequence[Tensors]

    def seconds(self, until_s: float, found: list[float]) -> None:
        """Run until a moment; add the median time of a run."""
        pin_current_thread(self.processor.cores)
        took = []
        for feed in cycle(self.feeds):
            began_s = time.perf_counter()
            if began_s >= until_s and took:
                break
            self.session.run(feed)
            took.append(time.perf_counter() - began_s)
        found.append(statistics.median(took))


class Canary(AbstractContextManager["Canary"]):
    """Times a network on each core, alone and with all cores busy, by every library in use.

    Args:
        ready: Its largest model but one is timed, on processors of one core.
    """

    def __init__(self, ready: Preparation) -> None:
        singles = [p for p in ready.processors if len(p.cores) == 1]
        if not singles:
            raise SystemExit("no processor has one core: nothing tells whether the machine changes")
        by_time = sorted(
            ready.models,
            key=lambda name: max(
                ready.measured.expected_s(name, p.name) or 0.0 for p in ready.processors
            ),
        )
        name = by_time[-2:][0]
        self._stack = ExitStack()
        self._flocks: dict[str, list[_Bird]] = {}
        for processor in singles:
            session = get_backend(processor.backend).load(ready.models[name], processor)
            self._stack.callback(session.close)
            bird = _Bird(processor, session, ready.feeds[name])
            self._flocks.setdefault(processor.backend, []).append(bird)

    def __enter__(self) -> Self:
        """Return the canary."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sessions."""
        self._stack.close()

    def look(self) -> tuple[float, ...]:
        """Return seconds of a run, mean of the cores: each alone, and all at once, by library."""
        found = []
        for flock in self._flocks.values():
            found.append(statistics.fmean(_together([bird])[0] for bird in flock))
            found.append(statistics.fmean(_together(flock)))
        return tuple(found)

    @staticmethod
    def change(before: Sequence[float], after: Sequence[float]) -> float:
        """Return by what share the time that changed most has changed."""
        return max(abs(b / a - 1) for a, b in zip(before, after, strict=True))


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

    Attributes:
        discarded: How many measurements were thrown away.
    """

    def __init__(
        self,
        canary: Canary,
        tell: Callable[[str], None],
        *,
        tolerance: float = 0.1,
        patience_s: float = 1200.0,
    ) -> None:
        self._canary = canary
        self._tell = tell
        self._tolerance = tolerance
        self._patience_s = patience_s
        self._seen: tuple[float, ...] = ()
        self.discarded = 0

    def first(self, what: str, measure: Callable[[], T]) -> T:
        """Measure until the machine is the same before and after; so it has to be from then on."""
        while True:
            self._seen = self._canary.look()
            found = measure()
            if self._is_steady(what):
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
            elif self._is_steady(what):
                return found

    @property
    def note(self) -> str:
        """Say how much was thrown away."""
        return f"{self.discarded} measurements thrown away because the machine changed meanwhile"

    def _wait(self) -> None:
        while self._canary.change(self._seen, self._canary.look()) > self._tolerance:
            time.sleep(_WAIT_S)
            self._patience_s -= _WAIT_S
            if self._patience_s <= 0:
                raise SystemExit("the machine does not become again what it was: no figures")

    def _is_steady(self, what: str) -> bool:
        change = self._canary.change(self._seen, self._canary.look())
        if change <= self._tolerance:
            return True
        self._discard(f"{what}: the machine changed by {change:.0%}")
        return False

    def _discard(self, why: str) -> None:
        self.discarded += 1
        if self.discarded > _MOST_DISCARDED:
            raise SystemExit(f"{why}; it is never steady for long enough: no figures")
        self._tell(f"  {why}; measured again")


def unevenness(run: Recorder) -> float:
    """Return by what share the work of some seconds of a run took longer than usual in that run.

    Only the measuring window counts: what runs first after a load is slow on every machine.
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    counted = []
    for execution in run.executions():
        seconds = execution.service_s
        if seconds is not None and execution.started_s >= run.window.start_s:
            counted.append((execution, seconds))
            times[execution.model, execution.processor].append(seconds)
    usually = {pair: statistics.median(all_of) for pair, all_of in times.items()}
    windows: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for execution, seconds in counted:
        usual_s = usually[execution.model, execution.processor]
        windows[int(execution.finished_s / _WINDOW_S)].append((seconds, usual_s))
    excesses = [
        sum(took for took, _ in pairs) / sum(usual for _, usual in pairs) - 1
        for pairs in windows.values()
        if len(pairs) >= _FEWEST
    ]
    return max(excesses, default=0.0)
