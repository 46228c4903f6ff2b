"""Answer counts: what became of one model's requests. Written for every answer, so it is quick."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from coinfer.core.request import Outcome

__all__ = ["LAST", "AnswerCounts"]

LAST = 1024
"""Latencies are kept of so many requests per model: those that were completed last."""


@dataclass(slots=True, eq=False)
class AnswerCounts:
    """Counts of one model since the engine's start.

    Attributes:
        completed: Requests answered with a result.
        late: Those of them answered after their deadline.
        others: Other answers, by outcome.
        variants: Of a model with several variants, how many of the completed each served.
        latencies_s: Seconds from due to answered, of the last completed requests.
        add_latency: Adds one.
    """

    completed: int = 0
    late: int = 0
    others: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=LAST))
    variants: dict[str, int] = field(default_factory=dict)
    add_latency: Callable[[float], None] = field(init=False)

    def __post_init__(self) -> None:
        """Look the method up once: this is the path of every request."""
        self.add_latency = self.latencies_s.append

    def with_others(self, outcome: Outcome, count: int) -> AnswerCounts:
        """Return them with so many more answers of a kind."""
        more = {**self.others, outcome: self.others[outcome] + count}
        return AnswerCounts(self.completed, self.late, more, self.latencies_s, self.variants)
