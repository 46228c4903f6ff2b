"""Read a file's text and turn a parsed document into the value that it describes."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from coinfer.documents.explain import explain
from coinfer.documents.fields import ParseContext, Section
from coinfer.documents.yaml_document import MOST_DIGITS, MOST_TEXT_BYTES, YamlDocument
from coinfer.errors import ScenarioError
from coinfer.units import format_bytes

__all__ = ["parse_json", "read_bytes", "read_text", "validated"]

MOST_BYTES = 2**28
"""Of a file that is read as a whole and is no model."""

S = TypeVar("S", bound=Section)


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file of at most so many bytes; one without an end, such as a device, is refused too.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {format_bytes(most)}, the most that is read")
    return data


def read_text(path: Path, what: str) -> str:
    """Read a text file; `what` is what it should be, e.g. `scenario file`.

    Raises:
        ScenarioError: it is not there, is no text, or is larger than a document may be.
    """
    try:
        # Text mode reads the ends of lines of all systems as `\n`, and so does this.
        text = read_bytes(path, MOST_TEXT_BYTES).decode()
    except FileNotFoundError as error:
        raise ScenarioError(f"{path}: no such {what}; check the path") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: cannot be read as text: {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise ScenarioError(f"{path}: cannot be read as text: {reason}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that somebody else may have written.

    Raises:
        ValueError: it is no JSON, nests too deeply, or has a number that no quantity needs.
    """
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits; at most {MOST_DIGITS} are read")
    return int(text)


def validated(kind: type[S], document: YamlDocument, base: Path = Path()) -> S:
    """Make the value that a document describes; relative paths in it start in the base folder.

    Raises:
        ScenarioError: at most five problems, each with its line and field.
    """
    context = ParseContext(base)
    try:
        return kind.model_validate(document.data, context=context)
    except ValidationError as error:
        raise ScenarioError(explain(error, document, context)) from error
