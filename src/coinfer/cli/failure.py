"""Failure: what ended a command, as lines for the user and an exit status.

The one place that turns what coinfer or a library raises into text. What nobody raises on purpose
is a bug of ours: its details go into a file, since a user cannot do anything with a traceback but
hand it on.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from coinfer import __version__
from coinfer.cache_folder import cache_folder
from coinfer.documents.writing import replace_file
from coinfer.errors import CallerError, CoinferError, InvariantError

__all__ = ["BUG", "CALLERS_FAULT", "SYSTEMS_FAULT", "Failure"]

SYSTEMS_FAULT = 1
CALLERS_FAULT = 2
BUG = 70
"""What `sysexits.h` calls EX_SOFTWARE: an internal software error."""

_LIBRARIES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "openvino", "pydantic", "rich", "typer")


class Failure(NamedTuple):
    """What is said, and the exit status.

    Attributes:
        lines: For standard error; none has a line break.
        status: The exit status.
    """

    lines: tuple[str, ...]
    status: int

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Say what an exception means; of a bug, write the details to a file.

        >>> from coinfer.errors import ModelError
        >>> Failure.of(ModelError("no such file"))
        Failure(lines=('error: no such file',), status=2)
        """
        match error:
            case InvariantError():
                return _bug(error)
            case CoinferError():
                status = CALLERS_FAULT if isinstance(error, CallerError) else SYSTEMS_FAULT
                return cls((_line(f"error: {error}"),), status)
            case MemoryError():
                text = "error: out of memory; close other programs, or give fewer or smaller models"
                return cls((text,), SYSTEMS_FAULT)
            case OSError(strerror=str(reason)):
                where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
                return cls((_line(f"error: {where}{reason}"),), SYSTEMS_FAULT)
        return _bug(error)


def _bug(error: BaseException) -> Failure:
    said = _line(str(error))
    what = f"internal error: {type(error).__name__}{f': {said}' if said else ''}"
    path = _kept(_details(error))
    remedy = "this is a bug in coinfer; please report it to its authors"
    with_what = f"with {path}, which has the details" if path else "with the command"
    return Failure((_line(what, 500), f"{remedy} {with_what}"), BUG)


def _details(error: BaseException) -> str:
    versions = []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "\n".join(
        [
            f"coinfer {__version__}, Python {platform.python_version()}, {platform.platform()}",
            ", ".join(versions),
            f"command: {shlex.join(sys.argv)}",
            "",
            *traceback.format_exception(error),
        ]
    )


def _kept(details: str) -> Path | None:
    """Write details into the cache, or else among the temporary files; return where."""
    data = details.encode(errors="backslashreplace")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder_of in (_cached, tempfile.gettempdir):
        try:
            path = Path(folder_of()) / f"coinfer-{name}"
            replace_file(path, data)
        except (OSError, CoinferError):
            continue
        return path
    return None


def _cached() -> Path:
    folder = cache_folder() / "failures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _line(text: str, most: int = 2000) -> str:
    r"""Return a text in one line, as a terminal shows it and a person reads it.

    >>> _line("a\n b\x1b[31m")
    'a b\\x1b[31m'
    """
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return line if len(line) <= most else f"{line[:most]} ..."  # names may be of any length
