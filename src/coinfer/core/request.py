"""Request: one inference that a caller asked for. A value; it knows not how far it has come."""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

__all__ = ["OnLate", "Outcome", "Request"]


class OnLate(enum.Enum):
    """What to do with a request whose deadline passes before it has started."""

    RUN = "run"
    DROP = "drop"


class Outcome(enum.Enum):
    """How a request was answered. Each request gets exactly one."""

    COMPLETED = "completed"
    DROPPED = "dropped"
    """The deadline passed, or could not be met, before the start."""
    REJECTED = "rejected"
    """The admission limit was reached, or the engine no longer takes requests."""
    FAILED = "failed"
    CANCELLED = "cancelled"


class Request(NamedTuple):
    """One inference that a caller asked for.

    A named tuple, as events and commands are: one is made per request.

    Attributes:
        id: Unique in an engine; larger means submitted later.
        model: Name of a model that is loaded.
        arrival_s: The moment it was due, in the engine's time. Latency counts from here.
        deadline_s: The moment it must be answered, in the engine's time; infinite means none.
        priority: Larger is more urgent.
        on_late: What to do if the deadline passes before the start.
        batch: Samples in the request, as the caller stacked them.
        shape: The class of its sizes; 0 is that of the model's smallest sample, and of all requests
            to a model without other open dimensions than the batch.
        sizes: The number of its exact sizes: only requests of equal sizes can be stacked.
    """

    id: int
    model: str
    arrival_s: float
    deadline_s: float = math.inf
    priority: int = 0
    on_late: OnLate = OnLate.RUN
    batch: int = 1
    shape: int = 0
    sizes: int = 0

    @property
    def is_urgent(self) -> bool:
        """Whether it has a deadline, or a priority above that of others."""
        return self.deadline_s < math.inf or self.priority > 0
