"""Outcomes chart: what share of each model's requests was in time, late, dropped and so on."""

from __future__ import annotations

from collections.abc import Mapping

from coinfer.metrics.summary import ModelSummary, TotalsSummary
from coinfer.report.chart import Chart, Trace, axis, names_axis, row_height
from coinfer.report.palette import MISSES, OUTCOME_COLOURS
from coinfer.report.words import count, label, percent

__all__ = ["outcomes", "outcomes_chart"]

_CAPTION = (
    "Share of the requests that were due in the measuring window. In time: answered with a "
    "result, before the deadline if there was one. Late: answered after it. Dropped: the deadline "
    "passed, or could not be met, before the start."
)

_ABOVE = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"}
"""Where the legend goes."""


def outcomes(row: ModelSummary | TotalsSummary) -> dict[str, int]:
    """What became of the requests; without the kinds that did not occur.

    >>> outcomes(TotalsSummary(submitted=3, completed=2, throughput_per_s=1.0, late=1, failed=1))
    {'in time': 1, 'late': 1, 'failed': 1}
    """
    kinds = {"in time": row.completed - row.late, **{kind: getattr(row, kind) for kind in MISSES}}
    return {kind: number for kind, number in kinds.items() if number}


def outcomes_chart(
    rows: Mapping[str, ModelSummary | TotalsSummary], *, title: str = "What became of requests"
) -> Chart | None:
    """Draw one bar per row; None if nothing was submitted."""
    found = {name: outcomes(row) for name, row in rows.items()}
    kinds = [kind for kind in OUTCOME_COLOURS if any(kind in each for each in found.values())]
    if not kinds:
        return None
    return Chart(
        id="outcomes",
        title=title,
        caption=_CAPTION,
        sets=[[_bars(kind, found) for kind in kinds]],
        height=row_height(len(found), 40, around=116),
        layout={
            "barmode": "stack",
            "showlegend": True,
            "legend": _ABOVE,
            "margin": {"l": 64, "r": 24, "t": 44, "b": 48},
            "xaxis": axis(
                "% of submitted requests", range=[0, 100.5], ticksuffix="%", fixedrange=True
            ),
            "yaxis": names_axis([label(name) for name in found]),
        },
    )


def _bars(kind: str, found: Mapping[str, Mapping[str, int]]) -> Trace:
    totals = [sum(each.values()) for each in found.values()]
    numbers = [each.get(kind, 0) for each in found.values()]
    shares = [number / (total or 1) for number, total in zip(numbers, totals, strict=True)]
    return {
        "type": "bar",
        "orientation": "h",
        "name": kind,
        "y": list(range(len(numbers))),
        "x": [round(share * 100, 3) for share in shares],
        "width": 0.66,
        "marker": {"color": OUTCOME_COLOURS[kind], "line": {"color": "#ffffff", "width": 0.5}},
        "text": [percent(share) if share >= 0.06 else "" for share in shares],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "customdata": [count(number) for number in numbers],
        "hovertemplate": f"%{{customdata}} {kind} (%{{x:.1f}}%)<extra></extra>",
    }
