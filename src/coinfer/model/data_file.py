"""DataFile: a file with a model's weights, opened only as the one that was checked.

A name may lead elsewhere a moment after it was checked, and a file may be written again. So every
opening compares device, inode, size and time of writing with those that the check saw, and follows
no link on the way.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from coinfer.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DataFile", "opened"]

_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
_FILE_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""O_NONBLOCK: opening a FIFO must not wait for a writer."""

_CAN_START_IN_FOLDERS = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")


class DataFile(NamedTuple):
    """A regular file below a folder, as it was when it was checked.

    Attributes:
        folder: Where the way starts; links on the way to it are the user's.
        way: Names of folders, and of the file at last; none of them is a link.
        device: The disk.
        inode: The file's number there.
        size: Bytes.
        written_ns: When it was last written, or what a program set that to.
        links: How many names it has.
    """

    folder: Path
    way: tuple[str, ...]
    device: int
    inode: int
    size: int
    written_ns: int
    links: int

    @classmethod
    def at(cls, folder: Path, way: Sequence[str]) -> Self:
        """Open a file to see what it is.

        Raises:
            OSError: it cannot be opened, is no regular file, or a link is on the way.
        """
        with opened(folder, way) as (_, status):
            return cls(folder, tuple(way), *_identity(status), links=status.st_nlink)

    def check(self) -> int:
        """Find out whether the name still leads to this file, as it was.

        Returns:
            When anything of it last changed, in nanoseconds; no program can set that.

        Raises:
            ModelError: it does not.
        """
        with self._open() as number:
            return os.fstat(number).st_ctime_ns

    def mapped(self) -> mmap.mmap:
        """Map the file into memory, to be read.

        Raises:
            ModelError: the name leads to another file by now.
        """
        with self._open() as number:
            return mmap.mmap(number, 0, access=mmap.ACCESS_READ)

    @contextmanager
    def _open(self) -> Iterator[int]:
        path = self.folder.joinpath(*self.way)
        try:
            with opened(self.folder, self.way) as (number, status):
                if _identity(status) != self[2:6]:
                    raise ModelError(
                        f"{path} is not the file that it was when the model was loaded; load the "
                        f"model again"
                    )
                yield number
        except OSError as error:
            raise ModelError(
                f"{path} cannot be read any more: {error.strerror or error}; put the file back, or "
                f"load the model again"
            ) from error


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def opened(
    folder: Path, way: Sequence[str], *, follow: bool = False
) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file below a folder for reading, and say what it is.

    Args:
        folder: Where the way starts.
        way: Names of folders, and of the file at last.
        follow: Whether links on the way are followed.

    Raises:
        OSError: it cannot be opened, is no regular file, or a link is on the way.
    """
    if follow:
        number = os.open(folder.joinpath(*way), _FILE_FLAGS)
    elif _CAN_START_IN_FOLDERS:
        number = _open_below(folder, way)
    else:
        number = _open_path(folder, way)
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        yield number, status
    finally:
        os.close(number)


def _open_below(folder: Path, way: Sequence[str]) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(folder, _FOLDER_FLAGS | os.O_CLOEXEC)
    try:
        for name in way[:-1]:
            inner = os.open(name, _FOLDER_FLAGS | flags, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(way[-1], _FILE_FLAGS | flags, dir_fd=here)
    finally:
        os.close(here)


def _open_path(folder: Path, way: Sequence[str]) -> int:
    """Do what can be done where no opening can start in a folder that is open."""
    path = folder.joinpath(*way)
    if path.resolve() != folder.resolve().joinpath(*way):
        raise OSError(errno.ELOOP, "is a link")
    return os.open(path, _FILE_FLAGS)
