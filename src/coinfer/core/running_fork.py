"""Running fork: one request that runs in two executions at once. Knows no time and no processor.

The rules. Both sides of a fork start at the same moment. The request goes on after the fork when
both have ended well. If one fails, nothing happens until the other has ended too: then the request
is tried again from the border between the two if the left side ended well, else from the border
before both. Whatever ends is one attempt, also if both sides fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coinfer.core.progress import Progress
from coinfer.machine.span import Fork, Span

__all__ = ["RunningFork"]


@dataclass(slots=True, eq=False)
class RunningFork:
    """The two executions of a request.

    Attributes:
        progress: The request's.
        fork: Which spans they run.
        variant: Of what.
        left: Number of the execution of the left span; -1 before it starts.
        right: Number of the execution of the right span; -1 before it starts.
        done: Those of the two that ended well.
        failed: Those that failed.
    """

    progress: Progress
    fork: Fork
    variant: str
    left: int = -1
    right: int = -1
    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)

    def begin(self) -> int:
        """Note that a side has just been started, the left one first; return its execution."""
        number = self.progress.execution
        assert number is not None, "the side was not started"
        if self.left < 0:
            self.left = number
        else:
            self.right = number
        return number

    def end(self, number: int, *, well: bool) -> None:
        """Note that a side has ended; the request then runs in the other, or in none."""
        (self.done if well else self.failed).add(number)
        self.progress.execution = next(iter(self.running), None)

    @property
    def running(self) -> list[int]:
        """Numbers of the executions that have not ended."""
        both = (self.left, self.right)
        return [number for number in both if number not in self.done | self.failed]

    @property
    def reached(self) -> int:
        """The unit boundary up to which all is computed."""
        if self.left not in self.done:
            return self.fork.first
        return self.fork.middle if self.right not in self.done else self.fork.last + 1

    def left_behind_by(self, number: int) -> Span | None:
        """Return the span whose values are all that is needed once an execution ends well.

        None while more is: the other side may still need what was there before both, or may have
        to be run again.
        """
        other = self.right if number == self.left else self.left
        return self.fork.right if other in self.done else None
