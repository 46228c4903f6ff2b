"""Terms: what one request to an ensemble was promised, and so each of its stages. A value."""

from __future__ import annotations

from typing import NamedTuple

from coinfer.core.request import OnLate
from coinfer.runtime import clock
from coinfer.runtime.arguments import moment, positive_seconds, to_on_late, whole

__all__ = ["Terms"]


class Terms(NamedTuple):
    """What all stages of a request share.

    Attributes:
        due_s: Moment from which latency and deadline count, in `clock.now()` time.
        deadline_s: Seconds from then by which the answer is wanted; None: no deadline.
        priority: Larger is more urgent.
        on_late: What becomes of a stage that has not begun when the deadline passes.
    """

    due_s: float
    deadline_s: float | None
    priority: int
    on_late: OnLate

    @classmethod
    def checked(
        cls, deadline_s: float | None, priority: int, on_late: OnLate | str, due_s: float | None
    ) -> Terms:
        """Make them of the arguments of `Engine.submit`.

        Raises:
            ConfigurationError: one of them makes no sense.
        """
        return cls(
            clock.now() if due_s is None else moment(due_s),
            None if deadline_s is None else positive_seconds("deadline_s", deadline_s),
            whole("priority", priority),
            to_on_late(on_late),
        )

    @property
    def is_too_late(self) -> bool:
        """Whether nothing may begin any more."""
        if self.deadline_s is None or self.on_late is OnLate.RUN:
            return False
        return clock.now() > self.due_s + self.deadline_s
