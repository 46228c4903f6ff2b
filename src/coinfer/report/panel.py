"""Panel: one of several charts above each other that share the axis of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coinfer.report.chart import Trace, axis

__all__ = ["Panel", "from_zero"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One of the charts above each other.

    Attributes:
        title: What it shows. HTML.
        height: In pixels, without its title.
        traces: What is drawn.
        yaxis: Its vertical axis, in plotly's form.
    """

    title: str
    height: int
    traces: list[Trace]
    yaxis: dict[str, Any]


def from_zero(title: str, **fields: Any) -> dict[str, Any]:
    """Make the vertical axis of amounts."""
    return axis(title, **{"rangemode": "tozero", "fixedrange": True, "nticks": 5, **fields})
