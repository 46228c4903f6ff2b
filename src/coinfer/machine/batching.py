"""Batching: how far requests of a model may share executions. `core.riders` has the rule."""

from __future__ import annotations

from typing import NamedTuple

from coinfer.machine.span import Span

__all__ = ["Batching"]


class Batching(NamedTuple):
    """How far requests of a model may share executions.

    Attributes:
        most: Samples that one execution serves at most.
        max_delay_s: Seconds for which a request may be held back until others come; 0: only those
            with a deadline are, where that pays.
        by_unit: Of a model that is cut, samples that one execution of each unit serves at most;
            none: `most` of all.

    >>> Batching(8, by_unit=(2, 8, 8)).at(Span(0, 1)), Batching(8).at(Span(0, 1))
    (2, 8)
    """

    most: int
    max_delay_s: float = 0.0
    by_unit: tuple[int, ...] = ()

    def at(self, span: Span) -> int:
        """Return how many samples one execution of a span serves at most."""
        return min(self.by_unit[span.first : span.last + 1], default=self.most)
