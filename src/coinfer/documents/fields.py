"""Field types that documents are built of. Knows no particular document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from coinfer.errors import ConfigurationError
from coinfer.scenarios import library
from coinfer.units import parse_bytes, parse_rate, parse_seconds

__all__ = [
    "ByteSize",
    "Count",
    "FilePath",
    "Loc",
    "Name",
    "NonNegativeSeconds",
    "Number",
    "OperatorTypes",
    "ParseContext",
    "PositiveNumber",
    "PositiveRate",
    "PositiveSeconds",
    "Probability",
    "Problem",
    "Section",
    "WholeNumber",
    "base_of",
    "check_one_declaration",
    "dotted",
    "is_name",
    "positive_seconds",
    "raise_all",
    "shown",
    "unknown_name",
    "wrong",
]

_MOST_SHOWN = 100
"""Characters of a text."""

Loc: TypeAlias = tuple[str | int, ...]
"""The way to a field: names of fields and positions in lists."""


class ParseContext:
    """What validators need to know about the file, and what they tell about it.

    Attributes:
        base: Folder that relative paths start from.
        known_fields: Names of the fields that a mapping may have, by `id` of the mapping as it
            was read. Pydantic reports an unknown field without them, and they make the suggestion.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.known_fields: dict[int, tuple[str, ...]] = {}


class Problem(NamedTuple):
    """Something wrong below a section: where, from that section, and what."""

    loc: Loc
    message: str


def raise_all(problems: list[Problem]) -> None:
    """Raise one error that carries several problems, if there are any."""
    if problems:
        message = "; ".join(problem.message for problem in problems)
        raise PydanticCustomError("problems", "{message}", {"message": message, "all": problems})


def check_one_declaration(supported: tuple[str, ...], unsupported: tuple[str, ...]) -> None:
    """Refuse a processor that declares what it supports and what not: they may contradict."""
    if supported and unsupported:
        raise_all([Problem(("unsupported_ops",), "cannot stand beside `supported_ops`; keep one")])


def dotted(loc: Loc) -> str:
    """Write the way to a field.

    >>> dotted(("models", "net", "size", 0))
    'models.net.size[0]'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, with the nearest known one.

    >>> unknown_name("model", "resnet5", ["resnet50", "vgg16"])
    "unknown model 'resnet5'; did you mean 'resnet50'? Known: resnet50, vgg16"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    guess = f"did you mean {near[0]!r}? Known" if near else "known"
    return f"unknown {kind} {name!r}; {guess}: {', '.join(names)}"


def wrong(message: str) -> PydanticCustomError:
    """Make the error that a validator raises; its message is shown as it is."""
    return PydanticCustomError("wrong", "{message}", {"message": message})


class Section(BaseModel):
    """A mapping with a fixed set of fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _note_fields(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(info.context, ParseContext) and isinstance(data, dict):
            names = tuple(field.alias or name for name, field in cls.model_fields.items())
            info.context.known_fields[id(data)] = names
        return data


def _converted(parse: Callable[[str | float], float], kind: str) -> Callable[[Any], float]:
    def convert(value: Any) -> float:
        if not isinstance(value, str | int | float):
            raise wrong(f"expected {kind}, got {shown(value)}")
        try:
            return parse(value)
        except ConfigurationError as error:
            raise wrong(str(error)) from error

    return convert


def shown(value: Any) -> str:
    """Write a value as an error message should show it."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case date():
            return str(value)
        case int() if abs(value) >= 10**100:
            return "a number of more than 100 digits"
        case str() if len(value) > _MOST_SHOWN:
            return f"{value[:_MOST_SHOWN]!r}... ({len(value)} characters)"
        case _:
            return repr(value)


def _positive(value: float) -> float:
    if value <= 0:
        raise wrong("must be greater than 0")
    return value


def positive_seconds(value: Any) -> float:
    """Read a duration greater than 0, as `PositiveSeconds` does; for fields that allow more."""
    return _positive(_seconds(value))


def _resolved(path: Path, info: ValidationInfo) -> Path:
    if library.is_reference(path):
        return path
    return base_of(info) / path.expanduser()


def base_of(info: ValidationInfo) -> Path:
    """Return the folder that relative paths start from."""
    return info.context.base if isinstance(info.context, ParseContext) else Path()


def _known_operators(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        return names
    import onnx.defs  # slow to import, and few scenarios name operators

    known = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
    for name in names:
        # Other domains have operators that onnx does not know.
        if "." not in name and name not in known:
            near = get_close_matches(name, known, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise wrong(
                f"unknown operator {name!r}{guess or '; write it as ONNX does, e.g. `Conv`'}"
            )
    return names


_seconds = _converted(parse_seconds, "a duration like 33ms")

NonNegativeSeconds = Annotated[float, BeforeValidator(_seconds)]
"""Seconds; written as a number of seconds or with a unit."""

PositiveSeconds = Annotated[NonNegativeSeconds, AfterValidator(_positive)]

ByteSize = Annotated[int, BeforeValidator(_converted(parse_bytes, "a size like 2GiB"))]
"""Bytes; written as a number of bytes or with a unit."""

PositiveRate = Annotated[
    float,
    BeforeValidator(_converted(parse_rate, "a rate like 30/s")),
    AfterValidator(_positive),
]
"""Per second; written as a number or with a unit (`30/s`, `90/min`)."""

# Strict: in YAML `true` is not 1 and "5" is not 5.
WholeNumber = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
Number = Annotated[float, Strict()]
PositiveNumber = Annotated[float, Strict(), Field(gt=0)]
Probability = Annotated[float, Strict(), Field(gt=0, le=1)]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+\-]*$"
Name = Annotated[str, StringConstraints(pattern=_NAME)]
"""A name that is safe in tables, file names and metric labels."""


def is_name(text: str) -> bool:
    """Tell whether a text is a `Name`.

    >>> is_name("resnet50"), is_name("../etc")
    (True, False)
    """
    return re.fullmatch(_NAME, text) is not None


OperatorTypes = Annotated[tuple[str, ...], AfterValidator(_known_operators)]
"""Types of ONNX operators, such as `Conv`; those of other domains as `com.microsoft.Gelu`."""

FilePath = Annotated[Path, AfterValidator(_resolved)]
"""A path; a relative one starts in the scenario's folder. Whether it exists is checked on use.

`lib:NAME` is left as it is: what reads the file knows where the library is.
"""
