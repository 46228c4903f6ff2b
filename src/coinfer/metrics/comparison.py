"""Comparison: the same figures of several runs side by side, e.g. measured and predicted.

Makes values only; knows neither files nor how the values are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from coinfer.errors import ConfigurationError
from coinfer.metrics.summary import ModelSummary, Summary, plain

__all__ = ["ALL", "MISS_RATE", "Comparison", "Row", "compare"]

ALL = "all"
"""Stands for all models together."""

MISS_RATE = "miss rate"
"""The figure that is a share: its differences are absolute."""

_DURATION_ALLOWANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of one model in all runs.

    Attributes:
        model: Its name, or `all`.
        figure: What it is, with its unit.
        values: By run; None where a run does not have it (the p99 of no completion).
        differences: By run, from the first one: relative to it, or for a share simply the
            difference. None where either is missing, or the first is 0.
    """

    model: str
    figure: str
    values: tuple[float | None, ...]
    differences: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Several runs of one scenario.

    Attributes:
        scenario: Its name.
        labels: What tells the runs from each other; the first is what the others are compared to.
        rows: By model and figure.
        warnings: What else is not the same.
    """

    scenario: str
    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` writes."""
        return plain(self)


def compare(runs: Sequence[Summary]) -> Comparison:
    """Put the figures of runs of one scenario side by side.

    Args:
        runs: At least two; the others are compared to the first.

    Raises:
        ConfigurationError: fewer than two, or they are not of the same scenario and models.
    """
    if len(runs) < 2:
        raise ConfigurationError("a comparison needs at least two runs; name another file")
    first = runs[0]
    for run in runs[1:]:
        if run.scenario != first.scenario:
            raise ConfigurationError(
                f"the scenarios differ: {first.scenario!r} and {run.scenario!r}; "
                "compare runs of one scenario"
            )
        if set(run.models) != set(first.models):
            odd = ", ".join(sorted(set(run.models) ^ set(first.models)))
            raise ConfigurationError(
                f"scenario {first.scenario!r} was not the same in both runs: {odd} is in one of "
                "them only; run it again"
            )
    return Comparison(
        scenario=first.scenario,
        labels=_labels(runs),
        rows=tuple(_rows(runs)),
        warnings=tuple(_warnings(runs)),
    )


def _rows(runs: Sequence[Summary]) -> Iterator[Row]:
    for model in runs[0].models:
        figures = [_figures(run.models[model]) for run in runs]
        for name in figures[0]:
            yield _row(model, name, [each[name] for each in figures])
    yield _row(ALL, "per s", [run.totals.throughput_per_s for run in runs])


def _figures(model: ModelSummary) -> dict[str, float | None]:
    latency, hits = model.latency_ms, model.deadline_hit_rate
    return {
        "per s": model.throughput_per_s,
        "p50 ms": latency.p50,
        "p95 ms": latency.p95,
        "p99 ms": latency.p99,
        MISS_RATE: None if hits is None else 1.0 - hits,
    }


def _row(model: str, figure: str, values: Sequence[float | None]) -> Row:
    first = values[0]
    return Row(
        model=model,
        figure=figure,
        values=tuple(values),
        differences=tuple(_difference(figure, first, value) for value in values),
    )


def _difference(figure: str, first: float | None, value: float | None) -> float | None:
    if first is None or value is None:
        return None
    if figure == MISS_RATE:
        return value - first
    return value / first - 1 if first else None


def _labels(runs: Sequence[Summary]) -> tuple[str, ...]:
    """Name the runs by the least that tells them from each other."""
    for labels in (
        [run.mode for run in runs],
        [run.policy for run in runs],
        [f"{run.mode} {run.policy}" for run in runs],
    ):
        if len(set(labels)) == len(runs):
            return tuple(labels)
    return tuple(f"{run.mode} {run.policy} {at}" for at, run in enumerate(runs, 1))


def _warnings(runs: Sequence[Summary]) -> Iterator[str]:
    if len({run.mode for run in runs}) > 1 and len({run.policy for run in runs}) > 1:
        yield f"the policies differ: {_listed([run.policy for run in runs])}"
    if len({run.seed for run in runs}) > 1:
        yield f"the seeds differ: {_listed([run.seed for run in runs])}"
    # Runs of equally many requests may take different times: that is a result, not a setting.
    asked = {tuple(run.models[name].submitted for name in runs[0].models) for run in runs}
    shortest, longest = min(r.duration_s for r in runs), max(r.duration_s for r in runs)
    if len(asked) > 1 and longest > shortest * (1 + _DURATION_ALLOWANCE):
        yield f"the measured times differ: {shortest:.4g} s to {longest:.4g} s"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
