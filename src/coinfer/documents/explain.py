"""Turn pydantic's errors into lines that name the file, the line and the field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from pydantic import ValidationError

from coinfer.documents.fields import Loc, ParseContext, Problem, dotted, shown, unknown_name
from coinfer.documents.yaml_document import YamlDocument

__all__ = ["explain"]

_MOST_SHOWN = 5

_Context = Mapping[str, Any]

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "string": "text (put it in quotes)",
    "bool": "true or false",
    "path": "a path",
    "dict": "a mapping of fields",
    "mapping": "a mapping of fields",
    "model": "a mapping of fields",
    "list": "a list",
    "tuple": "a list",
}

_LIMITS = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "finite_number": "must be finite",
    "string_pattern_mismatch": (
        "must start with a letter or digit, and have only letters, digits, `_`, `-` and `.`"
    ),
}
"""What is wrong with a value of the right kind, by pydantic's error type."""

_PLAIN_BOOL = {"true", "false"}

_EMPTY = {"too_short", "string_too_short"}


def explain(error: ValidationError, document: YamlDocument, context: ParseContext) -> str:
    """Write one message: `FILE:LINE: field: what is wrong; remedy`, joined by `; `."""
    problems = sorted(
        (document.line_of(loc), dotted(loc), message)
        for loc, message in _problems(error, document, context)
    )
    lines = [
        f"{document.origin}:{line}: {field}: {message}"
        if field
        else f"{document.origin}:{line}: {message}"
        for line, field, message in dict.fromkeys(problems)
    ]
    more = len(lines) - _MOST_SHOWN
    return "; ".join(lines[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _problems(
    error: ValidationError, document: YamlDocument, context: ParseContext
) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        loc = detail["loc"]
        if loc and loc[-1] == "[key]":
            yield Problem(loc[:-1], f"as a name {_LIMITS['string_pattern_mismatch']}")
            continue
        kind, facts = detail["type"], detail.get("ctx", {})
        if kind == "problems":
            yield from (Problem((*loc, *one.loc), one.message) for one in facts["all"])
        elif kind == "extra_forbidden":
            fields = context.known_fields.get(id(document.value_at(loc[:-1])), ())
            yield Problem(loc, unknown_name("field", str(loc[-1]), fields))
        else:
            yield Problem(loc, _message(kind, facts, detail["msg"], _seen(loc, document)))


def _seen(loc: Loc, document: YamlDocument) -> str:
    """Show a value; one that looks like text and is none in YAML as it is written."""
    value, written = document.value_at(loc), document.written_at(loc)
    if written is None or not isinstance(value, bool | date) or written.lower() in _PLAIN_BOOL:
        return shown(value)
    kind = "a date" if isinstance(value, date) else str(value).lower()
    return f"{written}, which without quotes is {kind} in YAML"


def _message(kind: str, facts: _Context, fallback: str, got: str) -> str:
    if kind == "missing":
        return "is missing; add it"
    if kind in _EMPTY:
        return "must not be empty"
    if kind in _LIMITS:
        return f"{_LIMITS[kind].format(**facts)}, is {got}"
    expected = _EXPECTED.get(kind.split("_")[0])
    if expected is not None:
        return f"expected {expected}, got {got}"
    return fallback
