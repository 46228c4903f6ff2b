"""Dims: the sizes of a model's open dimensions, as a scenario states them. Draws nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import product
from math import prod
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar

from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator, Strict, TypeAdapter

from coinfer.documents.fields import PositiveNumber, Problem, Section, raise_all, shown, wrong

__all__ = ["MOST_CHOICES", "Dims", "SizeChoice"]

MOST_CHOICES = 1024
"""How many different combinations of sizes the requests of one model may have."""

_K = TypeVar("_K")

_Size = Annotated[int, Strict(), Field(ge=0)]
_KEY = re.compile(r"[-+]?[0-9][0-9_]*")


class SizeChoice(NamedTuple):
    """Sizes that the open dimensions of one request may have together.

    Attributes:
        sizes: By dimension.
        weight: How often, beside the weights of the other choices. A fraction, so that sums and
            products of what the user wrote are exact.
    """

    sizes: Mapping[str, int]
    weight: Fraction


class _Together(Section):
    """One entry of a list: sizes by dimension, and maybe a weight."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Size]
    weight: PositiveNumber = 1.0


_ONE: TypeAdapter[int] = TypeAdapter(_Size)
_EQUAL: TypeAdapter[list[int]] = TypeAdapter(Annotated[list[_Size], Field(min_length=1)])
_WEIGHTED: TypeAdapter[dict[Any, float]] = TypeAdapter(
    Annotated[dict[Any, PositiveNumber], Field(min_length=1)]
)
_TOGETHER: TypeAdapter[list[_Together]] = TypeAdapter(
    Annotated[list[_Together], Field(min_length=1)]
)


def _of_one_dimension(value: Any) -> Mapping[int, Fraction]:
    """Read a size, a list of sizes, or a mapping of sizes to weights. Return weights by size."""
    match value:
        case dict():
            weights = _WEIGHTED.validate_python(value)
            return _summed((_size_of(key), _exact(weight)) for key, weight in weights.items())
        case list():
            return _summed((size, Fraction(1)) for size in _EQUAL.validate_python(value))
        case _:
            return {_ONE.validate_python(value): Fraction(1)}


def _size_of(key: Any) -> int:
    text = str(key)
    if not _KEY.fullmatch(text):
        raise_all([Problem((text,), f"expected a size, a whole number like 64, got {shown(key)}")])
    size = int(text)
    if size < 0:
        raise_all([Problem((text,), f"must be at least 0, is {size}")])
    return size


def _exact(weight: float) -> Fraction:
    """Return the number that the user wrote, and not the binary fraction next to it."""
    return Fraction(repr(weight))


_APART: TypeAdapter[dict[str, dict[int, Fraction]]] = TypeAdapter(
    dict[str, Annotated[Any, PlainValidator(_of_one_dimension)]]
)


def _dims(value: Any) -> tuple[SizeChoice, ...]:
    match value:
        case tuple():  # read already
            return value
        case dict():
            apart = _APART.validate_python(value)
            _check_few(prod(map(len, apart.values())))
            return tuple(_combinations(apart)) if apart else ()
        case list():
            entries = _TOGETHER.validate_python(value)
            _check_alike(entries)
            choices = _merged((_sizes(e), _exact(e.weight)) for e in entries)
            _check_few(len(choices))
            return choices
        case _:
            raise wrong(
                f"expected sizes by dimension, e.g. {{width: [48, 96]}}, got {shown(value)}"
            )


def _check_few(n_choices: int) -> None:
    if n_choices > MOST_CHOICES:
        raise wrong(
            f"{n_choices:,} combinations of sizes are more than {MOST_CHOICES:,}; give fewer, or "
            "list those that occur together, e.g. [{height: 32, width: 48}]"
        )


def _check_alike(entries: list[_Together]) -> None:
    first = _sizes(entries[0]).keys()
    if not first:
        raise_all([Problem((0,), "names no dimension; add one, e.g. `width: 48`")])
    raise_all(
        [
            Problem(
                (at,),
                f"names {_listed(_sizes(entry))}, the first entry {_listed(first)}; name the same "
                "dimensions in each",
            )
            for at, entry in enumerate(entries)
            if _sizes(entry).keys() != first
        ]
    )


def _sizes(entry: _Together) -> Mapping[str, int]:
    return entry.model_extra or {}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _combinations(apart: Mapping[str, Mapping[int, Fraction]]) -> Iterator[SizeChoice]:
    """Yield each combination of sizes that are drawn independently."""
    for chosen in product(*(weights.items() for weights in apart.values())):
        sizes = {name: size for name, (size, _) in zip(apart, chosen, strict=True)}
        yield SizeChoice(sizes, prod((weight for _, weight in chosen), start=Fraction(1)))


def _merged(choices: Iterable[tuple[Mapping[str, int], Fraction]]) -> tuple[SizeChoice, ...]:
    """Make one choice of those with equal sizes."""
    weights = _summed((tuple(sorted(sizes.items())), weight) for sizes, weight in choices)
    return tuple(SizeChoice(dict(sizes), weight) for sizes, weight in weights.items())


def _summed(weights: Iterable[tuple[_K, Fraction]]) -> dict[_K, Fraction]:
    found: dict[_K, Fraction] = {}
    for key, weight in weights:
        found[key] = found.get(key, Fraction(0)) + weight
    return found


def _written(dims: tuple[SizeChoice, ...]) -> Any:
    """Return what is read as the same again."""
    if len(dims) < 2:
        return dict(dims[0].sizes) if dims else {}
    return [{**choice.sizes, "weight": float(choice.weight)} for choice in dims]


Dims: TypeAlias = Annotated[
    tuple[SizeChoice, ...], PlainValidator(_dims), PlainSerializer(_written)
]
"""The sizes that open dimensions may have; empty where none are named.

Written as sizes by dimension, which are drawn independently: `{width: 64}`, `{width: [48, 96]}`
equally often, `{width: {48: 3, 96: 1}}` by weight. Or as a list of sizes that belong together:
`[{height: 32, width: 48, weight: 3}, {height: 32, width: 320}]`. A nameless dimension is
`"input:axis"`.
"""
