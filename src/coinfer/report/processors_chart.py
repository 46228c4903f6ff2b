"""Processors chart: how each processor spent the measuring window, beside the optimum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coinfer.report.chart import Chart, Trace, axis, model_trace, names_axis, row_height
from coinfer.report.facts import Facts
from coinfer.report.words import escaped, label

__all__ = ["processors_chart"]

_Shares = Mapping[str, Mapping[str, float]]

_MEASURED = "this run"
_BOUND = "the bound"


def processors_chart(facts: Facts, colours: dict[str, str]) -> Chart | None:
    """Draw one bar per processor, and one of the optimum if it is known; None without processors.

    Processors that are neither used nor wanted by the optimum get no bar.
    """
    spent = _spent(facts)
    wanted = facts.shares
    shown = [
        name
        for name in facts.processors
        if any(spent.get(name, {}).values()) or any(wanted.get(name, {}).values())
    ]
    if not shown:
        return None
    kinds = [(_MEASURED, spent), *([(_BOUND, wanted)] if wanted else [])]
    rows = [(name, kind) for name in shown for kind, _ in kinds]
    bars = [
        _bars(rows, kind, shares, model, colours[model])
        for kind, shares in kinds
        for model in facts.models
    ]
    labels = [label(name) if kind == _MEASURED else f"<i>{kind}</i>" for name, kind in rows]
    idle = [escaped(name) for name in facts.processors if name not in shown]
    return Chart(
        id="processors",
        title="What processors did with their time",
        caption=_caption(bool(wanted), idle),
        sets=[[trace for trace in bars if trace["x"]]],
        height=row_height(len(rows), 34 if wanted else 44),
        layout={
            "barmode": "stack",
            "xaxis": axis(
                "% of the measuring window", range=[0, 100.5], ticksuffix="%", fixedrange=True
            ),
            "yaxis": names_axis(labels),
        },
    )


def _caption(wanted: bool, idle: list[str]) -> str:
    text = "Share of the measuring window that each processor was given to each model."
    if wanted:
        text += (
            " Striped: how an optimal schedule would spend its time (the linear program of the "
            "bound)."
        )
    if idle:
        text += f" {'Without work in both' if wanted else 'Unused'}: {', '.join(idle)}."
    return text


def _spent(facts: Facts) -> dict[str, dict[str, float]]:
    """`{processor: {model: share of the window}}`."""
    if facts.window_s <= 0:
        return {}
    low_s = np.clip(facts.run_start_s, facts.begin_s, facts.end_s)
    inside_s = np.clip(facts.run_end_s, facts.begin_s, facts.end_s) - low_s
    spent: dict[str, dict[str, float]] = {}
    for row, name in enumerate(facts.processors):
        on = facts.run_processor == row
        spent[name] = {
            model: float(inside_s[on & (facts.run_model == number)].sum() / facts.window_s)
            for number, model in enumerate(facts.models)
        }
    return spent


def _bars(
    rows: list[tuple[str, str]], kind: str, shares: _Shares, model: str, colour: str
) -> Trace:
    places = [
        (row, share)
        for row, (name, what) in enumerate(rows)
        if what == kind and (share := shares.get(name, {}).get(model, 0.0)) > 0
    ]
    striped = {"pattern": {"shape": "/", "fillmode": "overlay", "fgcolor": "#ffffff", "size": 7}}
    return model_trace(
        "bar",
        model,
        f", {kind}: %{{x:.1f}}%",
        orientation="h",
        y=[row for row, _ in places],
        x=[round(share * 100, 3) for _, share in places],
        width=0.74,
        marker={
            "color": colour,
            "line": {"color": "#ffffff", "width": 0.5},
            **(striped if kind == _BOUND else {}),
        },
    )
