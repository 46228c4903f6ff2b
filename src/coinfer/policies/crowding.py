"""Crowding: how much longer everybody waits if runs are so wide, at the present load.

A run over several cores ends sooner and takes more core-seconds than one over a single core, which
others then miss. What that costs depends on how busy the machine is. Were all runs of that width, a
machine of `n` cores would be `m = n / width` servers at a utilisation `u`, the offered load times
what the width adds to the work; requests would then wait `u ** (sqrt(2 (m + 1)) - 1) / (m (1 - u))`
service times on average (Sakasegawa, Annals of the Institute of Statistical Mathematics 29, 1977),
if they come at random and take exponential times. What comes more or less evenly than that waits
half its dispersion times as long (`coinfer.policies.dispersion`).

The width with which a request would be answered soonest then is its usual one. What a single run
costs the others depends on how many cores are free just now, were all others of their usual widths:
that is its price (`coinfer.policies.prices`). The load is known within its standard error only, and
near 1 prices rise so steeply that their mean is not that of the mean load. So they are the mean of
those one error above and below it. Usual widths and prices are computed anew when it has moved by
half of that: near the load at which a width is no longer the best, all keep to it until then. A
second counts by the share by which it slows a request down (`Crowding.patience`).

What preempts a run stops it as a whole, on whichever of its cores, so a wide run is stopped more
often. How much is preempted is what was seen: few are urgent enough where cores are free.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from coinfer.core.lane import Lane
from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.policies.dispersion import AT_RANDOM, Dispersion
from coinfer.policies.prices import Prices, prices_of

__all__ = ["Crowding", "Usual", "crowded"]

_INF = math.inf

_FEWEST = 256
"""Arrivals that the means of gaps and of work go back at least: their ratio is then known within
some 6 % where requests come at random."""

_PER_UNIT = 16
"""The same per core: many cores answer soon up to nearly all that they can do, so the load must be
known better."""

_REFRESH = 256
"""Arrivals after which the work of a request is asked for again: it is learnt."""

_MOVED = 0.5
"""Standard errors by which the load has to move until widths and prices are computed anew."""

_MOST = 0.98
"""Utilisation above which a width counts as if it were this, times what it is above it."""


class Usual(NamedTuple):
    """How a request would run if all runs were so wide.

    Attributes:
        width: Cores of the run.
        seconds: What it takes.
        least_work_s: The fewest core-seconds that it takes at any width; infinite if none runs it.
    """

    width: int
    seconds: float
    least_work_s: float


_NOWHERE = Usual(1, 0.0, _INF)


class Crowding:
    """Watches requests come, and tells what a width costs at that load.

    Attributes:
        load: Core-seconds that come per second and core, each request on its cheapest processor.
        preempting: Core-seconds per second and core of what preempts others.
    """

    __slots__ = (
        "_count",
        "_dispersion",
        "_error",
        "_gap_s",
        "_haste",
        "_last_s",
        "_n_units",
        "_preempted_s",
        "_preempting_s",
        "_prices",
        "_settled",
        "_usual_s",
        "_usual_work_s",
        "_usuals",
        "_wait_s",
        "_weight",
        "_work_s",
        "load",
        "preempting",
    )

    def __init__(self) -> None:
        self.load = self.preempting = 0.0
        self._count = 0
        self._dispersion = Dispersion()
        self._last_s = -_INF
        self._gap_s = 0.0
        self._work_s = 0.0
        self._n_units = 1
        self._preempted_s = 0.0
        self._preempting_s = 0.0
        self._prices: Prices | None = None
        self._settled = self._error = 0.0
        self._usual_s = self._usual_work_s = 0.0
        self._usuals: dict[Lane, Usual] = {}
        self._haste = self._wait_s = 0.0
        self._weight = 1.0

    def note(self, request: Request, now: float, view: View) -> None:
        """Take note of a request that came just now."""
        if self._count % _REFRESH == 0:
            if not self._count:
                self._preempted_s = view.preempted_s  # before, another policy may have decided
            self._n_units = view.n_units
            self._weight = 1 / max(_FEWEST, _PER_UNIT * self._n_units)
            self._settle()
        elif not self._count & (self._count - 1):
            self._settle()  # the first few tell the most
        self._count += 1
        lane = view.entrance(request.model, request.batch, request.shape)
        width, usual_s, work_s = self._usuals.get(lane) or self.usual(view, lane)
        if work_s == _INF:
            return
        least_weight = self._weight
        weight = max(least_weight, 1 / self._count)
        self._work_s += weight * (work_s - self._work_s)
        self._usual_s += weight * (usual_s - self._usual_s)
        self._usual_work_s += weight * (usual_s * width - self._usual_work_s)
        if usual_s > 0.0:
            self._haste += weight * (1.0 / (usual_s + self._wait_s) - self._haste)
        preempted_s = view.preempted_s
        self._preempting_s += weight * (preempted_s - self._preempted_s - self._preempting_s)
        self._preempted_s = preempted_s
        if self._last_s > -_INF:
            gap_s = now - self._last_s
            self._gap_s += max(least_weight, 1 / (self._count - 1)) * (gap_s - self._gap_s)
            if self._gap_s > 0 and self._work_s > 0:
                self._dispersion.note(work_s / self._work_s, gap_s / self._gap_s)
        self._last_s = now
        if self._gap_s > 0:
            self.load = self._work_s / (self._gap_s * self._n_units)
            self.preempting = self._preempting_s / (self._gap_s * self._n_units)
            if abs(self.load - self._settled) > _MOVED * self._error * self._settled:
                self._settle()

    def _settle(self) -> None:
        """Let widths and prices follow the load; what they go by is computed when it is needed."""
        self._usuals.clear()
        self._prices = None
        self._settled = self.load
        variance = max(self._weight / 2.0, 1.0 / max(self._count, 1))  # of a mean, by one's
        self._error = math.sqrt(self._dispersion.at(1.0) * variance)

    def usual(self, view: View, lane: Lane) -> Usual:
        """Return how the head of a lane would run if all runs were so wide, at the present load."""
        found = self._usuals.get(lane)
        if found is None:
            found = self._usuals[lane] = self._soonest(view, lane)
        return found

    def _soonest(self, view: View, lane: Lane) -> Usual:
        seconds = view.resident_s(lane)
        found, shortest_s, least_work_s = _NOWHERE, _INF, _INF
        for alike in view.alike:
            least_s = alike.least_s(seconds)
            if least_s == _INF:
                continue
            work_s = least_s * alike.width
            if work_s < least_work_s:
                least_work_s = work_s
            total_s = least_s
            if work_s > 0.0:
                total_s *= self.factor(alike.width, work_s / least_work_s)
            if total_s < shortest_s:
                shortest_s, found = total_s, Usual(alike.width, least_s, least_work_s)
        return found._replace(least_work_s=least_work_s)

    def factor(self, width: int, growth: float) -> float:
        """Return how many times its service time a request takes with the wait that follows.

        Args:
            width: Cores of the run.
            growth: Core-seconds of the run divided by the least that the request can take.

        >>> idle = Crowding()
        >>> idle.factor(4, 1.5)
        1.0
        """
        return self._crowded(self.load * growth, self._n_units / width)

    def _crowded(self, busy: float, servers: float) -> float:
        return crowded(busy, servers, self._dispersion.at(busy))

    def prices(self, n_units: int) -> Prices:
        """Return what cores cost at the present load.

        Args:
            n_units: How many cores there are.
        """
        found = self._prices
        if found is None or len(found.waits) != n_units + 1:
            found = self._prices = self._priced(n_units)
        return found

    def _priced(self, n_units: int) -> Prices:
        if not self.load > 0.0 < self._usual_s:
            return Prices([0.0] * (n_units + 1), 1.0, 0.0, 0.0)
        busy = self.load * self._usual_work_s / self._work_s
        width = self._usual_work_s / self._usual_s
        self._wait_s = self._usual_s * (self._crowded(busy, n_units / width) - 1.0)
        around = (max(1.0 - self._error, 0.0) * busy, (1.0 + self._error) * busy)
        loads = [(min(u, _MOST), self._crowded(u, n_units / width) - 1.0) for u in around]
        return prices_of(loads, n_units, width, self._usual_s)

    def patience(self, usual: Usual) -> float:
        """Return how many times as long as others a request can wait to be slowed down as much.

        What counts is by which share of its usual time each is answered later: a second of waiting
        is more to what takes a millisecond than to what takes a tenth of a second.

        Args:
            usual: How it would run.
        """
        return (usual.seconds + self._wait_s) * self._haste

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
