"""Heterogeneous earliest finish time: the most demanding request first, or it yields.

Rule (Band, MobiSys 2022, after Topcuoglu et al., 2002): every waiting request in the window is
scheduled step by step, waits for busy processors counted. The one whose soonest finish is the
latest goes first. If the processor of its first step is free, the step starts; if it is busy, the
request yields: that processor's wait grows by the step's time, and the next request is considered.
A slow free processor so never takes what a fast busy one would finish sooner. Short requests wait
as long as more demanding ones keep coming.
"""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.core.request import Request
from coinfer.policies.planned import PlannedMapping

__all__ = ["Heft"]


@dataclass(slots=True, kw_only=True)
class Heft(PlannedMapping):
    """Serve first what would finish last; the option is that of `PlannedMapping`."""

    def order(self, _request: Request, finish_s: float) -> float:
        """Order by the soonest finish, the latest first."""
        return -finish_s
