"""Chart: a figure in plotly's JSON form, with its title and caption.

A figure is plain data. Only the browser needs plotly, to draw it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coinfer.report.palette import GRID, INK, MUTED
from coinfer.report.words import label

__all__ = ["Chart", "Trace", "View", "axis", "log_ticks", "model_trace", "names_axis", "row_height"]

Trace = dict[str, Any]
"""A trace of plotly; `meta` is the model that it shows, if it shows one."""

_ENOUGH_TICKS = 4

_TICKS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 2, 5),
    (1, 1.5, 2, 3, 4, 5, 6, 8),
    tuple(tenths / 10 for tenths in range(10, 100)),
)
"""Factors within a decade, from few to many."""

_FONT = {
    "family": 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif',
    "size": 13,
    "color": INK,
}
_SHARED_LAYOUT = {
    "autosize": True,
    "margin": {"l": 64, "r": 24, "t": 26, "b": 48},
    "paper_bgcolor": "#ffffff",
    "plot_bgcolor": "#ffffff",
    "font": _FONT,
    "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "bordercolor": MUTED, "font": _FONT},
    "hovermode": "closest",
    "showlegend": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A part of a chart that a button shows.

    Attributes:
        label: On the button.
        note: What is shown, and what is not.
        range_s: First and last second on the horizontal axis.
        traces: Which of the chart's sets of traces is drawn.
    """

    label: str
    note: str
    range_s: tuple[float, float]
    traces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One figure of a page.

    Attributes:
        id: Unique in a page; letters and hyphens.
        title: What it shows.
        caption: How to read it. HTML.
        sets: Sets of traces; the first one is drawn, the others are for views.
        height: In pixels.
        layout: Axes and so on, in plotly's form, beside what all charts share.
        views: Parts to choose from; the first one is shown. None: there is just one.
    """

    id: str
    title: str
    caption: str
    sets: Sequence[Sequence[Trace]]
    height: int
    layout: Mapping[str, Any]
    views: Sequence[View] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what the page's script reads."""
        return {
            "id": self.id,
            "sets": self.sets,
            "layout": {**_SHARED_LAYOUT, "height": self.height, **self.layout},
            "height": self.height,
            "views": [
                {"note": view.note, "range": view.range_s, "set": view.traces}
                for view in self.views
            ],
        }


def model_trace(kind: str, model: str, hover: str, **fields: Any) -> Trace:
    """Make a trace of one model; `hover` follows its name in the text beside the pointer."""
    return {
        "type": kind,
        "name": label(model),
        "meta": model,
        "hovertemplate": f"<b>{label(model)}</b>{hover}<extra></extra>",
        **fields,
    }


def axis(title: str = "", **fields: Any) -> dict[str, Any]:
    """Make a numeric axis with a title that names its unit."""
    return {
        "title": {"text": title, "font": {"size": 12, "color": MUTED}, "standoff": 8},
        "type": "linear",
        "gridcolor": GRID,
        "linecolor": "#b8c0ca",
        "zeroline": False,
        "automargin": True,
        "tickfont": {"size": 12},
        **fields,
    }


def names_axis(labels: Sequence[str], **fields: Any) -> dict[str, Any]:
    """Make a vertical axis with one row per name, the first one at the top.

    Rows are numbers and names only their labels: plotly would read some names as dates or numbers.
    """
    return axis(
        tickmode="array",
        tickvals=list(range(len(labels))),
        ticktext=list(labels),
        range=[len(labels) - 0.45, -0.55],
        fixedrange=True,
        **{"showgrid": False, **fields},
    )


def row_height(rows: int, each: int, *, around: int = 90) -> int:
    """Height in pixels of a chart with so many rows."""
    return around + each * max(1, rows)


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks of a logarithmic axis, written out: the fewest of the usual kinds that are enough.

    >>> log_ticks(1.0, 10.0)["ticktext"]
    ['1', '2', '5', '10']
    >>> log_ticks(0.1, 1000.0)["ticktext"]
    ['0.1', '1', '10', '100', '1,000']
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    shown: list[float] = []
    for factors in _TICKS:
        values = (factor * 10.0**decade for decade in decades for factor in factors)
        shown = [value for value in values if low * 0.999 <= value <= high * 1.001]
        if len(shown) >= _ENOUGH_TICKS:
            break
    return {"tickmode": "array", "tickvals": shown, "ticktext": [f"{v:,.6g}" for v in shown]}
