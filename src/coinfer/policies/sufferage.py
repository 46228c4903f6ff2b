"""Sufferage: first what would lose most if it did not get its best processor.

Rule (Maheswaran et al., 1999): a request's sufferage is how much later it would complete on its
second best processor than on its best. The request with the greatest goes first, to its best
processor: it would suffer most if that were taken. What only one processor can run goes before all
others there. The sufferages are computed anew after each request, where the publication first gives
every processor one request. Waiting for a busy processor counts; how reservations are made is in
`policies.mapping`. What suffers little may wait for ever, hence `patience_s`.
"""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.policies.mapping import Completion, ListMapping

__all__ = ["Sufferage"]


@dataclass(slots=True, kw_only=True)
class Sufferage(ListMapping):
    """Serve first what would lose most elsewhere; options are those of `ListMapping`."""

    def order(self, completion: Completion) -> float:
        """Order by the sufferage, the greatest first."""
        return -completion.sufferage_s
