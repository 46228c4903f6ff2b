"""MappedFile: a file whose pages are this process's only while they are read."""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["MappedFile"]


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
