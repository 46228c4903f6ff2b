"""Pages of files: mapped ones, and what the system's page cache holds of files that are mapped."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["MappedFile", "forget_pages", "forget_unmapped", "read_pages"]

_CHUNK = 8 * 2**20
"""Bytes that are asked for ahead of those that are waited for."""


class MappedFile:
    """The bytes of a file as an array, which the system reads as they are needed.

    Attributes:
        array: To be read only: what is written into it is lost in `forget`.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            # OpenVINO takes no array that cannot be written; what is written stays in this process.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.array: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)

    def forget(self) -> None:
        """Let the system have the pages; they come back from the file when they are read again."""
        with suppress(AttributeError, OSError, ValueError):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)


def forget_pages(files: Iterable[Path]) -> None:
    """Take files out of the system's page cache; what some process maps stays there."""
    for path in files:
        with suppress(AttributeError, OSError):  # it may be gone; not on Windows and macOS
            file = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def forget_unmapped(files: Iterable[Path]) -> None:
    """Take out of the page cache what this process does not map of files, where Linux tells that.

    A library may read weights only to bring them into another form, of which the file has a copy.
    """
    wanted = {os.fspath(path.resolve()): path for path in files}
    mapped: dict[str, list[tuple[int, int]]] = {path: [] for path in wanted}
    try:
        with Path("/proc/self/maps").open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                addresses, _, offset, _, _, *name = line.rstrip("\n").split(maxsplit=5)
                if name and name[0] in mapped:
                    begin, end = (int(each, 16) for each in addresses.split("-"))
                    mapped[name[0]].append((int(offset, 16), end - begin))
    except OSError:
        return
    for path, ranges in mapped.items():
        with suppress(AttributeError, OSError), wanted[path].open("rb", buffering=0) as file:
            at, size = 0, file.seek(0, os.SEEK_END)
            for first, length in (*sorted(ranges), (size, 0)):
                if first > at:
                    os.posix_fadvise(file.fileno(), at, first - at, os.POSIX_FADV_DONTNEED)
                at = max(at, first + length)


def read_pages(files: Iterable[Path]) -> None:
    """Have all pages of files in the system's page cache; those that are there cost next to none.

    A file that is only mapped is read while it is used, a piece at a time, and whoever uses it
    waits for each. Files are read in order here, ahead of what is waited for, and not copied.
    """
    for path in files:
        with (
            suppress(AttributeError, OSError),  # it may be gone; not on Windows and macOS
            path.open("rb", buffering=0) as file,
            Path(os.devnull).open("wb", buffering=0) as nowhere,
        ):
            at = 0
            while sent := os.sendfile(nowhere.fileno(), file.fileno(), at, _CHUNK):
                at += sent
                os.posix_fadvise(file.fileno(), at, 2 * _CHUNK, os.POSIX_FADV_WILLNEED)
