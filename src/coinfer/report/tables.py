"""Write the figures of a summary and the environment as HTML tables. Computes no figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coinfer.metrics.summary import ModelSummary, ProcessorSummary, Summary
from coinfer.metrics.table import fused_lines, memory_lines, shared_text, variants_text
from coinfer.metrics.xrbench import XRBenchScore
from coinfer.report.words import count, digits, escaped, percent

__all__ = ["environment_table", "model_table", "named", "processor_table", "score_table", "table"]

_COUNTS = ("submitted", "completed", "late", "dropped", "failed")
_RARE = ("rejected", "cancelled", "unfinished", "withheld", "retried")
_QUANTILES = ("p50", "p90", "p95", "p99", "max")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Make a table from cells that are HTML already.

    Args:
        headers: One per column; plain text.
        rows: Cells by row.
        words: So many of the first columns are text, the others numbers and set to the right.
    """
    heads = "".join(
        f'<th scope="col"{_aligned(i, words)}>{escaped(h)}</th>' for i, h in enumerate(headers)
    )
    body = "\n".join(
        f"<tr>{''.join(f'<td{_aligned(i, words)}>{c}</td>' for i, c in enumerate(cells))}</tr>"
        for cells in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def model_table(summary: Summary, colours: Mapping[str, str]) -> str:
    """One row per model and one for all; columns for rare outcomes only if there were any."""
    models = summary.models
    rare = [kind for kind in _RARE if any(getattr(row, kind) for row in models.values())]
    kinds = (*_COUNTS, *rare)
    totals = [sum(getattr(row, kind) for row in models.values()) for kind in kinds]
    rate = digits(summary.totals.throughput_per_s)
    whole = ["all", *map(count, totals), rate, *[""] * (len(_QUANTILES) + 1)]
    headers = ("model", *kinds, "per s", *(f"{name} ms" for name in _QUANTILES), "in time")
    rows = [_model_cells(name, row, kinds, colours[name]) for name, row in models.items()]
    shared = [
        f"<p>{named(name, colours[name])}: requests that shared a run: "
        f"{escaped(shared_text(row.shared))}</p>"
        for name, row in models.items()
        if row.shared
    ]
    served = [
        f"<p>{named(name, colours[name])}: served by {escaped(variants_text(row))}</p>"
        for name, row in models.items()
        if row.variants
    ]
    fused = [f"<p>{escaped(line)}</p>" for line in fused_lines(summary)]
    lines = "".join([*shared, *served, *fused])
    return table(headers, [*rows, [f"<b>{cell}</b>" for cell in whole]]) + lines


def processor_table(summary: Summary) -> str:
    """One row per processor."""
    headers = ("processor", "backend", "units", "precision", "executions", "failed", "busy")
    rows = [_processor_cells(n, row) for n, row in summary.processors.items()]
    lines = "".join(f"<p>{escaped(line.strip())}</p>" for line in memory_lines(summary))
    return table(headers, rows, words=4) + lines


def score_table(score: XRBenchScore, colours: Mapping[str, str]) -> str:
    """One row per model: its frames and the parts of its score."""
    rows = [
        [
            named(name, colours[name]),
            count(row.frames),
            percent(row.qoe),
            percent(row.realtime),
            percent(row.score),
        ]
        for name, row in score.models.items()
    ]
    return table(("model", "frames", "completed (QoE)", "realtime", "score"), rows)


def environment_table(environment: Mapping[str, Any]) -> str:
    """One row per fact; nested facts are written `outer.inner`."""
    if not environment:
        return "<p>Not recorded.</p>"
    return table(
        ("what", "value"),
        [[escaped(name), escaped(value)] for name, value in _flat(environment)],
        words=2,
    )


def _aligned(column: int, words: int) -> str:
    return "" if column < words else ' class="n"'


def named(model: str, colour: str) -> str:
    """Write a model's name behind a dot in its colour."""
    return f'<i class="dot" style="background:{colour}"></i>{escaped(model)}'


def _model_cells(name: str, row: ModelSummary, kinds: Sequence[str], colour: str) -> list[str]:
    return [
        named(name, colour),
        *(count(getattr(row, kind)) for kind in kinds),
        digits(row.throughput_per_s),
        *(digits(getattr(row.latency_ms, quantile)) for quantile in _QUANTILES),
        percent(row.deadline_hit_rate),
    ]


def _processor_cells(name: str, row: ProcessorSummary) -> list[str]:
    worst = max(row.output_errors.values(), default=None)
    error = "" if worst is None else f" (error ≤ {worst:.2g})"
    return [
        escaped(name),
        escaped(row.backend),
        escaped(" ".join(row.units)),
        escaped(row.precision + error),
        count(row.executions),
        count(row.failed),
        percent(row.busy_fraction),
    ]


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{before}{name}", ", ".join(map(str, value))
        else:
            yield f"{before}{name}", str(value)
