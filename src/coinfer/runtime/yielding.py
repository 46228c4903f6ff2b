"""Yielding: the threads that give way to express processors, from the first time one is used.

Until then they have normal priority: whoever asks for nothing urgent shares the machine with other
programs as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TypeVar

from coinfer.threads.priority import (
    call_marked,
    lower_current_thread,
    lower_marked,
    mark_current_thread,
)

__all__ = ["Yielding"]

R = TypeVar("R")

_numbers = count()


class Yielding:
    """The threads of one engine that work on what express processors overlay.

    Attributes:
        has_begun: Whether they give way.
    """

    def __init__(self) -> None:
        self._mark = f"coinfer~{next(_numbers) % 10**7}"
        self.has_begun = False

    def join(self) -> None:
        """Let the calling thread, and what it starts, be among them."""
        # In this order: a thread that `begin` does not see sees that it has begun.
        mark_current_thread(self._mark)
        if self.has_begun:
            lower_current_thread()

    def call(self, call: Callable[[], R]) -> R:
        """Call so that the threads that it starts are among them.

        Raises:
            Exception: what the call raised.
        """
        return call_marked(self._mark, call, lowered=self.has_begun)

    def begin(self) -> None:
        """Give way from now on."""
        if not self.has_begun:
            self.has_begun = True
            lower_marked(self._mark)
