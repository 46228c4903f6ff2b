"""Shared memory: regions of the system's memory that clients share with the server. Linux only.

A client makes a region, tells the server its name and size, and then says where in it a tensor
lies. The server reads and writes it as a file, which costs one copy, and does not map it: a client
may shorten it at any time, which would end a process that has it mapped, and may change it while it
is checked.
"""

from __future__ import annotations

import math
import os
import re
import stat
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coinfer.errors import InputError, NotOfferedError, TooLargeError, UnknownNameError
from coinfer.model.datatypes import dtype_of, item_bytes
from coinfer.server.raw_tensors import from_raw, to_raw

__all__ = ["IS_OFFERED", "Region", "SharedMemory"]

IS_OFFERED = sys.platform == "linux"

_FOLDER = Path("/dev/shm")
"""Where Linux keeps what `shm_open` makes."""
_KEY = re.compile(r"/?[A-Za-z0-9_.\-]{1,250}")
_MOST_REGIONS = 1024


class _File:
    """A file that is open, until nobody has it any more."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, os.close, number)


class Region(NamedTuple):
    """A part of shared memory that a client registered.

    Attributes:
        name: What requests call it.
        key: What the system calls the memory that it is in.
        offset: Bytes before it there.
        byte_size: Its length.
        file: The memory.
    """

    name: str
    key: str
    offset: int
    byte_size: int
    file: _File

    def to_json(self) -> dict[str, Any]:
        """Return what the protocol tells of a region."""
        return {
            "name": self.name,
            "key": self.key,
            "offset": self.offset,
            "byte_size": self.byte_size,
        }


class SharedMemory:
    """The regions that are registered. Any thread may call it.

    Attributes:
        most_bytes: Of one input.
    """

    def __init__(self, most_bytes: int = 256 << 20) -> None:
        self.most_bytes = most_bytes
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
            file = _opened(name, key, start, size)
            self._regions[name] = Region(name, key, start, size, file)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or without a name all; that it is not there is fine."""
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
        """Return a copy of the array that parameters `shared_memory_*` of an input name.

        Raises:
            InputError, UnknownNameError: there is no such place, or it does not fit the shape.
            TooLargeError: it has too many bytes.
        """
        region, start, size = self._place(tensor, parameters)
        dtype_of(datatype)
        item = item_bytes(datatype)
        if item is not None and item * math.prod(shape) != size:  # before it is read
            raise InputError(
                f"tensor {tensor!r}: {size} bytes of shared memory, but {datatype} of shape "
                f"{list(shape)} takes {item * math.prod(shape)}"
            )
        if size > self.most_bytes:
            raise TooLargeError(
                f"tensor {tensor!r} has {size} bytes in shared memory; at most {self.most_bytes} "
                "are taken"
            )
        data = np.empty(size, np.uint8)
        n_read = _read(region.file.number, data.data, region.offset + start) if size else 0
        if n_read < size:
            raise InputError(
                f"tensor {tensor!r}: shared memory {region.key!r} ends after {n_read} of its "
                f"{size} bytes; it was shortened after it was registered"
            )
        return from_raw(tensor, datatype, shape, data.data)

    def write(
        self, tensor: str, array: np.ndarray[Any, Any], parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write an output where its parameters say; return the parameters of the answer.

        Raises:
            InputError, UnknownNameError: there is no such place, or it is too small.
        """
        (region, start, size), data = self._place(tensor, parameters), to_raw(array)
        if len(data) > size:
            raise InputError(
                f"output {tensor!r} has {len(data)} bytes, and its place in shared memory only "
                f"{size}"
            )
        number, at = region.file.number, region.offset + start
        if at + len(data) > os.fstat(number).st_size:
            raise InputError(
                f"output {tensor!r}: shared memory {region.key!r} was shortened after it was "
                "registered"
            )
        _write(number, memoryview(data), at)
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

    def _place(self, tensor: str, parameters: Mapping[str, Any]) -> tuple[Region, int, int]:
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
        return region, start, size


def _opened(name: str, key: str, offset: int, size: int) -> _File:
    path = _FOLDER / key.removeprefix("/")
    try:
        number = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(
            f"shared memory region {name!r}: {key!r} cannot be opened: {error.strerror}"
        ) from None
    file = _File(number)
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"shared memory region {name!r}: {key!r} is no shared memory")
    if offset + size > found.st_size:
        raise InputError(
            f"shared memory region {name!r}: bytes {offset} to {offset + size} are not in "
            f"{key!r}, which has {found.st_size}"
        )
    return file


def _read(number: int, data: memoryview, at: int) -> int:
    """Read what there is; return how many bytes."""
    n_read = 0
    while n_read < len(data):
        got = os.preadv(number, [data[n_read:]], at + n_read)
        if got == 0:
            break
        n_read += got
    return n_read


def _write(number: int, data: memoryview, at: int) -> None:
    """Write all bytes.

    Raises:
        InputError: there is no room for them.
    """
    try:
        while len(data):
            written = os.pwrite(number, data, at)
            data, at = data[written:], at + written
    except OSError as error:
        raise InputError(f"shared memory cannot be written: {error.strerror}") from None


def _whole(name: str, what: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value < 2**62:
        raise InputError(f"{name!r}: {what} must be a whole number from {least}")
    return value
