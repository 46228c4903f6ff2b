"""Fusing as a scenario or a program asks for it: which models may be answered by one run."""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import PlainValidator

from coinfer.documents.fields import shown, wrong
from coinfer.errors import ConfigurationError

__all__ = ["FuseSpec", "Fusing", "fuse_of", "unknown_member"]

FuseSpec: TypeAlias = Literal["auto", "never"] | tuple[tuple[str, ...], ...]
"""`auto`: where measuring says that it pays; `never`; or groups of models by name."""

_EXPECTED = "write `auto`, `never`, or groups of at least two models like `[[a, b], [c, d]]`"


def _read(value: Any) -> FuseSpec:
    if value in ("auto", "never"):
        found: FuseSpec = value
        return found
    if not isinstance(value, list | tuple) or not value:
        raise wrong(f"{_EXPECTED}; got {shown(value)}")
    for group in value:
        if (
            not isinstance(group, list | tuple)
            or len(group) < 2
            or not all(isinstance(name, str) for name in group)
        ):
            raise wrong(f"{_EXPECTED}; {shown(group)} is no such group")
    names = [name for group in value for name in group]
    for name in names:
        if names.count(name) > 1:
            raise wrong(f"{name!r} is named twice; each model can be in one group only")
    return tuple(map(tuple, value))


Fusing = Annotated[FuseSpec, PlainValidator(_read)]
"""The field of a document."""


def fuse_of(value: Any) -> FuseSpec:
    """Return what a program asks for.

    Raises:
        ConfigurationError: it is no such wish.

    >>> fuse_of([["a", "b"]])
    (('a', 'b'),)
    """
    from pydantic_core import PydanticCustomError

    try:
        return _read(value)
    except PydanticCustomError as error:
        raise ConfigurationError(f"fuse: {error.message()}") from error


def unknown_member(fuse: FuseSpec, models: Container[str]) -> str | None:
    """Return a name in a group that no model has; None if there is none."""
    if isinstance(fuse, str):
        return None
    return next((name for group in fuse for name in group if name not in models), None)
