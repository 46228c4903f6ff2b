"""Moves: loads and evictions as a row of the Gantt chart, below the processors."""

from __future__ import annotations

from collections.abc import Iterator

from coinfer.machine.span import Span
from coinfer.metrics.loads import LoadRecord
from coinfer.report.chart import Trace, model_trace
from coinfer.report.facts import Facts
from coinfer.report.palette import INK, MUTED, OUTCOME_COLOURS
from coinfer.report.words import count, label, seconds
from coinfer.units import format_bytes

__all__ = ["has_moves", "moves_caption", "moves_traces"]

_MOVES = 1000
"""Loads and evictions that are drawn."""


def has_moves(facts: Facts) -> bool:
    """Tell whether anything was loaded or evicted."""
    return bool(facts.memory.loads or facts.memory.evictions)


def moves_caption(facts: Facts) -> str:
    """Say how to read them; empty if there are none."""
    if not has_moves(facts):
        return ""
    shown = max(len(facts.memory.loads), len(facts.memory.evictions)) > _MOVES
    some = f"; of loads and evictions the first {count(_MOVES)} are drawn" if shown else ""
    return (
        " In the last row what was loaded into memory, in the colour of its model, black where "
        f"that failed; × marks what was evicted{some}."
    )


def moves_traces(facts: Facts, row: int, colours: dict[str, str]) -> Iterator[Trace]:
    """Draw loads and evictions below the processors."""
    for model in facts.models:
        # What took no time was loaded before a simulation began.
        loads = [
            each
            for each in facts.memory.loads[:_MOVES]
            if each.model == model and each.finished_s != each.started_s
        ]
        gone = [each for each in facts.memory.evictions[:_MOVES] if each.model == model]
        if loads:
            starts_s = [each.started_s - facts.origin_s for each in loads]
            ends_s = [_end_s(each, facts) for each in loads]
            lengths_s = [end - start for start, end in zip(starts_s, ends_s, strict=True)]
            colour = [OUTCOME_COLOURS["failed"] if r.reason else colours[model] for r in loads]
            yield model_trace(
                "bar",
                model,
                "%{customdata[0]} loaded for %{customdata[1]}<br>%{customdata[2]}, took "
                "%{customdata[3]}<br>%{customdata[4]}",
                orientation="h",
                base=[round(each, 6) for each in starts_s],
                x=[round(each, 6) for each in lengths_s],
                y=[row] * len(loads),
                width=0.5,
                marker={"color": colour, "line": {"color": "#ffffff", "width": 0.6}},
                customdata=[
                    [
                        _span_text(each.span),
                        label(", ".join(each.processors)),
                        format_bytes(each.size_bytes),
                        seconds(length_s),
                        label(each.reason[:120]),
                    ]
                    for each, length_s in zip(loads, lengths_s, strict=True)
                ],
            )
        if gone:
            yield model_trace(
                "scatter",
                model,
                "%{customdata} evicted at %{x:.4f} s",
                mode="markers",
                x=[round(each.at_s - facts.origin_s, 6) for each in gone],
                y=[row] * len(gone),
                marker={
                    "symbol": "x",
                    "size": 9,
                    "color": colours.get(model, MUTED),
                    "line": {"color": INK, "width": 0.5},
                },
                customdata=[_span_text(each.span) for each in gone],
            )


def _span_text(span: Span) -> str:
    return "" if span == Span() else f" [{span.first}..{span.last}]"


def _end_s(load: LoadRecord, facts: Facts) -> float:
    return facts.last_s if load.finished_s is None else load.finished_s - facts.origin_s
