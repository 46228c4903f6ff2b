from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coinfer.errors import ConfigurationError
from coinfer.units import (
    format_bytes,
    format_count,
    format_seconds,
    parse_rate,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("33ms", 0.033),
        ("1.5 s", 1.5),
        ("2min", 120.0),
        ("1h", 3600.0),
        (" 5 us ", 5e-6),
        ("5µs", 5e-6),
        ("7ns", 7e-9),
        ("1e-3s", 1e-3),
        ("1_500ms", 1.5),
        (".5", 0.5),
        ("3", 3.0),
        (0.25, 0.25),
        (0, 0.0),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "per_s"),
    [("30/s", 30.0), ("90/min", 1.5), ("7200/h", 2.0), ("25Hz", 25.0), (12, 12.0)],
)
def test_rates(text: str | float, per_s: float) -> None:
    assert parse_rate(text) == pytest.approx(per_s)


@pytest.mark.parametrize("parse", [parse_seconds, parse_rate])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "-1",
        -1,
        True,
        math.nan,
        math.inf,
        "1e999",
        "1e-320",
        1e-13,
        1e19,
        "3 parsec",
        "1 2",
        "ms",
        "_1",
        "1_s",
        "1:30",
    ],
)
def test_what_is_no_quantity_is_refused_by_name(parse, text) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert repr(text) in str(caught.value)


def test_the_refusal_shows_a_right_example() -> None:
    with pytest.raises(ConfigurationError, match=r"ns, us, .*ms, s, min, h, e\.g\. 5s"):
        parse_seconds("3 parsec")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 us"),
        (4.2e-6, "4.2 us"),
        (0.0331, "33.1 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1 s"),
        (59.99, "1 min"),
        (59.95, "60 s"),
        (90.0, "1.5 min"),
        (360_000.0, "6000 min"),
    ],
)
def test_durations_are_written_with_three_digits(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999.5, "1000 B"),
        (1000, "1000 B"),
        (1023.6, "1 KiB"),
        (2**20 * 97.5, "97.5 MiB"),
        (5 * 2**42, "20480 GiB"),
    ],
)
def test_sizes_are_written_in_binary_units(size: float, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("count", "text"), [(4.09e9, "4.09 G"), (999_999, "1 M"), (1_235_496, "1.24 M"), (12, "12")]
)
def test_counts_are_written_with_three_digits(count: float, text: str) -> None:
    assert format_count(count) == text


@given(st.floats(1e-6, 5e4))
def test_a_written_duration_reads_back_within_its_digits(seconds: float) -> None:
    assert parse_seconds(format_seconds(seconds)) == pytest.approx(seconds, rel=0.006)


@given(st.floats(0, 1e13))
@example(999.5)
@example(1023.5 * 2**10)
@example(999.5 * 60)
def test_nothing_is_written_with_an_exponent(value: float) -> None:
    for text in (format_bytes(value), format_seconds(value), format_count(value)):
        assert "e+" not in text
