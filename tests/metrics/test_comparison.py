"""Figures of several runs side by side."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coinfer.errors import ConfigurationError
from coinfer.metrics.comparison import ALL, MISS_RATE, Comparison, Row, compare
from coinfer.metrics.summary import LatencySummary, ModelSummary, Summary, TotalsSummary


def model(**fields: Any) -> ModelSummary:
    given = {
        "submitted": 10,
        "completed": 10,
        "late": 0,
        "dropped": 0,
        "failed": 0,
        "throughput_per_s": 5.0,
        "deadline_hit_rate": None,
        "latency_ms": LatencySummary(p50=10.0, p95=20.0, p99=30.0),
    }
    return ModelSummary(**{**given, **fields})


def summary(**fields: Any) -> Summary:
    given = {
        "scenario": "s",
        "mode": "run",
        "policy": "fcfs",
        "seed": 0,
        "duration_s": 10.0,
        "environment": {},
        "models": {"m": model()},
        "processors": {},
        "totals": TotalsSummary(submitted=10, completed=10, throughput_per_s=5.0),
    }
    return Summary(**{**given, **fields})


def row(found: Comparison, figure: str, name: str = "m") -> Row:
    (only,) = [r for r in found.rows if (r.model, r.figure) == (name, figure)]
    return only


def test_every_figure_of_every_model_has_a_row() -> None:
    runs = [summary(models={"a": model(), "b": model()}, mode=mode) for mode in ("run", "simulate")]
    found = [(r.model, r.figure) for r in compare(runs).rows]
    figures = ["per s", "p50 ms", "p95 ms", "p99 ms", MISS_RATE]
    assert found == [*(("a", f) for f in figures), *(("b", f) for f in figures), (ALL, "per s")]


def test_differences_are_relative_to_the_first_run() -> None:
    slower = model(latency_ms=LatencySummary(p50=12.0, p95=20.0, p99=15.0), throughput_per_s=4.0)
    found = compare([summary(), summary(models={"m": slower}), summary()])
    assert row(found, "p50 ms").values == (10.0, 12.0, 10.0)
    assert row(found, "p50 ms").differences == pytest.approx((0.0, 0.2, 0.0))
    assert row(found, "p99 ms").differences == pytest.approx((0.0, -0.5, 0.0))
    assert row(found, "per s").differences == pytest.approx((0.0, -0.2, 0.0))


def test_the_miss_rate_is_what_was_not_in_time_and_differs_absolutely() -> None:
    runs = [summary(models={"m": model(deadline_hit_rate=rate)}) for rate in (1.0, 0.9)]
    assert row(compare(runs), MISS_RATE).values == pytest.approx((0.0, 0.1))
    assert row(compare(runs), MISS_RATE).differences == pytest.approx((0.0, 0.1))


def test_what_a_run_does_not_have_has_no_difference() -> None:
    none = model(latency_ms=LatencySummary(), completed=0, throughput_per_s=0.0)
    found = compare([summary(models={"m": none}), summary()])
    assert row(found, "p50 ms").differences == (None, None)
    assert row(found, MISS_RATE).values == (None, None)
    assert row(found, "per s").differences == (None, None)  # relative to nothing


@pytest.mark.parametrize(
    ("runs", "labels"),
    [
        ([{"mode": "run"}, {"mode": "simulate"}], ("run", "simulate")),
        ([{"policy": "edf"}, {"policy": "fcfs"}], ("edf", "fcfs")),
        (
            [{"policy": "edf"}, {"policy": "fcfs"}, {"policy": "edf", "mode": "simulate"}],
            ("run edf", "run fcfs", "simulate edf"),
        ),
        ([{}, {}], ("run fcfs 1", "run fcfs 2")),
    ],
)
def test_runs_are_named_by_the_least_that_tells_them_apart(
    runs: list[dict[str, str]], labels: tuple[str, ...]
) -> None:
    assert compare([summary(**run) for run in runs]).labels == labels


def test_other_scenarios_and_models_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="scenarios differ: 's' and 't'"):
        compare([summary(), summary(scenario="t")])
    with pytest.raises(ConfigurationError, match="n is in one of them only"):
        compare([summary(), summary(models={"m": model(), "n": model()})])
    with pytest.raises(ConfigurationError, match="at least two"):
        compare([summary()])


def test_what_else_differs_is_a_warning() -> None:
    other = summary(
        mode="simulate",
        policy="edf",
        seed=1,
        duration_s=20.0,
        models={"m": model(submitted=20)},
    )
    policies, seeds, times = compare([summary(), other]).warnings
    assert policies == "the policies differ: fcfs, edf"
    assert seeds == "the seeds differ: 0, 1"
    assert times == "the measured times differ: 10 s to 20 s"


def test_policies_compared_in_one_mode_and_times_that_are_results_are_no_warning() -> None:
    assert compare([summary(), summary(policy="edf", duration_s=20.0)]).warnings == ()


def test_the_json_has_plain_values_only() -> None:
    data = compare([summary(), summary(mode="simulate")]).to_json()
    assert json.loads(json.dumps(data)) == data
    assert data["labels"] == ["run", "simulate"]
    assert data["rows"][0] == {
        "model": "m",
        "figure": "per s",
        "values": [5.0, 5.0],
        "differences": [0.0, 0.0],
    }
