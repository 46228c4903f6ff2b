"""Crowding: how much longer everybody waits if runs are so wide, at the present load.

A run over several cores ends sooner and takes more core-seconds than one over a single core, which
others then miss. What that costs depends on how busy the machine is. Were all runs of that width, a
machine of `n` cores would be `m = n / width` servers at a utilisation `u`, the offered load times
what the width adds to the work; requests would then wait `u ** (sqrt(2 (m + 1)) - 1) / (m (1 - u))`
service times on average (Sakasegawa, Annals of the Institute of Statistical Mathematics 29, 1977),
if they come at random and take exponential times. What comes more or less evenly than that waits
half its dispersion times as long (`coinfer.policies.dispersion`).

What preempts a run stops it as a whole, on whichever of its cores, so a wide run is stopped more
often. How much is preempted is what was seen: few are urgent enough where cores are free.
"""

from __future__ import annotations

import math

from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.policies.dispersion import AT_RANDOM, Dispersion

__all__ = ["Crowding", "crowded"]

_FEWEST = 256
"""Arrivals that the means of gaps and of work go back at least: their ratio is then known within
some 6 % where requests come at random."""

_PER_UNIT = 16
"""The same per core: many cores answer soon up to nearly all that they can do, so the load must be
known better."""

_REFRESH = 256
"""Arrivals after which the work of a request is asked for again: it is learnt."""

_MOST = 0.98
"""Utilisation above which a width counts as if it were this, times what it is above it."""


class Crowding:
    """Watches requests come, and tells what a width costs at that load.

    Attributes:
        load: Core-seconds that come per second and core, each request on its cheapest processor.
        preempting: Core-seconds per second and core of what preempts others.
    """

    __slots__ = (
        "_count",
        "_dispersion",
        "_gap_s",
        "_last_s",
        "_n_units",
        "_preempted_s",
        "_preempting_s",
        "_weight",
        "_work_s",
        "_works",
        "load",
        "preempting",
    )

    def __init__(self) -> None:
        self.load = self.preempting = 0.0
        self._count = 0
        self._dispersion = Dispersion()
        self._last_s = -math.inf
        self._gap_s = 0.0
        self._work_s = 0.0
        self._n_units = 1
        self._preempted_s = 0.0
        self._preempting_s = 0.0
        self._weight = 1.0
        self._works: dict[tuple[str, int, int], float] = {}

    def note(self, request: Request, now: float, view: View) -> None:
        """Take note of a request that came just now."""
        if self._count % _REFRESH == 0:
            if not self._count:
                self._preempted_s = view.preempted_s  # before, another policy may have decided
            self._works.clear()
            self._n_units = view.n_units
            self._weight = 1 / max(_FEWEST, _PER_UNIT * self._n_units)
        self._count += 1
        key = (request.model, request.batch, request.shape)
        work_s = self._works.get(key)
        if work_s is None:
            lane = view.entrance(request.model, request.batch, request.shape)
            work_s = self._works[key] = view.least_unit_seconds(lane)
        if work_s == math.inf:
            return
        least_weight = self._weight
        weight = max(least_weight, 1 / self._count)
        self._work_s += weight * (work_s - self._work_s)
        preempted_s = view.preempted_s
        self._preempting_s += weight * (preempted_s - self._preempted_s - self._preempting_s)
        self._preempted_s = preempted_s
        if self._last_s > -math.inf:
            gap_s = now - self._last_s
            self._gap_s += max(least_weight, 1 / (self._count - 1)) * (gap_s - self._gap_s)
            if self._gap_s > 0 and self._work_s > 0:
                self._dispersion.note(work_s / self._work_s, gap_s / self._gap_s)
        self._last_s = now
        if self._gap_s > 0:
            self.load = self._work_s / (self._gap_s * self._n_units)
            self.preempting = self._preempting_s / (self._gap_s * self._n_units)

    def factor(self, width: int, growth: float) -> float:
        """Return how many times its service time a request takes with the wait that follows.

        Args:
            width: Cores of the run.
            growth: Core-seconds of the run divided by the least that the request can take.

        >>> idle = Crowding()
        >>> idle.factor(4, 1.5)
        1.0
        """
        busy = self.load * growth
        return crowded(busy, self._n_units / width, self._dispersion.at(busy))

    def stall(self, width: int) -> float:
        """Return how many times longer a run of so many cores takes for what preempts it.

        >>> calm = Crowding()
        >>> calm.stall(4)
        1.0
        """
        return 1.0 + self.preempting * width


def crowded(busy: float, servers: float, dispersion: float = AT_RANDOM) -> float:
    """Return how many times its service time a request takes, the wait included.

    Args:
        busy: Utilisation of the servers, which may be above 1.
        servers: How many there are.
        dispersion: Of what comes: squared coefficients of variation of gaps and of work, summed.

    >>> round(crowded(0.5, 1.0), 6), crowded(0.0, 8.0)
    (2.0, 1.0)
    """
    if busy <= 0.0:
        return 1.0
    excess = max(1.0, busy / _MOST)
    busy = min(busy, _MOST)
    wait = math.pow(busy, math.sqrt(2.0 * (servers + 1.0)) - 1.0) / (servers * (1.0 - busy))
    return (1.0 + dispersion / 2.0 * wait) * excess * excess
