"""Rate drift: whether requests come at other rates than a plan's processors were chosen for. Pure.

Counted are windows of `WINDOW_S`. A model is off in a window if so many of its requests came that
chance hardly explains it (`SURE` standard deviations of a Poisson process) and their rate is more
than `FAR` times the planned one, or less than one `FAR`th of it. The same models off in the same
direction in `IN_A_ROW` windows are a drift. A window in which nothing came tells nothing: whoever
rests has not changed the mix. So neither a burst nor a pause is a drift.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["FAR", "IN_A_ROW", "WINDOW_S", "RateDrift"]

WINDOW_S = 10.0
FAR = 2.0
SURE = 4.0
IN_A_ROW = 3


@dataclass(slots=True, eq=False)
class RateDrift:
    """Compares what comes with what was planned for.

    Attributes:
        planned: Requests per second by model.
        far: How many times more or less is far off.

    >>> drift = RateDrift({"front": 30.0})
    >>> [drift.note({"front": 1000 * n}, 10.0 * n) for n in range(5)]
    [{}, {}, {}, {'front': 100.0}, {'front': 100.0}]
    """

    planned: Mapping[str, float]
    far: float = FAR
    _before: Mapping[str, int] = field(default_factory=dict, init=False)
    _since_s: float = field(default=math.nan, init=False)
    _off: dict[str, int] = field(default_factory=dict, init=False)

    def note(self, submitted: Mapping[str, int], now: float) -> dict[str, float]:
        """Take note of how many requests of each model came until now.

        Args:
            submitted: By model, since the start.
            now: In seconds.

        Returns:
            The models that have drifted, with their requests per second in the last window.
        """
        seconds = now - self._since_s
        came = {name: submitted.get(name, 0) - self._before.get(name, 0) for name in self.planned}
        self._before, self._since_s = dict(submitted), now
        if not (seconds > 0 and any(came.values())):  # the first, or nobody asked for anything
            return {}
        found = {}
        for name, rate in self.planned.items():
            way = _way(came[name], rate * seconds, self.far)
            row = self._off.get(name, 0)
            # A row of windows above counts up from 0, one below down.
            self._off[name] = row + way if way * row >= 0 and way else way
            if abs(self._off[name]) >= IN_A_ROW:
                found[name] = came[name] / seconds
        return found


def _way(came: int, expected: float, far: float) -> int:
    """Return 1 if far more came than expected, -1 if far fewer, else 0."""
    if abs(came - expected) <= SURE * math.sqrt(max(came, expected)):
        return 0
    return int(came > far * expected) - int(far * came < expected)
