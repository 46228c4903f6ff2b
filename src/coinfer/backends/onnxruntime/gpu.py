"""Gpu: what the sessions of one NVIDIA GPU have in common. Not measured on a GPU yet.

A CUDA graph is recorded in a mode in which no other thread of the process may take memory of a GPU
or copy to it (`cudaStreamCaptureModeGlobal`): so nothing else runs while a session records.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from coinfer.backends.device_faults import LOST_DEVICES, LostDevices

__all__ = ["Gpu", "Relieved"]


class Relieved(Protocol):
    """A session that holds memory which it does not need now."""

    def give_back(self) -> None:
        """Give it back, unless something runs there."""
        ...


class Gpu:
    """A GPU, as its sessions see it.

    Args:
        name: The device, e.g. `CUDA:0`.
        lost: Where lost devices are noted.

    Attributes:
        name: The device.
        number: Which one it is for CUDA.
        lost: Where lost devices are noted.

    >>> Gpu("CUDA:1").number
    1
    """

    def __init__(self, name: str, lost: LostDevices = LOST_DEVICES) -> None:
        self.name = name
        self.number = int(name.partition(":")[2] or 0)
        self.lost = lost
        self._sessions: weakref.WeakSet[Relieved] = weakref.WeakSet()
        self._changed = threading.Condition()
        self._running = 0
        self._recorders = 0
        self._is_recording = False

    def enter(self, session: Relieved) -> None:
        """Note that a session has memory there; it leaves when nobody holds it any more."""
        with self._changed:
            self._sessions.add(session)

    def relieve(self) -> None:
        """Have all sessions give back what they do not need now. The caller runs nothing."""
        with self._changed:
            sessions = list(self._sessions)
        for session in sessions:
            session.give_back()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run, load or close something inside; nothing is recorded meanwhile. Not to be nested."""
        with self._changed:
            while self._recorders:
                self._changed.wait()
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record something inside; nothing else runs meanwhile. Not to be nested."""
        with self._changed:
            self._recorders += 1  # what comes now waits, or the recorder might for ever
        is_first = False
        try:
            with self._changed:
                while self._running or self._is_recording:
                    self._changed.wait()
                self._is_recording = is_first = True
            yield
        finally:
            with self._changed:
                self._recorders -= 1
                self._is_recording = self._is_recording and not is_first
                self._changed.notify_all()
