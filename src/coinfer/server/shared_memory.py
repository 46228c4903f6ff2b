"""Shared memory: regions of the system's memory that clients share with the server. Linux only.

A client makes a region, tells the server its name and size, and then says where in it a tensor
lies. The server maps it; it makes and removes none.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import stat
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coinfer.errors import InputError, NotOfferedError, TooLargeError, UnknownNameError
from coinfer.server.raw_tensors import from_raw, to_raw

__all__ = ["IS_OFFERED", "Region", "SharedMemory"]

IS_OFFERED = sys.platform == "linux"

_FOLDER = Path("/dev/shm")
"""Where Linux keeps what `shm_open` makes."""
_KEY = re.compile(r"/?[A-Za-z0-9_.\-]{1,250}")
_MOST_REGIONS = 1024


class Region(NamedTuple):
    """A part of shared memory that a client registered.

    Attributes:
        name: What requests call it.
        key: What the system calls the memory that it is in.
        offset: Bytes before it there.
        byte_size: Its length.
        memory: The mapped bytes.
    """

    name: str
    key: str
    offset: int
    byte_size: int
    memory: memoryview

    def to_json(self) -> dict[str, Any]:
        """Return what the protocol tells of a region."""
        return {
            "name": self.name,
            "key": self.key,
            "offset": self.offset,
            "byte_size": self.byte_size,
        }


class SharedMemory:
    """The regions that are registered. Any thread may call it."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}
        self._changing = threading.Lock()

    def register(self, name: str, key: object, offset: object, byte_size: object) -> None:
        """Map a region that a client made.

        Raises:
            InputError: the name is taken, or the region is not there or shorter than that.
            TooLargeError: there are too many regions.
            NotOfferedError: this system has no such memory.
        """
        if not IS_OFFERED:
            raise NotOfferedError("shared memory is offered on Linux only; send the tensors")
        if not name or len(name) > 250:
            raise InputError("a shared memory region needs a name of at most 250 characters")
        if not isinstance(key, str) or not _KEY.fullmatch(key) or key.strip("/.") == "":
            raise InputError(
                f"shared memory region {name!r}: its key must be letters, digits, '_', '-' and "
                "'.', with at most one '/' in front"
            )
        start, size = _whole(name, "offset", offset, 0), _whole(name, "byte_size", byte_size, 1)
        with self._changing:
            if name in self._regions:
                raise InputError(f"shared memory region {name!r} is registered already")
            if len(self._regions) >= _MOST_REGIONS:
                raise TooLargeError(f"{_MOST_REGIONS} shared memory regions are registered already")
            memory = _mapped(name, key, start, size)
            self._regions[name] = Region(name, key, start, size, memory)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or without a name all; that it is not there is fine.

        Memory that a request still uses goes with its last use.
        """
        with self._changing:
            if name:
                self._regions.pop(name, None)
            else:
                self._regions.clear()

    def status(self, name: str = "") -> list[Region]:
        """Return a region, or without a name all.

        Raises:
            UnknownNameError: it is not registered.
        """
        regions = dict(self._regions)
        if name and name not in regions:
            raise UnknownNameError.of("shared memory region", name, regions)
        return [regions[name]] if name else list(regions.values())

    def read(
        self, tensor: str, datatype: str, shape: tuple[int, ...], parameters: Mapping[str, Any]
    ) -> np.ndarray[Any, Any]:
        """Return the array that parameters `shared_memory_*` of an input name: a view of it.

        Raises:
            InputError, UnknownNameError: there is no such place, or it does not fit the shape.
        """
        return from_raw(tensor, datatype, shape, self._place(tensor, parameters))

    def write(
        self, tensor: str, array: np.ndarray[Any, Any], parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write an output where its parameters say; return the parameters of the answer.

        Raises:
            InputError, UnknownNameError: there is no such place, or it is too small.
        """
        place, data = self._place(tensor, parameters), to_raw(array)
        if len(data) > len(place):
            raise InputError(
                f"output {tensor!r} has {len(data)} bytes, and its place in shared memory only "
                f"{len(place)}"
            )
        place[: len(data)] = data
        return {
            "shared_memory_region": parameters["shared_memory_region"],
            "shared_memory_offset": parameters.get("shared_memory_offset", 0),
            "shared_memory_byte_size": len(data),
        }

    def check(self, tensor: str, parameters: Mapping[str, Any]) -> None:
        """See that the place of an output is there, before anything is computed.

        Raises:
            InputError, UnknownNameError: it is not.
        """
        self._place(tensor, parameters)

    def _place(self, tensor: str, parameters: Mapping[str, Any]) -> memoryview:
        name = parameters.get("shared_memory_region")
        region = self._regions.get(name) if isinstance(name, str) else None
        if region is None:
            raise UnknownNameError.of("shared memory region", str(name)[:250], self._regions)
        start = _whole(tensor, "shared_memory_offset", parameters.get("shared_memory_offset", 0), 0)
        size = _whole(
            tensor, "shared_memory_byte_size", parameters.get("shared_memory_byte_size"), 0
        )
        if start + size > region.byte_size:
            raise InputError(
                f"tensor {tensor!r}: bytes {start} to {start + size} are not in shared memory "
                f"region {name!r}, which has {region.byte_size}"
            )
        return region.memory[start : start + size]


def _mapped(name: str, key: str, offset: int, size: int) -> memoryview:
    path = _FOLDER / key.removeprefix("/")
    try:
        number = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(
            f"shared memory region {name!r}: {key!r} cannot be opened: {error.strerror}"
        ) from None
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"shared memory region {name!r}: {key!r} is no shared memory")
        if offset + size > found.st_size:
            raise InputError(
                f"shared memory region {name!r}: bytes {offset} to {offset + size} are not in "
                f"{key!r}, which has {found.st_size}"
            )
        page = mmap.ALLOCATIONGRANULARITY
        start = math.floor(offset / page) * page
        whole = mmap.mmap(number, offset + size - start, offset=start)
    finally:
        os.close(number)
    return memoryview(whole)[offset - start :]


def _whole(name: str, what: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value < 2**62:
        raise InputError(f"{name!r}: {what} must be a whole number from {least}")
    return value
