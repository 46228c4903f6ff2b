"""Latency chart: the share of each model's requests that was answered within a time."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from coinfer.report.chart import Chart, Trace, axis, log_ticks, model_trace
from coinfer.report.facts import Facts, Floats
from coinfer.report.palette import MUTED
from coinfer.report.words import count, milliseconds, percent

__all__ = ["latency_chart"]

_POINTS = 400
"""Steps drawn per model; more cannot be told apart on a screen."""

_WIDE = 20.0
"""From this ratio of largest to smallest latency on, the axis is logarithmic."""

_CAPTION = (
    "The share of the <em>submitted</em> requests that was answered within a time (latency from "
    "due to answered, in ms). A curve that ends below 100% had requests that were never answered "
    "with a result. A dashed line is a deadline: where the curve of the same colour crosses it is "
    "the share answered in time."
)

_LABEL = 0.13
"""Width of the label of a deadline, as a share of the axis."""

_SHARES = (0, 20, 40, 60, 80, 100)


def latency_chart(facts: Facts, colours: dict[str, str]) -> Chart | None:
    """Draw one curve per model; None if no request was completed in the measuring window."""
    curves = {model: _latencies_ms(facts, model) for model in facts.models}
    answered = np.concatenate(list(curves.values())) if curves else np.empty(0)
    if not answered.size:
        return None
    patience = {m: ms for m in facts.models if (ms := _patience_ms(facts, m)) is not None}
    start, high = _range(answered, list(patience.values()))
    wide = start > 0
    traces = [
        _curve(facts, model, values, start, high, colours[model])
        for model, values in curves.items()
        if values.size
    ]
    sides = _sides(list(patience.values()), start, high)
    traces += [
        # Models with the same deadline share one label.
        _deadline(facts, model, limit, sides.pop(limit, ""), colours[model])
        for model, limit in patience.items()
    ]
    span = [math.log10(start), math.log10(high)] if wide else [0, high]
    scale = {"type": "log", **log_ticks(start, high)} if wide else {}
    return Chart(
        id="latency",
        title="How long requests took",
        caption=_CAPTION,
        sets=[traces],
        height=400,
        layout={
            "margin": {"l": 64, "r": 24, "t": 48, "b": 48},
            "xaxis": axis(f"latency in ms{', logarithmic' if wide else ''}", range=span, **scale),
            "yaxis": axis(
                "answered, % of submitted",
                range=[0, 104],
                tickvals=_SHARES,
                ticktext=[f"{share}%" for share in _SHARES],
            ),
        },
    )


def _range(answered_ms: Floats, limits_ms: list[float]) -> tuple[float, float]:
    """Where the axis begins and ends; it begins at 0 if it is not logarithmic."""
    times = np.array([*answered_ms, *limits_ms])
    low, high = max(float(times.min()), 1e-3), float(times.max()) * 1.03
    wide = high / low > _WIDE
    start = low * 0.8 if wide else 0.0
    if limits_ms:  # room for the label of the last deadline
        last = max(limits_ms)
        high = max(high, last * (high / start) ** _LABEL if wide else last + high * _LABEL)
    return start, high


def _latencies_ms(facts: Facts, model: str) -> Floats:
    """Sorted latencies of the model's completed requests that were due in the window."""
    chosen = facts.completed & facts.counted & facts.of_model(model)
    latencies: Floats = np.sort((facts.answered_s - facts.due_s)[chosen] * 1e3)
    return latencies


def _patience_ms(facts: Facts, model: str) -> float | None:
    """The time that most of the model's requests had, to the microsecond; None without any."""
    chosen = facts.of_model(model) & np.isfinite(facts.patience_s)
    if not chosen.any():
        return None
    values, counts = np.unique((facts.patience_s[chosen] * 1e3).round(3), return_counts=True)
    return float(values[int(np.argmax(counts))])


def _curve(
    facts: Facts, model: str, latencies_ms: Floats, start: float, high: float, colour: str
) -> Trace:
    submitted = int((facts.counted & facts.of_model(model)).sum())
    ranks = np.arange(1, latencies_ms.size + 1)
    if latencies_ms.size > _POINTS:
        # Points are evenly spaced by rank, but the slowest 50 are all drawn.
        even = np.linspace(1, latencies_ms.size, _POINTS - 50).round().astype(np.int64)
        ranks = np.unique(np.concatenate([even, ranks[-50:]]))
    values = latencies_ms[ranks - 1].round(4)
    share = (ranks / submitted * 100).round(4)
    return model_trace(
        "scatter",
        model,
        f"<br>%{{y:.1f}}% of {count(submitted)} within %{{x:,.4g}} ms",
        mode="lines",
        x=[max(start, 1e-6), *values.tolist(), high],
        y=[0.0, *share.tolist(), float(share[-1])],
        line={"color": colour, "width": 2.4, "shape": "hv"},
    )


def _sides(limits: list[float], start: float, high: float) -> dict[float, str]:
    """On which side of each deadline its label goes, so that neighbours' do not overlap."""
    place = math.log if start > 0 else float
    near = (place(high) - place(start)) * _LABEL
    ordered = sorted(set(limits))
    sides = dict.fromkeys(ordered, "center")
    for before, after in pairwise(ordered):
        if place(after) - place(before) < near:
            sides[before] = "left" if sides[before] == "center" else sides[before]
            sides[after] = "right"
    return sides


def _deadline(facts: Facts, model: str, limit_ms: float, side: str, colour: str) -> Trace:
    with_deadline = facts.counted & facts.of_model(model) & np.isfinite(facts.patience_s)
    hits = int((with_deadline & facts.outcome_is("in time")).sum())
    share = hits / int(with_deadline.sum()) if with_deadline.any() else None
    shown = f"deadline {milliseconds(limit_ms)}"
    return model_trace(
        "scatter",
        model,
        f"<br>{shown}: {percent(share)} answered in time",
        mode="lines+text",
        x=[limit_ms] * 21,
        y=[5.2 * step for step in range(21)],
        text=[""] * 20 + [shown if side else ""],
        textposition=f"top {side or 'center'}",
        textfont={"size": 11, "color": MUTED},
        cliponaxis=False,
        line={"color": colour, "width": 1.8, "dash": "dash"},
    )
