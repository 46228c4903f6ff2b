"""Charts of several runs: throughput, deadlines met and latencies. They need summaries only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from coinfer.metrics.summary import Summary
from coinfer.report.chart import Chart, Trace, axis, log_ticks, model_trace, names_axis, row_height
from coinfer.report.palette import INK
from coinfer.report.words import digits, label, milliseconds, percent

__all__ = ["hits_chart", "latencies_chart", "throughput_chart"]

_Runs = Mapping[str, Summary]

_QUANTILES = (("p50", "circle"), ("p95", "diamond"), ("p99", "triangle-right"))


def throughput_chart(runs: _Runs, colours: Mapping[str, str]) -> Chart:
    """Draw one bar per run, made of its models, with its bound as a line across."""
    bars = [_throughput(runs, model, colour) for model, colour in colours.items()]
    bounds = {
        row: run.bound.throughput_per_s
        for row, run in enumerate(runs.values())
        if run.bound.throughput_per_s is not None
    }
    return Chart(
        id="throughput",
        title="Throughput",
        caption=(
            "Completions per second in the measuring window, by model. The black mark is the "
            "bound: the best that any schedule could reach for the offered mix."
        ),
        sets=[[*bars, *([_bounds(bounds)] if bounds else [])]],
        height=row_height(len(runs), 44),
        layout={
            "barmode": "stack",
            "xaxis": axis("completions per second", rangemode="tozero", fixedrange=True),
            "yaxis": names_axis([label(name) for name in runs]),
        },
    )


def hits_chart(runs: _Runs, colours: Mapping[str, str]) -> Chart | None:
    """Draw one dot per model and run; None if no request had a deadline."""
    dots = [_hits(runs, model, colour) for model, colour in colours.items()]
    traces = [trace for trace in dots if trace["x"]]
    if not traces:
        return None
    return Chart(
        id="hits",
        title="Deadlines met",
        caption="Share of all requests with a deadline that were answered in time, by model.",
        sets=[traces],
        height=row_height(len(runs), 44),
        layout={
            "xaxis": axis("% in time", range=[-1, 102], ticksuffix="%", fixedrange=True),
            "yaxis": names_axis([label(name) for name in runs], showgrid=True),
        },
    )


def latencies_chart(runs: _Runs, colours: Mapping[str, str]) -> Chart | None:
    """Draw the quantiles of each model in each run; None if nothing was completed."""
    rows = list(_rows(runs, colours))
    if not rows:
        return None
    traces = [_quantiles(runs, rows, model, colour) for model, colour in colours.items()]
    times = [value for trace in traces for value in trace["x"] if value is not None]
    low, high = max(min(times), 1e-6) * 0.9, max(times) * 1.1
    return Chart(
        id="latencies",
        title="How long requests took",
        caption=(
            "Latency from due to answered, in ms, by model and run. Circle: median; diamond: 95th "
            "percentile; triangle: 99th percentile. To the left is better."
        ),
        sets=[traces],
        height=row_height(len(rows), 26),
        layout={
            "xaxis": axis(
                "latency in ms, logarithmic",
                type="log",
                range=[math.log10(low), math.log10(high)],
                **log_ticks(low, high),
            ),
            "yaxis": names_axis(
                [label(name) if name else f"<b>{label(model)}</b>" for model, name in rows]
            ),
        },
    )


def _rows(runs: _Runs, models: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of model and run that completed something; before each model one without a run."""
    for model in models:
        names = [
            name
            for name, run in runs.items()
            if model in run.models and run.models[model].latency_ms.p50 is not None
        ]
        if names:
            yield model, ""
            yield from ((model, name) for name in names)


def _throughput(runs: _Runs, model: str, colour: str) -> Trace:
    values = [
        run.models[model].throughput_per_s if model in run.models else 0.0 for run in runs.values()
    ]
    return model_trace(
        "bar",
        model,
        ": %{customdata} per s",
        orientation="h",
        y=list(range(len(values))),
        x=values,
        width=0.66,
        marker={"color": colour, "line": {"color": "#ffffff", "width": 0.5}},
        customdata=[digits(value) for value in values],
    )


def _bounds(bounds: Mapping[int, float]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "bound",
        "x": list(bounds.values()),
        "y": list(bounds),
        "marker": {"symbol": "line-ns", "size": 32, "line": {"color": INK, "width": 3}},
        "customdata": [digits(value) for value in bounds.values()],
        "hovertemplate": "bound: %{customdata} per s<extra></extra>",
    }


def _hits(runs: _Runs, model: str, colour: str) -> Trace:
    found = {
        row: rate
        for row, run in enumerate(runs.values())
        if model in run.models and (rate := run.models[model].deadline_hit_rate) is not None
    }
    return model_trace(
        "scatter",
        model,
        ": %{customdata} in time",
        mode="markers",
        x=[rate * 100 for rate in found.values()],
        y=list(found),
        marker={"color": colour, "size": 13, "line": {"color": "#ffffff", "width": 1}},
        cliponaxis=False,
        customdata=[percent(rate) for rate in found.values()],
    )


def _quantiles(runs: _Runs, rows: list[tuple[str, str]], model: str, colour: str) -> Trace:
    """One trace per model: its rows' quantiles joined by a line, with a gap after each row."""
    points: list[tuple[float | None, int, str, str]] = []
    for row, (of_model, name) in enumerate(rows):
        if of_model != model or not name:
            continue
        latency = runs[name].models[model].latency_ms
        for quantile, symbol in _QUANTILES:
            value = getattr(latency, quantile)
            details = f"{label(name)}, {quantile}: {milliseconds(value)}"
            points.append((value, row, symbol, details))
        points.append((None, row, "circle", ""))
    return model_trace(
        "scatter",
        model,
        "<br>%{customdata}",
        mode="lines+markers",
        x=[value for value, _, _, _ in points],
        y=[row for _, row, _, _ in points],
        line={"color": colour, "width": 2},
        marker={
            "color": colour,
            "size": 11,
            "symbol": [symbol for _, _, symbol, _ in points],
            "line": {"color": "#ffffff", "width": 1},
        },
        customdata=[details for _, _, _, details in points],
    )
