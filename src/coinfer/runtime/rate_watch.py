"""Rate watch: says once if models are asked for at other rates than their plan was made for.

The timer's thread calls it every few seconds; requests do not know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coinfer.metrics.rate_drift import WINDOW_S, RateDrift
from coinfer.runtime import clock
from coinfer.runtime.engine_warnings import EngineWarnings

__all__ = ["RateWatch"]


class RateWatch:
    """Looks at how many requests came since it looked last.

    Args:
        planned: Requests per second by model that the plan's processors were chosen for.
        submitted: Counts requests by model since the start.
        warnings: Where to say it.
    """

    def __init__(
        self,
        planned: Mapping[str, float],
        submitted: Callable[[], Mapping[str, int]],
        warnings: EngineWarnings,
    ) -> None:
        self._drift = RateDrift(planned)
        self._submitted = submitted
        self._warnings = warnings
        self._look_s = clock.now()

    def due_in_s(self) -> float:
        """Return the seconds until it wants to be called; 0 if it does now."""
        return max(0.0, self._look_s - clock.now())

    def look(self) -> None:
        """Compare, and say what is far off."""
        now = clock.now()
        self._look_s = now + WINDOW_S
        for name, rate in self._drift.note(self._submitted(), now).items():
            planned = self._drift.planned[name]
            self._warnings.put(
                ("rates", name),
                f"{name}: {rate:.3g} requests/s come, and the plan's processors were chosen for "
                f"{planned:.3g}; plan anew with the rates of now (`coinfer plan`)",
            )
