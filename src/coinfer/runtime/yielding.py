"""Yielding: the threads that give way to express processors, from the first time one is used.

Until then they have normal priority: whoever asks for nothing urgent shares the machine with other
programs as usual. There is no way back for a thread, but fresh ones can take its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from coinfer.threads.priority import (
    lower_current_thread,
    lower_marked,
    mark_current_thread,
    mark_of_current_thread,
)

__all__ = ["Yielding"]

_numbers = count()
_APART = "coinfer"


class Yielding:
    """The threads of one engine that work on what express processors overlay.

    Attributes:
        is_lowering: Whether those that join give way.
        has_begun: Whether any of them gives way: those that joined before the end may do so still.
    """

    def __init__(self) -> None:
        self._mark = _new_mark()
        self._marks = {self._mark}
        self.is_lowering = self.has_begun = False

    def join(self) -> None:
        """Let the calling thread, and what it starts, be among them."""
        # In this order: a thread that `begin` does not see sees that it has begun.
        mark_current_thread(self._mark)
        if self.is_lowering:
            lower_current_thread()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Let what the calling thread starts meanwhile not be among them, whoever calls.

        A worker owns the core now and then. What it starts has its mark, and would give way too.
        """
        is_among = mark_of_current_thread() in self._marks
        if is_among:
            mark_current_thread(_APART)
        try:
            yield
        finally:
            if is_among:
                self.join()

    def begin(self) -> None:
        """Give way from now on."""
        if not self.is_lowering:
            self.is_lowering = self.has_begun = True
            lower_marked(self._mark)

    def end(self) -> None:
        """Let those that join from now on keep their priority, until it begins again."""
        self._mark = _new_mark()  # those of before are lowered already
        self._marks.add(self._mark)
        self.is_lowering = False

    def note_all_left(self) -> None:
        """Note that none of those is left that joined before the end."""
        self.has_begun = self.is_lowering


def _new_mark() -> str:
    return f"coinfer~{next(_numbers) % 10**7}"
