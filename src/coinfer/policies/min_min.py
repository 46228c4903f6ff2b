"""Min-min: of the earliest completions of all that waits, the earliest is started first.

Rule (Ibarra and Kim, 1977; Maheswaran et al., 1999): of all that waits, the request whose earliest
completion time is least goes first, to the processor of that completion. Waiting for a busy
processor counts; how reservations are made is in `policies.mapping`. Long requests wait as long as
short ones keep coming, hence `patience_s`.
"""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.policies.mapping import Completion, ListMapping

__all__ = ["MinMin"]


@dataclass(slots=True, kw_only=True)
class MinMin(ListMapping):
    """Serve first what completes first; options are those of `ListMapping`."""

    def order(self, completion: Completion) -> float:
        """Order by the earliest completion."""
        return completion.completion_s
