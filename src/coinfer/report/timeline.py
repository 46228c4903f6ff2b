"""Timeline: load, queues, answers and misses of the whole run, one below the other on one axis.

It draws averages over equal steps of time, so its size does not depend on the length of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from coinfer.report.bins import edges, mean_count, number
from coinfer.report.chart import Chart, Trace, axis, model_trace, names_axis
from coinfer.report.facts import OUTCOMES, Facts, Floats
from coinfer.report.memory_panel import memory_panels
from coinfer.report.palette import INK, MUTED, OUTCOME_COLOURS, SHARE_SCALE
from coinfer.report.panel import Panel, from_zero
from coinfer.report.words import label, seconds

__all__ = ["timeline"]

_FINE = 240
_COARSE = 80
_FEWEST = 12

_PER_STEP = 8
"""Answers that a step has on average where possible; with fewer, a rate is mostly chance."""

_GAP = 62
_ABOVE = 58
"""Room for the tool bar and the title of the first panel."""

_BELOW = 48


def timeline(facts: Facts, colours: dict[str, str]) -> Chart | None:
    """Draw the whole run; None if nothing happened in it."""
    if not facts.executions and not facts.requests:
        return None
    first_s = min(0.0, facts.begin_s)
    fine = edges(first_s, facts.last_s, _FINE)
    most = min(_COARSE, max(_FEWEST, len(facts.requests) // _PER_STEP))
    coarse = edges(first_s, facts.last_s, most)
    panels = list(_panels(facts, colours, fine, coarse))
    height = _ABOVE + _BELOW + sum(panel.height for panel in panels) + _GAP * (len(panels) - 1)
    return Chart(
        id="timeline",
        title="The whole run over time",
        caption=_caption(fine, coarse),
        sets=[
            [
                {**trace, "xaxis": "x", "yaxis": f"y{_number(position)}"}
                for position, panel in enumerate(panels)
                for trace in panel.traces
            ]
        ],
        height=height,
        layout=_layout(facts, panels, height, first_s),
    )


def _caption(fine: Floats, coarse: Floats) -> str:
    return (
        f"Averages over steps of {seconds(float(fine[1] - fine[0]))} (load and queues) and "
        f"{seconds(float(coarse[1] - coarse[0]))} (answers and misses). Grey: outside the "
        "measuring window (warm-up, or finishing what was begun). Drag to zoom in on a time, "
        "double-click to go back."
    )


def _panels(facts: Facts, colours: dict[str, str], fine: Floats, coarse: Floats) -> Iterator[Panel]:
    if facts.executions:
        yield _load(facts, fine)
    if facts.requests:
        yield _waiting(facts, colours, fine)
        yield _answers(facts, colours, coarse)
        yield _misses(facts, coarse)
    yield from memory_panels(facts)


def _number(position: int) -> str:
    """What plotly puts behind the name of a panel's axis."""
    return "" if position == 0 else str(position + 1)


def _layout(facts: Facts, panels: list[Panel], height: int, first_s: float) -> dict[str, Any]:
    inner = height - _ABOVE - _BELOW
    axes: dict[str, Any] = {}
    titles: list[dict[str, Any]] = []
    top = float(inner)
    for position, panel in enumerate(panels):
        domain = [max(0.0, (top - panel.height) / inner), top / inner]
        axes[f"yaxis{_number(position)}"] = {**panel.yaxis, "domain": domain, "anchor": "x"}
        titles.append(_title(panel.title, domain[1]))
        top -= panel.height + _GAP
    return {
        "margin": {"l": 64, "r": 24, "t": _ABOVE, "b": _BELOW},
        "barmode": "stack",
        "bargap": 0.08,
        "dragmode": "zoom",
        "xaxis": axis(
            "seconds since the load began",
            anchor=f"y{_number(len(panels) - 1)}",
            range=[first_s, facts.last_s],
            showspikes=True,
            spikemode="across",
            spikethickness=1,
            spikedash="dot",
            spikecolor=MUTED,
        ),
        "annotations": titles,
        "shapes": list(_outside(facts, first_s)),
        **axes,
    }


def _title(text: str, y: float) -> dict[str, Any]:
    return {
        "text": f"<b>{text}</b>",
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "y": y,
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
        "font": {"size": 13, "color": INK},
    }


def _outside(facts: Facts, first_s: float) -> Iterator[dict[str, Any]]:
    """Shade what is not in the measuring window."""
    for low_s, high_s in ((first_s, facts.begin_s), (facts.end_s, facts.last_s)):
        if high_s > low_s:
            yield {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": low_s,
                "x1": high_s,
                "y0": 0,
                "y1": 1,
                "fillcolor": "rgba(95,107,122,0.10)",
                "line": {"width": 0},
                "layer": "below",
            }


def _load(facts: Facts, steps: Floats) -> Panel:
    used = np.unique(facts.run_processor).tolist()
    shares = []
    for processor in used:
        chosen = facts.run_processor == processor
        busy = mean_count(facts.run_start_s[chosen], facts.run_end_s[chosen], steps)
        shares.append((np.minimum(busy, 1.0) * 100).round(1).tolist())
    labels = [label(facts.processors[processor]) for processor in used]
    trace: Trace = {
        "type": "heatmap",
        "x": steps.round(9).tolist(),
        "y": list(range(len(used))),
        "z": shares,
        "zmin": 0,
        "zmax": 100,
        "colorscale": [list(stop) for stop in SHARE_SCALE],
        "ygap": 3,
        "text": [[name] * (len(steps) - 1) for name in labels],
        "hovertemplate": "<b>%{text}</b> at %{x:.4g} s: %{z:.0f}% busy<extra></extra>",
        "showscale": False,
    }
    return Panel(
        title="Busy share of each processor (white 0%, dark blue 100%)",
        height=max(60, 30 * len(used)),
        traces=[trace],
        yaxis=names_axis(labels),
    )


def _waiting(facts: Facts, colours: dict[str, str], steps: Floats) -> Panel:
    traces = []
    for model in facts.models:
        chosen = facts.of_model(model)
        if chosen.any():
            waiting = mean_count(facts.due_s[chosen], facts.left_s[chosen], steps).round(3)
            traces.append(_area(model, waiting, steps, colours[model], "queue", "waiting"))
    return Panel(
        title="Requests that wait, by model (stacked)",
        height=150,
        traces=traces,
        yaxis=from_zero("requests"),
    )


def _answers(facts: Facts, colours: dict[str, str], steps: Floats) -> Panel:
    traces = []
    for model in facts.models:
        chosen = facts.completed & facts.of_model(model)
        if chosen.any():
            rate = (number(facts.answered_s[chosen], steps) / (steps[1] - steps[0])).round(4)
            traces.append(_area(model, rate, steps, colours[model], "rate", "completed per s"))
    bound_per_s = facts.summary.bound.throughput_per_s
    if bound_per_s is not None:
        traces.append(_bound(bound_per_s, steps))
    dashed = ", dashed: the bound" if bound_per_s is not None else ""
    return Panel(
        title=f"Completions per second, by model (stacked{dashed})",
        height=150,
        traces=traces,
        yaxis=from_zero("per second"),
    )


def _misses(facts: Facts, steps: Floats) -> Panel:
    traces = []
    for name in OUTCOMES[1:]:
        # A request without an answer counts at the moment it was due.
        moments = np.where(np.isfinite(facts.answered_s), facts.answered_s, facts.due_s)
        counts = number(moments[facts.outcome_is(name)], steps)
        if counts.any():
            traces.append(_bars(name, counts, steps))
    shown = ", ".join(
        f'<span style="color:{OUTCOME_COLOURS[trace["name"]]}">■</span> {trace["name"]}'
        for trace in traces
    )
    nothing = "none: every request was answered in time"
    return Panel(
        title=f"Misses: {shown or nothing}",
        height=110 if traces else 40,
        traces=traces or [_bars("late", np.zeros(len(steps) - 1), steps)],
        yaxis=from_zero(f"per {seconds(float(steps[1] - steps[0]))}")
        if traces
        else from_zero("", range=[0, 1], showticklabels=False),
    )


def _area(model: str, values: Floats, steps: Floats, colour: str, group: str, unit: str) -> Trace:
    return model_trace(
        "scatter",
        model,
        f" from %{{x:.4g}} s: %{{y:.3g}} {unit}",
        mode="lines",
        # Each step is drawn from its start, and the last one to its end.
        x=steps.round(9).tolist(),
        y=[*values.tolist(), float(values[-1])],
        stackgroup=group,
        line={"color": colour, "width": 0, "shape": "hv"},
        fillcolor=f"{colour}cc",
    )


def _bound(bound_per_s: float, steps: Floats) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "bound",
        "x": [float(steps[0]), float(steps[-1])],
        "y": [bound_per_s, bound_per_s],
        "line": {"color": INK, "width": 1.4, "dash": "dash"},
        "hovertemplate": f"bound {bound_per_s:,.4g} per s<extra></extra>",
    }


def _bars(outcome: str, counts: Floats, steps: Floats) -> Trace:
    return {
        "type": "bar",
        "name": outcome,
        "x": ((steps[:-1] + steps[1:]) / 2).round(9).tolist(),
        "y": counts.tolist(),
        "marker": {"color": OUTCOME_COLOURS[outcome], "line": {"width": 0}},
        "hovertemplate": f"%{{y:,.0f}} {outcome} around %{{x:.4g}} s<extra></extra>",
    }
