"""Write result files in one step, and check before a run that they can be written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coinfer.cli.console import print_lines
from coinfer.documents.writing import check_can_write, is_special, replace_file
from coinfer.errors import ConfigurationError

__all__ = ["check_writable", "say", "write_json", "write_result", "write_text", "writing"]


def check_writable(*paths: Path | None) -> None:
    """Make the folders of result files.

    Raises:
        ConfigurationError: one of the files could not be written later, or two are the same.
    """
    given = [path for path in paths if path is not None]
    for path in given:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a folder; name a file in it")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            check_can_write(path)
    plain = [path for path in given if not is_special(path)]
    if len({path.resolve() for path in plain}) < len(plain):
        raise ConfigurationError(f"{plain[-1]} is named for two results; name two files")


def say(what: str, path: Path, hint: str = "") -> None:
    """Name a file that was written, and what to do with it."""
    print_lines(f"{what}: {path}{f' ({hint})' if hint else ''}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file could not be written.

    Raises:
        ConfigurationError: in place of an `OSError` inside.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"cannot write {path}: {reason}; name another file") from error


def write_json(path: Path, data: Any) -> None:
    """Write a value as JSON; the file is replaced in one step.

    Raises:
        ConfigurationError: it cannot be written.
    """
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_result(path: Path | None, data: Any, what: str = "JSON") -> None:
    """Write a result as JSON where the user wants it, if anywhere, and say so.

    Raises:
        ConfigurationError: it cannot be written.
    """
    if path is not None:
        write_json(path, data)
        say(what, path)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8; the file is replaced in one step.

    Raises:
        ConfigurationError: it cannot be written.
    """
    with writing(path):
        replace_file(path, text)
