"""Max-min: of the earliest completions of all that waits, the latest is started first.

Rule (Ibarra and Kim, 1977; Maheswaran et al., 1999): of all that waits, the request whose earliest
completion time is greatest goes first, to the processor of that completion: long requests are not
left for the end, where nothing could run beside them. Waiting for a busy processor counts; how
reservations are made is in `policies.mapping`. Short requests wait as long as long ones keep
coming, hence `patience_s`.
"""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.policies.mapping import Completion, ListMapping

__all__ = ["MaxMin"]


@dataclass(slots=True, kw_only=True)
class MaxMin(ListMapping):
    """Serve first what would complete last; options are those of `ListMapping`."""

    def order(self, completion: Completion) -> float:
        """Order by the earliest completion, the greatest first."""
        return -completion.completion_s
