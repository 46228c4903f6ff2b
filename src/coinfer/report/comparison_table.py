"""Table of several runs: a row per figure, a column per run, the best of each row in bold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter

from coinfer.metrics.summary import Summary
from coinfer.report.palette import MISSES
from coinfer.report.tables import named, table
from coinfer.report.words import count, digits, percent

__all__ = ["comparison_table", "hit_rate"]

_Text = Callable[[float | None], str]
_BestOf = Callable[[list[float]], float]

_OF_MODEL: tuple[tuple[str, str, _Text, _BestOf], ...] = (
    ("per s", "throughput_per_s", digits, max),
    ("p50 in ms", "latency_ms.p50", digits, min),
    ("p95 in ms", "latency_ms.p95", digits, min),
    ("p99 in ms", "latency_ms.p99", digits, min),
    ("deadlines met", "deadline_hit_rate", percent, max),
)
"""What is shown of a model: its name, the field, how it is written, and which is the best."""


def hit_rate(run: Summary) -> float | None:
    """Share of the deadlines that were met, all models with deadlines together; None without.

    Weighs models by their requests: all requests of a model have a deadline, or none has.
    """
    rows = [row for row in run.models.values() if row.deadline_hit_rate is not None]
    total = sum(row.submitted for row in rows)
    if not total:
        return None
    return sum((row.deadline_hit_rate or 0.0) * row.submitted for row in rows) / total


def comparison_table(runs: Mapping[str, Summary], colours: Mapping[str, str]) -> str:
    """Make the table; figures that no run has get no row."""
    rows = list(_totals(list(runs.values())))
    for model, colour in colours.items():
        rows += _of_model(list(runs.values()), model, colour)
    return table(("figure", *runs), rows)


def _totals(runs: Sequence[Summary]) -> Iterator[list[str]]:
    yield from _row("throughput, per s", [r.totals.throughput_per_s for r in runs], digits, max)
    yield from _row("share of the bound", [r.bound.fraction for r in runs], percent, max)
    yield from _row("deadlines met", [hit_rate(r) for r in runs], percent, max)
    for kind in MISSES:
        numbers = [float(getattr(r.totals, kind)) for r in runs]
        if any(numbers):
            yield from _row(kind, numbers, _whole, min)


def _of_model(runs: Sequence[Summary], model: str, colour: str) -> Iterator[list[str]]:
    rows = [run.models.get(model) for run in runs]
    for figure, field, text, best_of in _OF_MODEL:
        values = [None if row is None else attrgetter(field)(row) for row in rows]
        yield from _row(f"{named(model, colour)}, {figure}", values, text, best_of)


def _whole(value: float | None) -> str:
    return digits(None) if value is None else count(int(value))


def _row(
    label: str, values: Sequence[float | None], text: _Text, best_of: _BestOf
) -> Iterator[list[str]]:
    found = [value for value in values if value is not None]
    if not found:
        return
    best = best_of(found)
    telling = len(set(found)) > 1
    cells = [
        f"<b>{text(value)}</b>" if telling and value == best else text(value) for value in values
    ]
    yield [label, *cells]
