"""Parse and format seconds, bytes and rates. Knows no clock and no model."""

from __future__ import annotations

import math
import re

from coinfer.errors import ConfigurationError

__all__ = [
    "format_bytes",
    "format_count",
    "format_digits",
    "format_seconds",
    "is_in_range",
    "parse_bytes",
    "parse_rate",
    "parse_seconds",
]

_NUMBER = r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_BYTES = {
    "B": 1.0,
    **{f"{unit}iB": 1024.0**power for power, unit in enumerate("KMGT", 1)},
    **{f"{unit}B": 1000.0**power for power, unit in enumerate("kMGT", 1)},
}


def _parse(text: str | float, table: dict[str, float], default: str, kind: str) -> float:
    if isinstance(text, bool):
        raise ConfigurationError(f"{text!r} is not {kind}; write for example 5{default}")
    if isinstance(text, int | float):
        value = float(text)
    else:
        # As in YAML, digits may be grouped: 1_000ms.
        plain = re.sub(r"(?<=[0-9])_(?=[0-9])", "", text)
        match = re.fullmatch(rf"\s*{_NUMBER}\s*([^\s0-9]*)\s*", plain)
        if match is None or (match[2] or default) not in table:
            known = ", ".join(table)
            raise ConfigurationError(
                f"{text!r} is not {kind}; write a number and a unit of {known}, e.g. 5{default}"
            )
        value = float(match[1]) * table[match[2] or default]
    if not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"{text!r} is not {kind}: it must be finite and not negative")
    if not is_in_range(value):
        raise ConfigurationError(f"{text!r} is not {kind}: it must be 0 or from 1e-12 to 1e18")
    return value


def is_in_range(value: float) -> bool:
    """Tell whether a figure is 0 or of a size whose ratios to others can be computed.

    >>> is_in_range(0.0), is_in_range(0.033), is_in_range(1e-320)
    (True, True, False)
    """
    return value == 0 or 1e-12 <= value <= 1e18


def parse_seconds(text: str | float) -> float:
    """Read a duration; a bare number is in seconds.

    Args:
        text: e.g. `"33ms"`, `"1.5 s"`, `"2min"` or `0.033`.

    Returns:
        Seconds: 0, or from 1e-12 to 1e18.

    Raises:
        ConfigurationError: not a duration.

    >>> parse_seconds("33ms")
    0.033
    """
    return _parse(text, _SECONDS, "s", "a duration")


def parse_bytes(text: str | float) -> int:
    """Read a size; a bare number is in bytes.

    Args:
        text: e.g. `"2GiB"`, `"500 MB"` or `4096`.

    Returns:
        Bytes, not negative.

    Raises:
        ConfigurationError: not a size.

    >>> parse_bytes("2GiB")
    2147483648
    """
    return int(_parse(text, _BYTES, "B", "a size"))


def parse_rate(text: str | float) -> float:
    """Read a rate; a bare number is per second.

    >>> parse_rate("30/s"), parse_rate("90/min")
    (30.0, 1.5)
    """
    return _parse(text, {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600, "Hz": 1.0}, "/s", "a rate")


def _scaled(value: float, steps: list[tuple[float, str]]) -> str:
    """Write with three digits, or whole from 1,000 on, in the first step that is then reached."""
    written = [(_digits(value / step), unit) for step, unit in steps]
    text, unit = next((pair for pair in written if abs(float(pair[0])) >= 1), written[-1])
    return f"{text} {unit}"


def _digits(value: float) -> str:
    text = f"{value:.3g}"
    return f"{value:.0f}" if 1000 <= abs(float(text)) < math.inf else text


def format_digits(value: float) -> str:
    """Write at least three significant digits, and none after the point from 1,000 on.

    >>> format_digits(12.345), format_digits(1234.5)
    ('12.35', '1,234')
    """
    if value == 0:
        return "0"
    size = abs(value)
    decimals = 0 if size >= 999.5 else 1 if size >= 99.95 else 2 if size >= 1 else 3
    return f"{value:,.{decimals}f}"


def format_seconds(seconds: float) -> str:
    """Write a duration with three digits.

    >>> format_seconds(0.0331)
    '33.1 ms'
    """
    return _scaled(seconds, [(60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us")])


def format_bytes(size: float) -> str:
    """Write a size with three digits in binary units.

    >>> format_bytes(2**20 * 97.5)
    '97.5 MiB'
    """
    return _scaled(float(size), [(2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")])


def format_count(count: float) -> str:
    """Write a count (parameters, multiply-adds) with three digits.

    >>> format_count(4.09e9)
    '4.09 G'
    """
    return _scaled(float(count), [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]).strip()
