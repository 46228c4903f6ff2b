"""What was seen comes again: the same requests at the same times, with what most were promised."""

from __future__ import annotations

import math
import threading

import pytest

from coinfer.core.limits import Limits
from coinfer.core.request import OnLate, Request
from coinfer.errors import ScenarioError
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.work import Axis, Work
from coinfer.workload.load import Load
from coinfer.workload.request_shapes import shape_counts
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario
from coinfer.workload.seen_requests import SeenRequests, promise_of
from coinfer.workload.seen_scenario import seen_scenario

PLANS = {"a": ModelPlan(source="zoo:lenet"), "b": ModelPlan()}


def came(
    model: str, *moments: float, within_s: float = math.inf, **fields: object
) -> list[Request]:
    return [
        Request(id=0, model=model, arrival_s=at_s, deadline_s=at_s + within_s, **fields)  # type: ignore[arg-type]
        for at_s in moments
    ]


def test_only_the_last_requests_are_kept_and_all_are_counted() -> None:
    seen = SeenRequests(most=3)
    for request in came("a", 1.0, 2.0, 3.0, 4.0) + came("b", 5.0, within_s=0.1, priority=2):
        seen.note(request)
    assert [each.arrival_s for each in seen.since(0.0)] == [3.0, 4.0, 5.0]
    assert [each.arrival_s for each in seen.since(4.0)] == [4.0, 5.0]
    assert seen.counts == {("a", 0, False): 4, ("b", 2, True): 1}


def test_threads_may_note_while_another_looks() -> None:
    seen = SeenRequests(most=50)
    (request,) = came("a", 1.0)
    threads = [
        threading.Thread(target=lambda: [seen.note(request) for _ in range(2000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(seen.since(0.0)) <= 50
    assert len(seen.since(0.0)) == 50


@pytest.mark.parametrize("at_s", [0.1, 1e5 / 3, 12345.678])
def test_equal_deadlines_are_one_promise_whenever_requests_come(at_s: float) -> None:
    (request,) = came("a", at_s, within_s=0.033)
    assert promise_of(request).deadline_s == 0.033


def test_requests_come_again_when_they_came() -> None:
    scenario = seen_scenario(came("a", 7.5, 7.0, 8.0) + came("b", 7.25), PLANS)
    dues = [(due.time_s, due.model) for due in Load(scenario).in_order() or ()]
    assert dues == [(0.0, "a"), (0.25, "b"), (0.5, "a"), (1.0, "a")]
    assert scenario.end_s == pytest.approx(4 / 3)
    assert scenario.warmup_s == pytest.approx(0.4 / 3)
    assert scenario.models["a"].source == "zoo:lenet"


def test_one_request_is_a_load_too() -> None:
    scenario = seen_scenario(came("a", 7.5), PLANS)
    assert len(list(Load(scenario).in_order() or ())) == 1


def test_a_model_is_promised_what_most_of_its_requests_were() -> None:
    some = came("a", 1.0, within_s=0.5, priority=9) + came("b", 1.0, batch=2)
    most = came("a", 2.0, 3.0, within_s=0.2, priority=1, on_late=OnLate.DROP)
    scenario = seen_scenario(some + most, PLANS, Limits(max_waiting=7, max_blocking_s=0.5))
    a, b = scenario.models["a"], scenario.models["b"]
    assert (a.deadline_s, a.priority, a.on_late, a.batch) == (0.2, 1, OnLate.DROP, 1)
    assert (b.deadline_s, b.priority, b.on_late, b.batch) == (None, 0, OnLate.RUN, 2)
    assert scenario.limits.max_waiting == 7
    assert scenario.limits.max_blocking_s == 0.5


def test_requests_are_of_the_planned_sizes_next_to_theirs_as_often() -> None:
    work = Work({"w": Axis("x", 3)}, {("w",): 1.0}, base=10.0)
    plan = ModelPlan(sizes=({"w": 10}, {"w": 80}), work=work)
    large = work.size_class({"w": 80})
    requests = came("a", 1.0, 2.0, 3.0, shape=large) + came("a", 4.0, shape=1)
    counts = shape_counts(seen_scenario(requests, {"a": plan}), {"a": work})
    assert counts == {"a": {0: 256.0, large: 768.0}}


def test_a_trace_may_be_written_out() -> None:
    def load(trace: str) -> Scenario:
        return parse_scenario(
            f"models: {{m: 'zoo:lenet'}}\narrivals: {{m: {{trace: {trace}}}}}\nduration: 10s\n"
        )

    scenario = load("[2s, 500ms, 0.75]")
    assert [due.time_s for due in Load(scenario).in_order() or ()] == [0.5, 0.75, 2.0]
    assert Load(scenario.scaled(2.0)).first_arrivals(1) == [(0.25, "m")]
    with pytest.raises(ScenarioError, match="trace"):
        load("[-1s]")
    with pytest.raises(ScenarioError, match="trace"):
        load("[]")
