"""The load of `batching.py`: what is asked when, and what became of it. Knows no way to serve."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

__all__ = [
    "UNDER_WAY",
    "WAIT_S",
    "Ask",
    "Asks",
    "Result",
    "Serving",
    "in_shares",
    "played",
    "poisson",
    "result_of",
    "saturated",
]

UNDER_WAY = 64
WAIT_S = 60.0


class Ask(NamedTuple):
    """One request: of which network, which of its feeds, and within how many seconds (0: any)."""

    name: str
    feed: int
    deadline_s: float = 0.0


Asks = Sequence[tuple[float, Ask]]
"""Requests with the seconds after the start at which they are due."""


class Serving(Protocol):
    """A way to serve inside this process."""

    def ask(self, ask: Ask, done: Callable[[bool], None]) -> None:
        """Take a request; tell, from any thread, when it is over, and whether it was answered."""

    def settle(self) -> None:
        """Wait until all are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One contestant in one round.

    Attributes:
        per_s: Answers per second.
        latencies_s: By network, of what was answered, from the moment that it was due.
        in_time: By network, how many were answered by their deadlines; without deadlines all.
        asked: By network, how many requests there were.
    """

    per_s: float
    latencies_s: Mapping[str, Sequence[float]]
    in_time: Mapping[str, int]
    asked: Mapping[str, int]

    @classmethod
    def of_rate(cls, per_s: float) -> Result:
        """Of what answers so much, and nobody in particular."""
        return cls(per_s=per_s, latencies_s={}, in_time={}, asked={})

    @property
    def share_in_time(self) -> float:
        """Of all requests."""
        return sum(self.in_time.values()) / max(1, sum(self.asked.values()))

    def quantile_ms(self, share: float) -> float:
        """Return a quantile of the latencies of all networks; infinite if nothing was answered."""
        everyone = [each for latencies in self.latencies_s.values() for each in latencies]
        return float(np.quantile(everyone, share)) * 1e3 if everyone else math.inf


def result_of(asks: Asks, latencies_s: Sequence[float | None], took_s: float) -> Result:
    """Sum up what became of each request; None: it was not answered."""
    names = sorted({ask.name for _, ask in asks})
    found: dict[str, list[float]] = {name: [] for name in names}
    asked, in_time = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for (_, ask), latency_s in zip(asks, latencies_s, strict=True):
        asked[ask.name] += 1
        if latency_s is None:
            continue
        found[ask.name].append(latency_s)
        in_time[ask.name] += not ask.deadline_s or latency_s <= ask.deadline_s
    per_s = sum(map(len, found.values())) / took_s
    return Result(per_s=per_s, latencies_s=found, in_time=in_time, asked=asked)


def poisson(
    rates_per_s: Mapping[str, float],
    feeds: Mapping[str, int],
    seconds: float,
    seed: int,
    deadlines_s: Mapping[str, float],
) -> Asks:
    """Return Poisson arrivals of all networks; of one with several feeds, any of them comes."""
    rng = np.random.default_rng(seed)
    asks = []
    for name, rate_per_s in rates_per_s.items():
        at_s = 0.0
        while (at_s := at_s + rng.exponential(1 / rate_per_s)) < seconds:
            feed = int(rng.integers(feeds[name]))
            asks.append((at_s, Ask(name, feed, deadlines_s.get(name, 0.0))))
    return sorted(asks)


def in_shares(rates_per_s: Mapping[str, float], feeds: Mapping[str, int]) -> Iterator[Ask]:
    """Return requests without end, of which each network has its share."""
    asked = dict.fromkeys(rates_per_s, 0)
    while True:
        name = min(asked, key=lambda each: asked[each] / rates_per_s[each])
        yield Ask(name, asked[name] % feeds[name])
        asked[name] += 1


def played(serving: Serving, asks: Asks) -> Result:
    """Ask at these moments; latency counts from the moment at which a request was due."""
    latencies_s: list[float | None] = [None] * len(asks)
    begin_s = time.perf_counter() + 0.01

    def noting(at: int, due_s: float) -> Callable[[bool], None]:
        def done(is_answered: bool) -> None:
            if is_answered:
                latencies_s[at] = time.perf_counter() - due_s

        return done

    for at, (after_s, ask) in enumerate(asks):
        due_s = begin_s + after_s
        while (left_s := due_s - time.perf_counter()) > 0:
            time.sleep(left_s)
        serving.ask(ask, noting(at, due_s))
    serving.settle()
    return result_of(asks, latencies_s, time.perf_counter() - begin_s)


def saturated(serving: Serving, asks: Iterator[Ask], seconds: float) -> Result:
    """Keep requests under way for so long."""
    begin_s, counts, lock = time.perf_counter(), dict[str, int](), threading.Lock()
    slots = threading.Semaphore(UNDER_WAY)

    def counting(name: str) -> Callable[[bool], None]:
        def done(_is_answered: bool) -> None:
            with lock:
                counts[name] = counts.get(name, 0) + 1
            slots.release()

        return done

    while time.perf_counter() < begin_s + seconds:
        slots.acquire()
        ask = next(asks)
        serving.ask(ask, counting(ask.name))
    serving.settle()
    per_s = sum(counts.values()) / (time.perf_counter() - begin_s)
    return Result(per_s=per_s, latencies_s={}, in_time=counts, asked=counts)


def median_of(results: Sequence[Result], figure: Callable[[Result], float]) -> float:
    """Return the median of a figure over the rounds."""
    return statistics.median(map(figure, results))
