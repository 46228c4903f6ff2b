"""How wide a run is is decided at its start: wide where nothing else comes, narrow under load."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection

import pytest

from coinfer.bound import throughput_bound
from coinfer.core.alike import alike_among
from coinfer.core.events import PolicyChanged
from coinfer.machine.machine import Machine
from coinfer.machine.machine_file import load_machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.scaling import Scaling
from coinfer.metrics.counts import ModelCounts
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.policies.crowding import crowded
from coinfer.sim import simulate
from coinfer.testing.machine import VirtualMachine
from coinfer.workload.scenario import Scenario
from policies.every_width import every_width
from policies.frames import frames_at

SCALING = Scaling(mean_s=0.1, serial=0.1)


def machine_of(cores: int, policy: str = "earliest_finish", units: int = 1) -> VirtualMachine:
    everyone = every_width(cores)
    seconds = {p.name: SCALING.seconds(p.threads) for p in everyone}
    return VirtualMachine(everyone, make_policy(policy), {"m": seconds}, units={"m": units})


def widths(machine: VirtualMachine) -> list[int]:
    return [len(machine.dispatcher.view.processors[e.processor].units) for e in machine.executions]


def test_a_lone_request_gets_all_cores() -> None:
    machine = machine_of(8)
    machine.submit("m")
    machine.run()
    assert widths(machine) == [8]


def test_of_many_requests_each_gets_one_core() -> None:
    machine = machine_of(8)
    for _ in range(96):
        machine.submit("m")
    machine.run()
    assert Counter(widths(machine)[4:48]) == {1: 44}


def test_spans_of_a_cut_model_get_wider_as_the_queue_gets_shorter() -> None:
    """Decided anew at each unit boundary: the same requests run narrow first, and wide at last."""
    machine = machine_of(8, units=4)
    ids = [machine.submit("m") for _ in range(24)]
    machine.run()
    by_request = {
        number: [
            width
            for width, execution in zip(widths(machine), machine.executions, strict=True)
            if execution.requests[0].id == number
        ]
        for number in ids
    }
    assert Counter(widths(machine)[8:64])[1] >= 48
    assert any(found[0] == 1 and found[-1] >= 4 for found in by_request.values())


def test_a_request_waits_for_a_wide_processor_that_is_free_soon() -> None:
    """Core 1 is free and core 0 will be in 2 ms; on both it takes 55 ms, on one of them 100."""
    everyone = every_width(4)
    units = {p.name: sorted(p.units) for p in everyone}
    pairs = {name for name, cores in units.items() if len(cores) == 2}
    pair = next(name for name in pairs if "core0" in units[name])
    seconds = {
        "short": {"p0": 0.002},
        "long": dict.fromkeys(pairs - {pair}, 1.0),
        "m": {name: 0.055 if name in pairs else 0.1 for name in units if len(units[name]) < 4},
    }
    machine = VirtualMachine(everyone, make_policy("earliest_finish"), seconds)
    for model in ("long", "short", "m"):
        machine.submit(model)
    machine.run()
    assert [e.processor for e in machine.executions if e.requests[0].model == "m"] == [pair]


def test_a_deadline_that_one_core_misses_makes_a_run_wide() -> None:
    machine = machine_of(8)
    for _ in range(2):
        machine.submit("m", deadline_s=0.06)
    machine.run()
    assert min(widths(machine)) >= 2
    assert max(machine.finished_s.values()) <= 0.06


def test_runs_side_by_side_leave_room_for_a_wide_one() -> None:
    machine = machine_of(8, "fcfs")
    for _ in range(3):
        machine.submit("m")
    machine.run()
    assert [e.processor for e in machine.executions] == ["p0", "p1", "p2"]


@pytest.mark.parametrize("policy", ["earliest_finish", "fcfs"])
def test_every_request_is_answered_whatever_fails(policy: str) -> None:
    machine = machine_of(16, policy)
    ids = [machine.submit("m") for _ in range(40)]
    machine.lose("p0")
    machine.run()
    assert set(ids) <= set(machine.finished_s)


def test_alike_processors_are_looked_at_together_where_there_are_widths() -> None:
    def kinds(cores: int) -> int:
        everyone = {p.name: p for p in every_width(cores)}
        return len(alike_among(everyone, dict.fromkeys(everyone, 1)))

    assert [kinds(cores) for cores in (1, 2, 4, 8, 16)] == [0, 0, 3, 4, 5]


def test_crowding_grows_with_load_and_with_fewer_servers() -> None:
    assert crowded(0.0, 4) == 1.0
    assert crowded(0.5, 8) < crowded(0.5, 2) < crowded(0.8, 2)
    assert crowded(1.5, 2) > crowded(1.1, 2) > crowded(0.97, 2)


@pytest.mark.parametrize(("load", "least"), [(0.4, 1.2), (0.9, 0.8)])
def test_it_answers_sooner_than_one_thread_each_and_keeps_up_under_load(
    load: float, least: float
) -> None:
    machine = load_machine("lib:cores-16")
    mix = {"mobilenet_v2": 1.0, "resnet50": 1.0}
    rates = throughput_bound(machine.profile, machine.processors, mix).per_model_per_s
    scenario = Scenario.model_validate(
        {
            "models": {key: {"source": "zoo:lenet"} for key in mix},
            "arrivals": {model: {"poisson": load * rate} for model, rate in rates.items()},
            "duration": 5.0,
            "warmup": 0.0,
        }
    )

    def mean_s(plan: Plan) -> float:
        counts = simulate(scenario, plan, make_policy("earliest_finish")).run_counts.models
        return sum(each.latencies.mean_s() for each in counts.values())

    narrow = {p.name for p in machine.processors if p.threads == 1}
    plan = Plan.of(machine, models=mix)
    alone = plan.loading(plan.profile.where(lambda key: key.processor in narrow))
    assert mean_s(alone) / mean_s(plan) > least


def test_what_comes_evenly_is_served_wider_than_what_comes_at_random() -> None:
    """At this load random arrivals leave no room for pairs of cores, and a steady stream does."""

    def mean_s(process: str) -> float:
        everyone = every_width(16)
        seconds = {"m": {p.name: SCALING.seconds(p.threads) for p in everyone}}
        rate = 0.86 * 16 / SCALING.mean_s
        scenario = Scenario.model_validate(
            {
                "models": {"m": {"source": "zoo:lenet"}},
                "arrivals": {"m": {process: rate}},
                "duration": 4000 / rate,
                "warmup": 2000 / rate,
            }
        )
        plan = Plan.of(Machine(processors=tuple(everyone), profile=Profile.from_seconds(seconds)))
        counts = simulate(scenario, plan, make_policy("earliest_finish")).run_counts.models
        return counts["m"].latencies.mean_s()

    assert mean_s("periodic") < 1.1 * SCALING.seconds(2) < mean_s("poisson")


def test_a_short_queue_on_a_large_machine_does_not_make_runs_narrow() -> None:
    """What is busy is free soon: of 64 cores one after the other, long before a run could end."""
    machine = load_machine("lib:cores-64")
    rates = throughput_bound(machine.profile, machine.processors, {"resnet50": 1.0})
    rate = 0.8 * rates.throughput_per_s
    scenario = Scenario.model_validate(
        {
            "models": {"resnet50": {"source": "zoo:lenet"}},
            "arrivals": {"resnet50": {"poisson": rate}},
            "duration": 4000 / rate,
            "warmup": 2000 / rate,
        }
    )
    plan = Plan.of(machine, models=["resnet50"])
    counts = simulate(scenario, plan, make_policy("earliest_finish")).run_counts.models
    pair_s = min(machine.profile.expected_s("resnet50", f"cpu{n}-{n + 1}") for n in (0, 2))
    assert counts["resnet50"].latencies.mean_s() < 1.2 * pair_s


def served(load: float) -> Collection[ModelCounts]:
    """Three networks on 8 cores, each with a deadline of three times what one core takes."""
    machine = load_machine("lib:cores-8")
    mix = {"mobilenet_v2": 1.0, "resnet50": 1.0, "resnet101": 1.0}
    rates = throughput_bound(machine.profile, machine.processors, mix).per_model_per_s
    alone_s = {model: machine.profile.expected_s(model, "cpu0") or 0.0 for model in mix}
    scenario = Scenario.model_validate(
        {
            "models": {m: {"source": "zoo:lenet", "deadline": 3 * alone_s[m]} for m in mix},
            "arrivals": {m: {"poisson": load * rate} for m, rate in rates.items()},
            "duration": 2000 / (load * sum(rates.values())),
            "warmup": 0.0,
            "admission_limit": 10**9,
        }
    )
    done = simulate(scenario, Plan.of(machine, models=mix), make_policy("earliest_finish"))
    return done.run_counts.models.values()


def test_a_width_that_wastes_cores_is_no_rescue_where_more_comes_than_can_be_done() -> None:
    """Each rescue would make others late, that would have to be rescued in their turn."""
    models = served(1.1)
    submitted = sum(each.submitted for each in models)
    assert sum(each.hits for each in models) > 0.8 * submitted
    assert sum(each.served for each in models) > 0.92 * submitted


def test_frames_are_as_wide_where_they_could_preempt_others() -> None:
    """What is urgent preempts where no core is free: on a machine with free cores, hardly ever."""
    machine = load_machine("lib:cores-16")
    frames_per_s = {"mobilenet_v2": 30.0, "resnet50": 10.0, "resnet101": 5.0}
    scenario = frames_at(machine, frames_per_s, 0.5, 2000)
    express = [
        dataclasses.replace(p, name=f"{p.name}+", units=frozenset({f"{p.name}+"}), overlays=p.units)
        for p in machine.processors
        if p.threads == 1
    ]

    def mean_s(*more: Processor) -> float:
        everyone = dataclasses.replace(machine, processors=(*machine.processors, *more))
        plan = Plan.of(everyone, models=frames_per_s)
        counts = simulate(scenario, plan, make_policy("earliest_finish")).run_counts.models
        return sum(each.latencies.mean_s() for each in counts.values())

    assert mean_s(*express) < 1.05 * mean_s()


def test_what_preempted_before_a_policy_came_makes_its_runs_no_narrower() -> None:
    ordinary = every_width(4)
    express = Processor(
        name="on top", backend="null", units=frozenset({"own"}), overlays=ordinary[0].units
    )
    short_s = {p.name: SCALING.seconds(p.threads) for p in ordinary}
    seconds = {"long": {p.name: 1.0 for p in ordinary if p.threads == 1}, "short": short_s}
    machine = VirtualMachine([*ordinary, express], make_policy("fcfs"), seconds)
    for number in range(20):
        at_s = 3.0 * number
        for _ in range(4):
            machine.submit("long", arrival_s=at_s)
        machine.submit("long", arrival_s=at_s + 0.1, deadline_s=at_s + 1.2)
    machine.run()
    assert machine.dispatcher.view.preempted_s == 20.0
    machine.post(PolicyChanged(make_policy("earliest_finish"), "earliest_finish", {}))
    begun_s = machine.now
    for number in range(10):
        machine.submit("short", arrival_s=begun_s + 1.0 + number)
    machine.run()
    of = {p.name: p.threads for p in ordinary}
    assert [of[execution.processor] for execution in machine.executions[-10:]] == [4] * 10
