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
        planned: Says how many requests per second, by model, the processors that are loaded were
            chosen for; empty: that is not known, or somebody else sees to it.
        submitted: Counts requests by model since the start.
        warnings: Where to say it.
        plan: Name of the plan.
    """

    def __init__(
        self,
        planned: Callable[[], Mapping[str, float]],
        submitted: Callable[[], Mapping[str, int]],
        warnings: EngineWarnings,
        plan: str,
    ) -> None:
        self._drift = RateDrift({})
        self._planned = planned
        self._submitted = submitted
        self._warnings = warnings
        self._plan = plan
        self._off: dict[str, float] = {}
        self._look_s = clock.now()

    def due_in_s(self) -> float:
        """Return the seconds until it wants to be called; 0 if it does now."""
        return max(0.0, self._look_s - clock.now())

    def look(self) -> None:
        """Compare, and say what is far off: one sentence, whatever models it is about."""
        now = clock.now()
        self._look_s = now + WINDOW_S
        planned = self._planned()
        if planned != self._drift.planned:
            self._drift, self._off = RateDrift(planned), {}
        found = self._drift.note(self._submitted(), now)
        if not found:
            return
        self._off |= found
        rates = ", ".join(
            f"{name} at {rate:.3g}/s and not {planned[name]:.3g}/s"
            for name, rate in self._off.items()
        )
        self._warnings.put(
            "rates",
            f"requests come at other rates than the processors of plan {self._plan!r} were chosen "
            f"for: {rates}; what is loaded stays. Write these rates into the scenario, and plan "
            "anew: `coinfer plan SCENARIO -o FOLDER`",
        )
