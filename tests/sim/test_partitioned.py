"""CutModel models simulate under every policy: each request runs its units in order."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

from coinfer.bound import throughput_bound
from coinfer.core.commands import Run
from coinfer.core.events import Finished
from coinfer.core.request import Outcome
from coinfer.machine.machine import Machine
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import processors, profile
from sim.machines import Log, play, scenario

OPTIONS = {"fixed": {"assignment": {"cut": "npu", "whole": "cpu"}}}
UNITS = 3
# The accelerator cannot run the unit in the middle; nothing but the processor can run all.
CUT = profile("cut", {"npu": 0.006, "cpu": 0.06}, units=UNITS, gaps={"npu": {1}})
WHOLE = profile("whole", {"npu": 0.004, "cpu": 0.01})
MACHINE = Machine(processors=tuple(processors("npu", "cpu")), profile=CUT.merged(WHOLE))


def spans(log: Log, model: str) -> dict[int, list[tuple[str, int, int]]]:
    """What was run of each request of a model, in the order of starting."""
    found = defaultdict(list)
    for _, _, commands in log.steps:
        for command in commands:
            if isinstance(command, Run) and command.execution.model == model:
                _, _, span, processor, requests, _, _ = command.execution
                found[requests[0].id].append((processor, *span))
    return found


@pytest.mark.parametrize("policy", policy_names())
def test_every_unit_runs_once_in_order_where_it_can(policy: str) -> None:
    made = make_policy(policy, **OPTIONS.get(policy, {}))
    wanted = scenario({"cut": {"poisson": 20}, "whole": {"poisson": 40}}, duration=3.0)
    log = play(MACHINE, wanted, made)
    assert {outcome for _, outcome in log.finished.values()} == {Outcome.COMPLETED}
    ran = spans(log, "cut")
    assert len(ran) > 30
    for steps in ran.values():
        assert [u for _, first, last in steps for u in range(first, last + 1)] == [0, 1, 2]
        assert all(name == "cpu" for name, first, last in steps if first <= 1 <= last)


@pytest.mark.parametrize("policy", ["earliest_finish", "fcfs", "heft", "least_slack"])
def test_a_lone_request_takes_both_processors_in_turn(policy: str) -> None:
    log = play(MACHINE, scenario({"offline": {"counts": {"cut": 1}}}), policy)
    assert spans(log, "cut")[0] == [("npu", 0, 0), ("cpu", 1, 1), ("npu", 2, 2)]
    assert log.latencies() == [pytest.approx(0.002 + 0.02 + 0.002)]
    services = [event.service_s for _, event, _ in log.steps if isinstance(event, Finished)]
    assert services == pytest.approx([0.002, 0.02, 0.002])


@pytest.mark.parametrize("policy", policy_names())
def test_no_policy_beats_the_bound(policy: str) -> None:
    made = make_policy(policy, **OPTIONS.get(policy, {}))
    log = play(MACHINE, scenario({"offline": {"counts": {"cut": 60, "whole": 60}}}), made)
    end_s = max(at for at, _ in log.finished.values())
    bound = throughput_bound(MACHINE.profile, MACHINE.processors, {"cut": 1, "whole": 1})
    assert 120 / end_s <= bound.throughput_per_s * (1 + 1e-9)


def test_a_spread_makes_the_times_of_spans_vary() -> None:
    spread = replace(MACHINE, spreads={("cut", "cpu"): 0.5, ("cut", "npu"): 0.5})
    log = play(spread, scenario({"offline": {"counts": {"cut": 30}}}), "heft")
    services = {event.service_s for _, event, _ in log.steps if isinstance(event, Finished)}
    assert len(services) > 30
