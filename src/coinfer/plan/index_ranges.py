"""Index ranges: ascending numbers as a person writes them, `0-41, 44`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from coinfer.errors import ConfigurationError
from coinfer.machine.span import Span, runs

__all__ = ["parse_ranges", "ranges_text", "span_text"]

_LIMIT = 1_000_000
"""No graph has so many operators; a typing error must not fill the memory."""

_RANGE = re.compile(r"\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?")


def ranges_text(numbers: Iterable[int]) -> str:
    """Write ascending numbers as ranges.

    >>> ranges_text([0, 1, 2, 5])
    '0-2, 5'
    """
    return ", ".join(map(span_text, runs(numbers)))


def span_text(span: Span) -> str:
    """Write a span as its first and last unit.

    >>> span_text(Span(0, 2)), span_text(Span(3, 3))
    ('0-2', '3')
    """
    return str(span.first) if span.first == span.last else f"{span.first}-{span.last}"


def parse_ranges(text: str | int) -> tuple[int, ...]:
    """Read what `ranges_text` writes.

    Raises:
        ConfigurationError: it is something else, not ascending, or has a number of a million or
            more.

    >>> parse_ranges("0-2, 5")
    (0, 1, 2, 5)
    """
    if isinstance(text, int):
        return (_bounded(text),)
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ConfigurationError(f"{text!r} is no list of numbers and ranges like `0-41, 44`")
        first = _number(match[1])
        last = first if match[2] is None else _number(match[2])
        if last < first or (numbers and first <= numbers[-1]):
            raise ConfigurationError(f"{text!r} is not ascending; write the smaller number first")
        numbers.extend(range(first, last + 1))
    return tuple(numbers)


def _number(digits: str) -> int:
    significant = digits.lstrip("0") or "0"
    return _bounded(int(significant) if len(significant) < 10 else _LIMIT)


def _bounded(number: int) -> int:
    if not 0 <= number < _LIMIT:
        raise ConfigurationError(f"expected numbers from 0 to {_LIMIT - 1}; write smaller ones")
    return number
