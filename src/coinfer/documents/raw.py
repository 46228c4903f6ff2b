"""Raw: bytes of a file and values of JSON, within limits, before anybody knows what they mean."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from coinfer.units import format_bytes

__all__ = ["MOST_DIGITS", "parse_json", "read_bytes"]

MOST_BYTES = 2**28
"""Of a file that is read as a whole and is no model."""

MOST_DIGITS = 100
"""Of a number: no quantity needs more."""

_LEAST = 1e-100
"""Size of the smallest number with a point or an exponent, but 0; its inverse is the largest."""


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file of at most so many bytes; one without an end, such as a device, is refused too.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name holds a null character")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {format_bytes(most)}, the most that is read")
    return data


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that somebody else may have written.

    Raises:
        ValueError: it is no JSON, nests too deeply, or has a number that no quantity needs.
    """
    try:
        return json.loads(text, parse_int=_whole, parse_float=_broken)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits; at most {MOST_DIGITS} are read")
    return int(text)


def _broken(text: str) -> float:
    number = float(text)
    if number and not _LEAST <= abs(number) <= 1 / _LEAST:  # what is computed from it overflows
        raise ValueError(
            f"a number is {number:g}; none but 0 is read below {_LEAST:g} or above {1 / _LEAST:g}"
        )
    return number
