"""Read a file's text and turn a parsed document into the value that it describes."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from coinfer.documents.explain import explain
from coinfer.documents.fields import ParseContext, Section
from coinfer.documents.yaml_document import YamlDocument
from coinfer.errors import ScenarioError

__all__ = ["read_text", "validated"]

S = TypeVar("S", bound=Section)


def read_text(path: Path, what: str) -> str:
    """Read a text file; `what` is what it should be, e.g. `scenario file`.

    Raises:
        ScenarioError: it is not there or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ScenarioError(f"{path}: no such {what}; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read as text: {error}") from error


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
