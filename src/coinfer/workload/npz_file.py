"""Npz file: the arrays of an archive, read within a limit. Nothing in it is ever unpickled.

The file is untrusted: a small one may unpack to more than the memory holds. What its headers say is
checked first, and no more than that is unpacked.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from coinfer.errors import InputError
from coinfer.model.inputs import MOST_BYTES
from coinfer.units import format_bytes

__all__ = ["read_npz"]

_MOST_ARRAYS = 1000
"""No model has so many inputs."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""How headers are read. Version 3 is for records whose fields have names beyond Latin-1."""


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a file that `numpy.savez` wrote, by name.

    Raises:
        InputError: no such file, no archive, a member that is no array or holds Python objects, or
            more than `MOST_BYTES` when unpacked.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is not an .npz file; write it with numpy.savez")
            with zipfile.ZipFile(file) as archive:
                members = _checked(archive)
                return {name: _array(archive, member) for name, member in members.items()}
    except Exception as error:
        # The file is untrusted, and a damaged one raises almost anything in these libraries.
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as an .npz file: {reason}") from error


def _checked(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by the names of their arrays; every one of them may be unpacked."""
    members = archive.infolist()
    if len(members) > _MOST_ARRAYS:
        raise ValueError(f"it has {len(members)} members; at most {_MOST_ARRAYS} arrays are read")
    whole = sum(member.file_size for member in members)
    if whole > MOST_BYTES:
        raise ValueError(
            f"it unpacks to {format_bytes(whole)}; at most {format_bytes(MOST_BYTES)} of arrays "
            f"are read, so give fewer samples"
        )
    named: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            raise ValueError(f"its member {name!r} is no array; write it with numpy.savez")
        if name in named:
            raise ValueError(f"it has two arrays {name!r}; remove one")
        with archive.open(member) as stream:
            _check_header(stream, member.file_size, name)
        named[name] = member
    return named


def _check_header(stream: IO[bytes], whole: int, name: str) -> None:
    """Check that an array is one of numbers or texts and as large as its part of the archive."""
    try:
        header = _HEADERS[np.lib.format.read_magic(stream)]
        shape, _, dtype = header(stream)
    except Exception as error:
        # A header is an expression of Python, and reading a damaged one raises almost anything.
        raise ValueError(
            f"its member {name!r} is no array that can be read; write it with numpy.savez"
        ) from error
    if dtype.hasobject or dtype.names is not None:
        kind = (
            "Python objects, which are not unpickled for safety" if dtype.hasobject else "records"
        )
        raise ValueError(f"its array {name!r} holds {kind}; save numbers or texts")
    stated = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or stated > whole - stream.tell():
        raise ValueError(
            f"its array {name!r} of shape {list(shape)} has fewer bytes than that takes; write it "
            f"again"
        )


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    # `zipfile` unpacks no more of a member than the size that was checked.
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
