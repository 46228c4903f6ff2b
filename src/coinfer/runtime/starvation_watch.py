"""Starvation watch: notices that other programs starve what gives way to urgent requests.

Threads of the lowest priority give way to everybody. Where other programs, or other threads of this
process, keep the cores busy, what was lowered for the sake of urgent requests would wait for
seconds, and miss the deadlines it has itself. Then nothing preempts for a while: express processors
go out of service, and fresh threads of normal priority take the place of those that were lowered.
Preemption comes back once nobody has competed for the cores for `CALM_S`; each time it is given up
again it takes twice as long.

Where they are seen to compete already when urgent requests are about to preempt for the first time,
nothing is lowered in the first place.

What has no deadline may starve: whoever gave it none asked for what is left over. That is only
said. The timer's thread looks, twice a second; requests do not know of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping

from coinfer.core.commands import Execution
from coinfer.runtime import clock
from coinfer.runtime.engine_warnings import EngineWarnings
from coinfer.runtime.worker import Worker
from coinfer.runtime.worker_pool import WorkerPool
from coinfer.threads.run_time import RunTime, run_time

__all__ = ["CALM_S", "StarvationWatch"]

WINDOW_S = 0.5
IN_A_ROW = 2
STARVING_SHARE = 0.8
"""What gives way to urgent requests alone is kept from its core by nobody else; one that competes
with a single thread of normal priority, for 0.98 of the time."""

BUSY_SHARE = 0.35
"""Threads of equal priority that share a core with one other are kept from it for half the time,
and three that float on two cores for a third."""

CALM_SHARE = 0.2
CALM_S = 10.0
_LONGEST_CALM_S = 160.0
_GLANCE_S = 0.03
_NONE = RunTime(0.0, 0.0)
_LEAST_S = 0.05 * WINDOW_S
"""Less than this in a window says nothing about who else wants the cores."""


class StarvationWatch:
    """Looks at how long the workers below express ones were kept from their cores.

    Args:
        pool: The workers.
        running: What runs, by number.
        set_preemption: Lets nothing preempt, for the reason given; or again, without one.
        warnings: Where to say it.
        times: Tells how long a thread ran and was kept from running.
        process_s: Tells for how long all threads of this process ran.

    Attributes:
        is_given_up: Whether nothing preempts at present.
    """

    def __init__(
        self,
        pool: WorkerPool,
        running: Mapping[int, Execution],
        set_preemption: Callable[[str], None],
        warnings: EngineWarnings,
        times: Callable[[int], RunTime | None] = run_time,
        process_s: Callable[[], float] = time.process_time,
    ) -> None:
        self.is_given_up = False
        self._pool = pool
        self._running = running
        self._set_preemption = set_preemption
        self._warnings = warnings
        self._times = times
        self._process_s = process_s
        self._before_s = process_s()
        self._looked_s = clock.now()
        self._before: dict[int, RunTime] = {}
        self._in_a_row: dict[str, int] = {}
        self._calm_s = 0.0
        self._patience_s = CALM_S
        self._given_up = 0
        self._is_busy = False
        pool.may_lower = self._may_lower

    def due_in_s(self) -> float:
        """Return the seconds until it wants to be called; 0 if it does now."""
        return max(0.0, self._looked_s + WINDOW_S - clock.now())

    def look(self) -> None:
        """Compare with the last look, and act on what was seen."""
        now = clock.now()
        window_s, self._looked_s = now - self._looked_s, now
        after: dict[int, RunTime] = {}
        seen, _ = self._seen(self._before, after)
        self._before, self._before_s = after, self._process_s()
        if self._is_busy:
            self._is_busy = False
            self._give_up("other programs keep the cores busy")
        elif self.is_given_up:
            self._wait_for_calm(seen, window_s)
        else:
            self._look_for_starving(seen, window_s)

    def _may_lower(self) -> bool:
        """Tell whether nobody is seen to compete for the cores; who is makes the next look give up.

        The owner of the core asks.
        """
        if self.is_given_up:
            return False
        seen, ran_s = self._seen(self._before, {})
        told = [met for met in seen.values() if met.ran_s + met.kept_s >= _GLANCE_S]
        # Threads of the application take cores, too: that is no reason not to preempt.
        own_s = max(0.0, self._process_s() - self._before_s - ran_s)
        kept_s = sum(met.kept_s for met in told) - own_s
        if kept_s > BUSY_SHARE * sum(met.ran_s + met.kept_s for met in told) and all(
            met.kept_s > BUSY_SHARE * (met.ran_s + met.kept_s) for met in told
        ):
            self._is_busy = True
        return not self._is_busy

    def _seen(
        self, before: Mapping[int, RunTime], after: dict[int, RunTime]
    ) -> tuple[dict[str, RunTime], float]:
        """Return by worker that is below an express one, or shares its cores, what it met with.

        What kept it from its core are others than our urgent runs. And for how many seconds all
        workers ran.

        Args:
            before: What the threads had by then.
            after: Takes what they have now.
        """
        workers = list(self._pool.workers.values())
        express = [worker for worker in workers if worker.processor.overlays]
        above = {each.processor.name: self._since(each, before, after) for each in express}
        seen: dict[str, RunTime] = {}
        ran_s = sum(met.ran_s for met in above.values() if met is not None)
        for worker in workers:
            if worker.yielding is None:
                continue
            met = self._since(worker, before, after)
            if met is None:
                continue
            ran_s += met.ran_s
            units = worker.processor.units
            ours_s = sum(
                on_top.ran_s
                for each in express
                if not units.isdisjoint(each.processor.overlays)
                and (on_top := above[each.processor.name]) is not None
            )
            seen[worker.processor.name] = RunTime(met.ran_s, max(0.0, met.kept_s - ours_s))
        return seen, ran_s

    def _since(
        self, worker: Worker, before: Mapping[int, RunTime], after: dict[int, RunTime]
    ) -> RunTime | None:
        thread = worker.thread_id
        at = None if thread is None else self._times(thread)
        if thread is None or at is None:
            return None
        after[thread] = at
        # A thread that is new since the last look has all its time from this window.
        last = before.get(thread, _NONE)
        return RunTime(at.ran_s - last.ran_s, at.kept_s - last.kept_s)

    def _look_for_starving(self, seen: Mapping[str, RunTime], window_s: float) -> None:
        starving = {
            name
            for name, met in seen.items()
            if self._pool.workers[name].gives_way and met.kept_s > STARVING_SHARE * window_s
        }
        self._in_a_row = {name: self._in_a_row.get(name, 0) + 1 for name in starving}
        names = [name for name, times in self._in_a_row.items() if times >= IN_A_ROW]
        if not names:
            return
        kept = f"other programs or threads kept {', '.join(names)} from the cores"
        if self._have_deadlines(names):
            self._give_up(kept)
        else:
            self._warnings.put(
                "starving",
                f"{kept}: what has no deadline gives way to all that is not idle; leave a core "
                "to it, or give `preempt: false`",
            )

    def _have_deadlines(self, names: Collection[str]) -> bool:
        return any(
            request.deadline_s < math.inf
            for execution in list(self._running.values())
            if execution.processor in names
            for request in execution.requests
        )

    def _give_up(self, kept: str) -> None:
        if self._given_up:
            self._patience_s = min(2 * self._patience_s, _LONGEST_CALM_S)
        self.is_given_up = True
        self._given_up += 1
        self._calm_s = 0.0
        self._in_a_row = {}
        self._warnings.put(
            "given up",
            f"{kept}: urgent requests do not preempt until these are calm for "
            f"{self._patience_s:g} s (given up {self._given_up} times); `preempt: false` avoids it",
        )
        self._set_preemption(kept)

    def _wait_for_calm(self, seen: Mapping[str, RunTime], window_s: float) -> None:
        kept_s = sum(met.kept_s for met in seen.values())
        used_s = kept_s + sum(met.ran_s for met in seen.values())
        if kept_s > CALM_SHARE * used_s:
            self._calm_s = 0.0
        elif used_s >= _LEAST_S:
            self._calm_s += window_s
        if self._calm_s >= self._patience_s:
            self.is_given_up = False
            self._set_preemption("")
