"""Services: draws how long what a machine does takes. Seeded; knows no queue and no time of day.

Every (model, processor) has a generator of its own, so that a change of policy does not change the
times that another pair is given, and adding a model changes no other model's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from coinfer.core.commands import Execution
from coinfer.errors import InvariantError
from coinfer.machine.machine import Machine
from coinfer.machine.profile import Measurement, ProfileKey
from coinfer.machine.span import Span
from coinfer.workload.seeds import Purpose, generator

__all__ = ["Services"]

_BLOCK = 1024

_Draws: TypeAlias = Callable[[], float]


class Services:
    """Seconds that executions take on their processors when nothing disturbs them.

    Args:
        machine: Whose times.
        seed: Of everything random.
        deterministic: Give the mean each time.
        off_by: Each execution takes so many times as long, or as short, as it would: one or the
            other at random. 1: as it would.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        seed: int = 0,
        deterministic: bool = False,
        off_by: float = 1.0,
    ) -> None:
        self._machine = machine.equipped()
        self._seed = seed
        self._deterministic = deterministic
        self._off_by = off_by
        self._draws: dict[tuple[object, ...], _Draws] = {}
        # By model, processor and span: a walk through all of a large profile takes milliseconds.
        self._entries: dict[tuple[str, str, Span], list[tuple[ProfileKey, Measurement]]] = {}
        for key, entry in self._machine.profile:
            self._entries.setdefault((key.model, key.processor, key.span), []).append((key, entry))

    def draw(self, execution: Execution) -> float:
        """Return the seconds of this execution."""
        requests = execution.requests
        batch = requests[0].batch if len(requests) == 1 else execution.batch
        key = (execution[1:4], batch, requests[0].shape)  # model, span and processor in one step
        draws = self._draws.get(key)
        if draws is None:
            model, span, processor = execution.variant, execution.span, execution.processor
            what = ProfileKey(model, processor, batch, span, requests[0].shape)
            draws = self._draws[key] = self._disturbed(self._times(what), what).__next__
        return draws()

    def overheads(self) -> Iterator[float]:
        """Return the seconds by which each execution occupies its processor beyond its own time."""
        machine = self._machine
        overhead_s, factors = machine.overhead_s, machine.overhead_factors
        return self._varied(overhead_s, factors, Purpose.HANDOVER)

    def submissions(self) -> Iterator[float]:
        """Return how many times as long as usual what is submitted takes, moment by moment."""
        return self._varied(1.0, self._machine.submission.factors, Purpose.SUBMISSION)

    def _varied(self, usual: float, factors: Sequence[float], purpose: Purpose) -> Iterator[float]:
        if self._deterministic or not factors:
            return repeat(usual)
        rng = generator(self._seed, purpose, "")
        choices = usual * np.array(factors)
        return _endless(lambda: rng.choice(choices, _BLOCK))

    def _disturbed(self, times: Iterator[float], key: ProfileKey) -> Iterator[float]:
        """Let times be off, by factors that are the same under every policy."""
        if self._off_by == 1.0:
            return times
        rng = generator(self._seed, Purpose.DISTURBANCE, _name_of(key))
        factors = (self._off_by, 1 / self._off_by)
        return map(operator.mul, times, _endless(lambda: rng.choice(factors, _BLOCK)))

    def _times(self, key: ProfileKey) -> Iterator[float]:
        machine = self._machine
        model, processor, batch, span, shape = key
        mean_s = machine.profile.expected_s(model, processor, batch=batch, span=span, shape=shape)
        if mean_s is None:
            raise InvariantError(f"{processor!r} was given {model!r}, which it cannot run")
        cv = machine.spreads.get((model, processor), 0.0)
        samples = _samples(self._entries[model, processor, span], key, mean_s)
        if self._deterministic or (cv == 0 and len(samples) == 1):
            return repeat(mean_s)
        rng = generator(self._seed, Purpose.SERVICE, _name_of(key))
        if cv:
            k = cv**-2
            return _endless(lambda: rng.gamma(k, mean_s / k, _BLOCK))
        return _endless(lambda: rng.choice(samples, _BLOCK))


def _name_of(key: ProfileKey) -> str:
    """Return what tells the random numbers of these executions from those of others."""
    sizes = f"~{key.shape}" if key.shape else ""
    return f"{key.model}@{key.processor}[{key.span.first}..{key.span.last}]x{key.batch}{sizes}"


def _samples(
    entries: Iterable[tuple[ProfileKey, Measurement]], wanted: ProfileKey, mean_s: float
) -> npt.NDArray[np.float64]:
    """Return what was measured, at the nearest size and scaled to the mean of the wanted one."""
    known = [
        (abs(key.shape - wanted.shape), abs(key.batch - wanted.batch), key.batch, entry)
        for key, entry in entries
    ]
    *distance, _, nearest = min(known, key=lambda item: item[:3])
    seconds = np.array(nearest.seconds)
    return seconds if not any(distance) else seconds * (mean_s / nearest.mean_s)


def _endless(draw: Callable[[], npt.NDArray[np.float64]]) -> Iterator[float]:
    return chain.from_iterable(iter(lambda: draw().tolist(), None))
