"""Interruption: notes that the user pressed Ctrl-C, where an exception would do damage.

A `KeyboardInterrupt` may appear between any two steps of the main thread, also while that thread
owns the core: its state would be lost. Knows no engine.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

__all__ = ["Interruption"]


class Interruption:
    """While entered, the first SIGINT is only noted; a second one acts as usual.

    Outside the main thread, which alone gets signals, it notes nothing.

    Attributes:
        requested: Whether the signal came.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None
        self._entered = False

    def __enter__(self) -> Self:
        """Take over the signal."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
            self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._give_back()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self._give_back()

    def _give_back(self) -> None:
        if self._entered:
            self._entered = False
            # None: the handler before was not set from Python and cannot be set from it.
            signal.signal(signal.SIGINT, self._before or signal.SIG_DFL)
