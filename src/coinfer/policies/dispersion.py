"""Dispersion: how unevenly work comes, which is what makes requests wait.

By Kingman's formula (1961), and Allen and Cunneen's for many servers, the wait grows with the sum
of two squared coefficients of variation: that of the gaps between requests and that of their work.
It is the variance of the net work of a request: its work less its gap, each divided by its mean.
Taken over `n` requests in a row and divided by `n` it holds where they depend on one another, too
(the index of dispersion for work: Fendick and Whitt, Proceedings of the IEEE 77, 1989). The frames
of several cameras come at random if one looks at two of them, and evenly if one looks at many.

How many count depends on the load. The backlog after `n` requests is about
`sqrt(2 n I(n)) - n (1 - u) / u` service times, and the wait is its largest value over all `n`
(robust queueing: Whitt and You, Operations Research 66, 2018). Where `I` is the same for all `n`
this is Kingman's formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

__all__ = ["AT_RANDOM", "Dispersion"]

AT_RANDOM = 2.0
"""Of requests that come at random and take exponential times."""

_FACTOR = 4
_LEVELS = 4
"""Sums of 1, 4, 16 and 64 requests in a row are looked at."""

_TRUST = 16
"""`AT_RANDOM` counts as so many sums that were seen before the first one."""

_WEIGHT = 1 / 256
"""Of the last sum in the mean, once there were so many."""

_PAUSE = 32.0
"""A gap of more means counts as one of so many: that nothing was asked for is no burst."""

_GRID = 64
"""Utilisations are told apart in so many steps from 0 to 1."""

_LEAST_SPARE = 0.02
"""Of the work that comes, what the machine could do beside it at the highest utilisation."""

_REFRESH = 64
"""Requests after which the dispersion is computed anew."""


class Dispersion:
    """Watches the net work of requests.

    >>> evenly = Dispersion()
    >>> evenly.at(0.5)
    2.0
    >>> for _ in range(1024):
    ...     evenly.note(1.0, 1.0)
    >>> evenly.at(0.5) < 0.2
    True
    """

    __slots__ = ("_counts", "_found", "_noted", "_seen", "_sums", "_values")

    def __init__(self) -> None:
        self._noted = 0
        self._sums = [0.0] * _LEVELS
        self._seen = [0] * _LEVELS
        self._counts = [float(_TRUST)] * _LEVELS
        self._values = [AT_RANDOM] * _LEVELS
        self._found: dict[int, float] = {}

    @classmethod
    def of(cls, arrivals: Iterable[tuple[float, str]], work_s: Mapping[str, float]) -> Dispersion:
        """Return that of requests that are known.

        Args:
            arrivals: When they come, in seconds and in order, and their models.
            work_s: By model, the work of a request; others are left out.

        >>> Dispersion.of([(0.1 * n, "m") for n in range(1024)], {"m": 0.02}).at(0.5) < 0.2
        True
        """
        found = cls()
        known = [(at_s, work_s[model]) for at_s, model in arrivals if model in work_s]
        if len(known) < 2 or known[0][0] == known[-1][0]:
            return found
        gap_s = (known[-1][0] - known[0][0]) / (len(known) - 1)
        mean_s = math.fsum(work for _, work in known) / len(known)
        last_s = known[0][0]
        for at_s, work in known[1:]:
            found.note(work / mean_s, (at_s - last_s) / gap_s)
            last_s = at_s
        return found

    def note(self, work: float, gap: float) -> None:
        """Take note of a request.

        Args:
            work: Its work, as a multiple of the mean.
            gap: The time since the one before it, the same.
        """
        net = work - min(gap, _PAUSE)
        self._noted += 1
        if self._noted % _REFRESH == 0:
            self._found.clear()
        n = 1
        for level in range(_LEVELS):
            count = self._counts[level] = self._counts[level] + 1.0
            self._values[level] += max(_WEIGHT, 1.0 / count) * (net * net / n - self._values[level])
            if level + 1 == _LEVELS:
                return
            net = self._sums[level] = self._sums[level] + net
            self._seen[level] += 1
            if self._seen[level] < _FACTOR:
                return
            self._sums[level], self._seen[level] = 0.0, 0
            n *= _FACTOR

    def at(self, busy: float) -> float:
        """Return the dispersion, were it the same for all `n`, that makes requests wait as long.

        Args:
            busy: The utilisation.
        """
        key = int(busy * _GRID) if busy < 1.0 else _GRID
        found = self._found.get(key)
        if found is None:
            spare = max(_GRID / (key + 0.5) - 1.0, _LEAST_SPARE)
            found = self._found[key] = 2.0 * spare * self._backlog(spare)
        return found

    def _backlog(self, spare: float) -> float:
        """Return the largest backlog in service times.

        Args:
            spare: What the machine could do beside the work that comes, divided by that.
        """
        most, n = 0.0, 1.0
        for level, value in enumerate(self._values):
            # Sums between two levels are as those of the nearer one.
            least_n = n / 2 if level else 0.0
            most_n = n * 2 if level + 1 < _LEVELS else math.inf
            worst_n = min(max(value / (2.0 * spare * spare), least_n), most_n)
            most = max(most, math.sqrt(2.0 * worst_n * value) - spare * worst_n)
            n *= _FACTOR
        return most
