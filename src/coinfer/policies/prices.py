"""Prices: how much longer others wait because some cores are held for some time.

One step of policy improvement (Howard, Dynamic Programming and Markov Processes, 1960) from the
best rule that does not look at the state, which is one width for all runs of a model at the present
load: Norman's method (Heuristic Procedures in Dynamic Programming, 1972), with which Krishnan joins
the right queue (IEEE Transactions on Automatic Control 35, 1990). By that rule a machine is `c`
servers that are busy for `u` of the time. What one more busy server adds to the waiting of all that
is to come, with `i` of them busy, follows from the balance of many servers with exponential times:
`D(0) = W` and `D(i) = W + i / (c u) D(i - 1)`, in service times; `W` is the mean wait. So cores
cost little while most are free, and several times as much when they are the last ones.

That holds for a server that is busy for an exponential time of mean `S`. What is held for less than
the gap between two ends of others, `S / c` when all are busy, costs less than its share: whoever
comes meanwhile waits for its end only. Of what is held for `s` seconds each one who finds all busy
waits for its end or another's, `s - (S / c) (1 - exp(-s c / S))` in all; over exponential times of
mean `S` that is `S S / (S + S / c)`, and the price goes by the ratio of the two.

Servers are groups of cores. A run narrower than that rule has it breaks such a group: what is left
of that is of use only to what is as narrow. So it takes as many cores as a server of the others
has, but no more than by the rule. Not while others wait, though: they take what is left. What
waits for `q` of the `n` cores, were all as wide as by the rule, and what comes meanwhile keep them
busy for `S q / n / (1 - u)`. For that share of a narrower run nothing is left over, and it takes
its own cores only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Prices", "prices_of", "rises"]

_expm1 = math.expm1


class Prices(NamedTuple):
    """What cores cost.

    Attributes:
        waits: What 0, 1, 2, ... busy cores of an idle machine cost, in seconds of others' waiting
            per second for which they are held.
        server: Cores of a server on average.
        gap_s: Seconds between two ends of runs when all cores are busy.
        queue_s: Seconds for which somebody waits, for each core that those who wait now need.
    """

    waits: Sequence[float]
    server: float
    gap_s: float
    queue_s: float

    def cost_s(
        self, free: int, width: int, usual: float, seconds: float, queued: float = 0.0
    ) -> float:
        """Return how many seconds all others together wait longer for a run.

        Args:
            free: Cores that are free; a run that needs more begins when there are as many.
            width: Cores of the run.
            usual: The same, did it not look at the state.
            seconds: How long it takes.
            queued: Cores that those who wait would take beyond the free ones, as wide as usual.

        >>> known = prices_of([(0.5, 0.25)], 2, 1.0, 1.0)
        >>> known.cost_s(2, 1, 1, 0.1) < known.cost_s(1, 1, 1, 0.1)
        True
        """
        gap_s = self.gap_s
        if not seconds > 0.0 < gap_s:
            return 0.0
        held_s = seconds + gap_s * _expm1(-seconds / gap_s)
        if width < usual and queued > 0.0:
            filled_s = queued * self.queue_s
            usual -= (usual - width) * (filled_s / seconds if filled_s < seconds else 1.0)
        least = self.server if self.server < usual else usual
        if width < least:
            width = int(least)
            if width < least:
                part = least - width
                more = part * self._beside(free, width + 1)
                return ((1.0 - part) * self._beside(free, width) + more) * held_s
        return self._beside(free, width) * held_s

    def _beside(self, free: int, width: int) -> float:
        waits = self.waits
        busy = len(waits) - 1 - (free if free > width else width)
        return waits[busy + width] - waits[busy]


def prices_of(
    loads: Sequence[tuple[float, float]], cores: int, width: float, service_s: float
) -> Prices:
    """Return what cores cost, on average over some loads that are as likely.

    Args:
        loads: Of each the utilisation, below 1, and the mean wait in service times.
        cores: How many there are.
        width: Cores of a server.
        service_s: Mean service time of a server.
    """
    servers = cores / width
    most = math.ceil(servers)
    mean = [0.0] * (most + 1)
    lasts = 0.0
    for busy, wait in loads:
        lasts += 1.0 / ((1.0 - busy) * len(loads))
        if wait > 0.0:
            share = wait / len(loads) * (1.0 + 1.0 / most)
            for i, rise in enumerate(rises(busy, servers)):
                mean[i] += share * rise
    waits = [_between(mean, core / width) for core in range(cores + 1)]
    return Prices(waits, width, service_s / most, service_s / cores * lasts)


def rises(busy: float, servers: float) -> Sequence[float]:
    """Return what 0, 1, 2, ... busy servers of an idle machine cost, as multiples of the wait.

    Args:
        busy: Utilisation, below 1 and above 0.
        servers: How many there are.

    >>> [round(each, 3) for each in rises(0.5, 2)]
    [0.0, 1.0, 3.0]
    """
    total = price = 0.0
    found = [total]
    offered = busy * servers
    for i in range(math.ceil(servers)):
        price = 1.0 + i / offered * price
        total += price
        found.append(total)
    return found


def _between(values: Sequence[float], at: float) -> float:
    below = min(int(at), len(values) - 2)
    return values[below] + (at - below) * (values[below + 1] - values[below])
