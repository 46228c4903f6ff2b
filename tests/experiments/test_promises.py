"""What a scenario promises, in order, and when one run keeps it better than another."""

from __future__ import annotations

import math
from typing import Any

import pytest

from coinfer.core.request import Outcome, Request
from coinfer.experiments.promises import Figures, Promises, mean
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.metrics.latency import LatencySketch
from coinfer.workload.scenario import Scenario


def scenario(models: dict[str, dict[str, Any]], **fields: Any) -> Scenario:
    given = {name: {"source": "zoo:lenet", **spec} for name, spec in models.items()}
    arrivals = {name: {"periodic": 10.0} for name in models}
    return Scenario.model_validate({"models": given, "arrivals": arrivals, **fields})


def counts(**models: tuple[int, int, int]) -> RunCounts:
    """In time, late and dropped requests of each model, in one second."""
    found = {}
    for name, (in_time, late, dropped) in models.items():
        each = found[name] = ModelCounts(LatencySketch())
        outcomes = [(0.5, Outcome.COMPLETED)] * in_time + [(2.0, Outcome.COMPLETED)] * late
        for number, (at_s, outcome) in enumerate([*outcomes, *[(1.0, Outcome.DROPPED)] * dropped]):
            request = Request(id=number, model=name, arrival_s=0.0, deadline_s=1.0)
            each.submit(request)
            each.answer(request, outcome, at_s)
        each.served = in_time + late
    return RunCounts(duration_s=1.0, models=found)


def test_all_deadlines_count_first_then_their_share_then_throughput() -> None:
    promises = Promises.of(scenario({"a": {"deadline": 1.0}, "b": {}}))
    figures = promises.figures(counts(a=(96, 3, 1), b=(24, 0, 0)))
    assert figures == (1.0, 0.96, pytest.approx(math.sqrt(100 * 25) - 1))
    assert promises.words(figures) == "96.0% in time, 49/s per model, geometric mean"
    assert promises.figures(counts(a=(94, 3, 3), b=(0, 0, 0)))[:2] == (0.0, 0.94)


def test_a_model_that_breaks_is_not_hidden_by_one_with_many_more_requests() -> None:
    promises = Promises.of(scenario({"a": {"deadline": 1.0}, "b": {"deadline": 1.0}}))
    kept, share, _ = promises.figures(counts(a=(990, 0, 0), b=(5, 5, 0)))
    assert kept == 0.0
    assert share == pytest.approx(0.995)


def test_what_is_more_urgent_comes_first_among_deadlines_and_among_rates() -> None:
    promises = Promises.of(
        scenario(
            {
                "low": {"deadline": 1.0},
                "high": {"deadline": 1.0, "priority": 5},
                "loop": {},
            }
        )
    )
    words = promises.words(promises.figures(counts(low=(1, 1, 0), high=(4, 0, 0), loop=(9, 0, 0))))
    assert words == (
        "100.0% in time at priority 5, 50.0% in time at priority 0, "
        "4/s at priority 5, 4.477/s per model, geometric mean at priority 0"
    )


def test_without_deadlines_throughput_is_all_that_counts() -> None:
    promises = Promises.of(scenario({"a": {}, "b": {}}))
    assert len(promises.goals) == 1
    fair, starved = (
        promises.figures(counts(a=(a, 0, 0), b=(b, 0, 0))) for a, b in ((50, 50), (110, 0))
    )
    assert promises.is_worse(starved, fair)


def test_a_run_without_requests_breaks_nothing() -> None:
    promises = Promises.of(scenario({"a": {"deadline": 1.0}}))
    assert promises.figures(RunCounts(duration_s=1.0)) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ([(1.0, 0.904, 10.1)], 0),  # within the margins of both
        ([(1.0, 0.90, 10.5)], 1),
        ([(1.0, 0.91, 5.0)], 1),  # a deadline more weighs more than the rate
        ([(0.0, 0.99, 99.0)], 0),
        ([(1.0, 0.91, 5.0), (1.0, 0.912, 4.0)], 1),  # as many in time, within the margin
        ([(1.0, 0.91, 5.0), (1.0, 0.912, 4.95)], 2),  # the same within all margins: by the figures
    ],
)
def test_the_best_is_the_first_one_unless_another_is_clearly_better(
    others: list[Figures], best: int
) -> None:
    promises = Promises.of(scenario({"a": {"deadline": 1.0}}))
    assert promises.best([(1.0, 0.90, 10.0), *others]) == best


def test_the_mean_of_two_runs_is_that_of_each_figure() -> None:
    assert mean([(1.0, 3.0), (0.0, 5.0)]) == (0.5, 4.0)
