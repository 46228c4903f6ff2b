"""Memory panel: what was loaded within a budget over time, and what the process held meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from coinfer.machine.memories import HOST
from coinfer.report.chart import Trace
from coinfer.report.facts import Facts
from coinfer.report.palette import INK
from coinfer.report.panel import Panel, from_zero
from coinfer.report.words import label

__all__ = ["memory_panels"]

_MIB = 2**20

_MOST = 4000
"""Moments that are drawn; of more, those with the least and the most of each step."""

_LOADED, _OWN, _MAPPED = "#9b8fd0", "#c0392b", "#e08e79"

_Points: TypeAlias = list[tuple[float, float]]


def memory_panels(facts: Facts) -> Iterator[Panel]:
    """Draw one panel per memory that has a budget."""
    names = dict.fromkeys(name for sample in facts.memory.samples for name in sample.believed)
    for name in names:
        rows = [
            (sample.at_s - facts.origin_s, *sample.believed[name])
            for sample in facts.memory.samples
            if name in sample.believed
        ]
        taken = [(at_s, used / _MIB) for at_s, _, used in rows]
        room = [(at_s, budget / _MIB) for at_s, budget, _ in rows]
        traces = [
            _steps("believed to be loaded", taken, facts.last_s, _LOADED, fill="tozeroy"),
            _steps("budget", room, facts.last_s, INK, dash="dash"),
        ]
        words = [f"{_key(_LOADED)} believed to be loaded", "dashed: the budget"]
        if name == HOST and any(sample.held is not None for sample in facts.memory.samples):
            traces += _held(facts)
            words += [
                f"{_key(_MAPPED)} the whole process",
                f"{_key(_OWN)} of that its own, the rest pages of files",
            ]
        yield Panel(
            title=f"Memory {label(name)}: {', '.join(words)}",
            height=150,
            traces=traces,
            yaxis=from_zero("MiB"),
        )


def _held(facts: Facts) -> list[Trace]:
    rows = [
        (sample.at_s - facts.origin_s, sample.held)
        for sample in facts.memory.samples
        if sample.held is not None
    ]
    whole = [(at_s, held.total / _MIB) for at_s, held in rows]
    own = [(at_s, held.anonymous / _MIB) for at_s, held in rows]
    return [
        _steps("the whole process", whole, facts.last_s, _MAPPED),
        _steps("its own", own, facts.last_s, _OWN),
    ]


def _steps(
    name: str, points: _Points, last_s: float, colour: str, *, dash: str = "solid", fill: str = ""
) -> Trace:
    points = _thinned(points)
    points.append((max(last_s, points[-1][0]), points[-1][1]))
    trace: Trace = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [round(at_s, 6) for at_s, _ in points],
        "y": [round(value, 3) for _, value in points],
        "line": {"color": colour, "width": 1.4, "dash": dash, "shape": "hv"},
        "hovertemplate": f"{name} at %{{x:.4g}} s: %{{y:,.4g}} MiB<extra></extra>",
    }
    if fill:
        trace |= {"fill": fill, "fillcolor": f"{colour}66"}
    return trace


def _thinned(points: Sequence[tuple[float, float]]) -> _Points:
    """Leave out steps that change nothing; of too many keep the extremes of equal parts."""
    kept = [p for i, p in enumerate(points) if not i or p[1] != points[i - 1][1]]
    if len(kept) <= _MOST:
        return kept
    each = -(-2 * len(kept) // _MOST)
    found: set[tuple[float, float]] = {kept[0], kept[-1]}
    for first in range(0, len(kept), each):
        part = kept[first : first + each]
        found |= {min(part, key=_value), max(part, key=_value)}
    return sorted(found)


def _value(point: tuple[float, float]) -> float:
    return point[1]


def _key(colour: str) -> str:
    return f'<span style="color:{colour}">■</span>'
