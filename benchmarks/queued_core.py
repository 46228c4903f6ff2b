"""Queued core: a dispatcher whose queue is kept at one length, to time its decisions."""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter

from coinfer.core.commands import Command, Execution, Run
from coinfer.core.dispatcher import Dispatcher
from coinfer.core.events import Arrived, Finished, ModelLoaded
from coinfer.core.policy import Policy
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.testing.machine import request

__all__ = ["QueuedCore", "median_and_p99", "undisturbed"]

_DEADLINE_S = 10.0


class QueuedCore:
    """A dispatcher of models that are asked for at random.

    Args:
        processors: Those of the machine.
        policy: A fresh policy.
        profiles: Times by model.
        spread: Executions take their expected times, more or less by this share of them.
        deadlines: Whether every other request has a deadline; no request otherwise.
    """

    def __init__(
        self,
        processors: Sequence[Processor],
        policy: Policy,
        profiles: Mapping[str, Profile],
        *,
        spread: float = 0.0,
        deadlines: bool = False,
    ) -> None:
        self.core = Dispatcher(processors, policy)
        for model, profile in profiles.items():
            self.core.handle(ModelLoaded(model, profile.units(model), profile), 0.0)
        self._models = list(profiles)
        self._spread = spread
        self._deadlines = deadlines
        self._random = random.Random(0)
        self._now = 0.0
        self._running: list[Execution] = []
        self._n_arrived = 0

    def decisions_us(self, queued: int, repeats: int) -> list[float]:
        """Microseconds of each of `repeats` decisions with `queued` requests waiting."""
        self._fill(queued)
        took = []
        with undisturbed():
            for _ in range(repeats):
                took.append(self._finish() * 1e6)
                self._fill(queued)
        return took

    def _fill(self, queued: int) -> None:
        """Let requests of random models arrive until the queue has its length."""
        while self.core.view.n_waiting < queued:
            self._n_arrived += 1
            model = self._random.choice(self._models)
            has_deadline = self._deadlines and self._n_arrived % 2
            deadline = {"deadline_s": self._now + _DEADLINE_S} if has_deadline else {}
            event = Arrived(request(model, id=self._n_arrived, arrival_s=self._now, **deadline))
            self._note(self.core.handle(event, self._now))

    def _finish(self) -> float:
        """Let the execution that ends first end; return the seconds that the decision took."""
        execution = min(self._running, key=lambda e: e.expected_end_s)
        self._running.remove(execution)
        took_s = execution.expected_s
        if self._spread:
            took_s *= self._random.uniform(1 - self._spread, 1 + self._spread)
        self._now = max(self._now, execution.started_s + took_s)
        event = Finished(execution.id, took_s)
        began = perf_counter()
        commands = self.core.handle(event, self._now)
        decided_s = perf_counter() - began
        self._note(commands)
        return decided_s

    def _note(self, commands: Sequence[Command]) -> None:
        self._running += [c.execution for c in commands if isinstance(c, Run)]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the garbage collector out of single measurements, as `timeit` does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def median_and_p99(values: Sequence[float]) -> str:
    """Show both, as a cell of a table."""
    return f"{statistics.median(values):.1f} {statistics.quantiles(values, n=100)[98]:5.0f}"
