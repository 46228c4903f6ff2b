"""Write numbers and names as text that is escaped for HTML or for the texts of a chart."""

from __future__ import annotations

import math
from html import escape

from coinfer.units import format_digits

__all__ = ["count", "digits", "escaped", "label", "milliseconds", "percent", "seconds"]

_NONE = "–"


def escaped(text: object) -> str:
    """Escape a text for HTML, also between quotation marks.

    >>> escaped("<b>a & b</b>")
    '&lt;b&gt;a &amp; b&lt;/b&gt;'
    """
    return escape(str(text), quote=True)


def label(name: str) -> str:
    """Escape a name for the texts of a chart, which read a little HTML and have placeholders.

    Not as `escaped`: plotly knows no entity for quotation marks.

    >>> label('<b>"a" & b</b>')
    '&lt;b&gt;"a" &amp; b&lt;/b&gt;'
    """
    return escape(name, quote=False).replace("%{", "%\u200b{")


def count(value: int) -> str:
    """Write a whole number.

    >>> count(12345)
    '12,345'
    """
    return f"{value:,}"


def digits(value: float | None) -> str:
    """Write at least three significant digits, and none after the point from 1,000 on.

    >>> digits(12.345), digits(None)
    ('12.35', '–')
    """
    return _NONE if value is None or not math.isfinite(value) else format_digits(value)


def percent(share: float | None) -> str:
    """Write a share.

    >>> percent(0.1234)
    '12.3%'
    """
    return _NONE if share is None else f"{share:.1%}"


def milliseconds(value_ms: float | None) -> str:
    """Write a time that is given in milliseconds; from ten seconds on in seconds.

    >>> milliseconds(33.0), milliseconds(155_689.0)
    ('33 ms', '155.7 s')
    """
    if value_ms is None or not math.isfinite(value_ms):
        return _NONE
    if value_ms >= 10_000:
        return seconds(value_ms / 1e3)
    return f"{value_ms:,.4g} ms" if value_ms < 1000 else f"{value_ms:,.0f} ms"


def seconds(value_s: float) -> str:
    """Write a moment or a length in seconds.

    >>> seconds(10.0), seconds(0.0123), seconds(2.3456789)
    ('10 s', '0.0123 s', '2.346 s')
    """
    return f"{value_s:,.4g} s" if abs(value_s) < 1000 else f"{value_s:,.1f} s"
