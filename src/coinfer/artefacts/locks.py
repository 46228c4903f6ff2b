"""Locks between processes, where the system has them: on folders in use, and on what is made.

They are `flock`s, which the system releases when a process ends in whatever way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

try:
    fcntl: Any = import_module("fcntl")
except ImportError:  # Windows: nobody can be asked, and open files cannot be removed there
    fcntl = None

__all__ = ["Locked", "alone", "exclusive", "shared"]

_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
"""Opening a FIFO in the place of a folder would wait for ever."""

_LOOK_S = 0.02
_TRIES, _TRY_S = 10, 0.002
"""Who only looks whether a folder is in use holds it for an instant."""


class Locked:
    """A lock that is held; given back by `close`, or with the last reference."""

    __slots__ = ("_file",)

    def __init__(self, file: int | None) -> None:
        self._file = file

    def is_of(self, folder: Path) -> bool:
        """Whether this is still the folder that is locked, and not a new one in its place.

        Of what does not say, it is.
        """
        if self._file is None:
            return True
        there, mine = folder.stat(), os.fstat(self._file)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def close(self) -> None:
        """Give it back; calling it twice is fine."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)

    def __del__(self) -> None:
        self.close()


def shared(folder: Path) -> Locked:
    """Lock a folder against removal; others may lock it so at the same time.

    Raises:
        FileNotFoundError: it is not there, or is about to be removed.
        OSError: the system does not let it be opened.
    """
    if fcntl is None:
        folder.stat()
        return Locked(None)
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            return _held(folder, fcntl.LOCK_SH)
        time.sleep(_TRY_S)
    raise FileNotFoundError(f"{folder} is being removed")


def exclusive(folder: Path) -> Locked | None:
    """Lock a folder in order to remove it; None: somebody uses it.

    Raises:
        OSError: it is not there, or the system does not let it be opened.
    """
    if fcntl is None:
        folder.stat()
        return Locked(None)
    try:
        return _held(folder, fcntl.LOCK_EX)
    except BlockingIOError:
        return None


def _held(folder: Path, kind: int) -> Locked:
    locked = Locked(file := os.open(folder, _FOLDER_FLAGS))
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        # Another process may have put a new folder in its place before this one was locked.
        if not locked.is_of(folder):
            raise FileNotFoundError(f"{folder} is being replaced")
    except BaseException:
        locked.close()
        raise
    return locked


@contextmanager
def alone(path: Path, *, patience_s: float, waits: Callable[[], object]) -> Iterator[bool]:
    """Hold a lock file while something is made, so that one process makes it.

    Args:
        path: The file; it is removed at the end.
        patience_s: How long to wait for another process.
        waits: Called before each look at whether the other has finished; true ends the wait.

    Yields:
        Whether it is held; false: `waits` said so, or the patience is over.

    Raises:
        OSError: the file cannot be made.
    """
    if fcntl is None:
        yield True
        return
    locked = Locked(file := os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        is_held = _acquired(file, patience_s, waits)
        try:
            yield is_held
        finally:
            if is_held:
                path.unlink(missing_ok=True)
    finally:
        locked.close()


def _acquired(file: int, patience_s: float, waits: Callable[[], object]) -> bool:
    until_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waits() or time.monotonic() > until_s:
                return False
            time.sleep(_LOOK_S)
        else:
            return True
