"""Read a file's text and turn a parsed document into the value that it describes."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from coinfer.documents.explain import explain
from coinfer.documents.fields import ParseContext, Section
from coinfer.documents.raw import read_bytes
from coinfer.documents.yaml_document import MOST_TEXT_BYTES, YamlDocument
from coinfer.errors import ScenarioError

__all__ = ["read_text", "validated"]

S = TypeVar("S", bound=Section)


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
