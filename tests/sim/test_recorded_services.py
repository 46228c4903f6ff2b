"""A simulation with the times of a recorded run meets its machine at the same moments."""

from __future__ import annotations

from coinfer.machine.span import Span
from coinfer.metrics.records import ExecutionOutcome, ExecutionRecord
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.sim.recorded_services import RecordedServices
from sim.machines import machine, scenario

ORIGIN_S = 100.0
MACHINE = machine({"x": {"p0": 0.01, "p1": 0.02}})


def record(number: int, started_s: float, service_s: float | None) -> ExecutionRecord:
    return ExecutionRecord(
        id=number,
        processor="p0",
        model="x",
        span=Span(0, 0),
        batch=1,
        started_s=ORIGIN_S + started_s,
        finished_s=ORIGIN_S + started_s + 0.04,
        expected_s=0.01,
        service_s=service_s,
        request_ids=(number,),
        outcome=ExecutionOutcome.OK if service_s else ExecutionOutcome.FAILED,
        reason="",
    )


RUN = [record(1, 2.0, 0.03), record(0, 1.0, 0.01), record(2, 2.9, None)]
"""Slow from the middle on; one failed."""


def latencies_s(policy: str, **options: object) -> list[float]:
    services = RecordedServices(MACHINE, RUN, ORIGIN_S)
    load = scenario({"x": {"periodic": 5}}, duration=3.0)
    found = simulate(
        load,
        Plan.of(MACHINE),
        make_policy(policy, **options),
        services=services,
        keep_records=True,
    )
    return [each.latency_s or 0.0 for each in found.recorder.requests()]


def test_what_begins_takes_what_was_recorded_nearest_to_that_moment() -> None:
    took = latencies_s("fixed", assignment={"x": "p0"})
    assert [round(each, 4) for each in took] == [0.01] * 8 + [0.03] * 7  # of 0, 0.2, ..., 2.8 s


def test_where_nothing_was_recorded_it_takes_what_it_does_on_the_machine() -> None:
    took = latencies_s("fixed", assignment={"x": "p1"})
    assert {round(each, 4) for each in took} == {0.02}
