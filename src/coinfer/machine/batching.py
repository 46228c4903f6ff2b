"""Batching: how far requests of a model may share executions. `core.riders` has the rule."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Batching"]


class Batching(NamedTuple):
    """How far requests of a model may share executions.

    Attributes:
        most: Samples that one execution serves at most.
        max_delay_s: Seconds for which a request may be held back until others come; 0: only those
            with a deadline are, where that pays.
    """

    most: int
    max_delay_s: float = 0.0
