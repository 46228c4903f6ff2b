"""A GPU with shares of its multiprocessors and a memory of its own, simulated."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from coinfer.core.policy import Policy
from coinfer.core.request import Outcome
from coinfer.errors import ConfigurationError
from coinfer.machine.machine_file import load_machine, parse_machine
from coinfer.opening import loadables
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.policies.fixed import Fixed
from coinfer.sim import Simulated, simulate
from coinfer.workload.scenario_file import parse_scenario
from sim.machines import play, scenario

FILE = Path(__file__).resolve().parents[2] / "examples" / "machines" / "gpu-shares.yaml"
GPU = "CUDA:0"
MIB = 2**20


def answers_s(assignment: dict[str, str]) -> list[float]:
    """When each request is answered if each network has its processor and all come at once."""
    wanted = scenario({"offline": {"counts": dict.fromkeys(assignment, 1), "order": "grouped"}})
    return sorted(play(load_machine(FILE), wanted, Fixed(assignment=assignment)).latencies())


def with_a_budget(
    budget: str, policy: str | Policy = "fcfs", counts: int = 12, *, cores: bool = False
) -> Simulated:
    """Play three networks with a budget for the GPU's memory, there or on the cores as well.

    Args:
        budget: Empty: none.
        policy: The policy.
        counts: Requests of each network that are there at once; 0: six are always under way.
        cores: Whether the cores may be used.
    """
    names = ("mobilenet_v2", "resnet50", "resnet101")
    text = "models: {" + ", ".join(f"{name}: x.onnx" for name in names) + "}\n"
    counted = ", ".join(f"{name}: {counts}" for name in names)
    if counts:
        text += f"arrivals: {{offline: {{counts: {{{counted}}}, order: interleaved}}}}\n"
    else:
        text += "arrivals: {mix: {in_flight: 6}}\nduration: 3s\n"
    text += f'memory: {{"{GPU}": {budget}}}\n' if budget else ""
    wanted = parse_scenario(text)
    machine = load_machine(FILE)
    known = machine.profile.where(lambda key: cores or key.processor.startswith("gpu"))
    plan = dataclasses.replace(
        Plan.of(dataclasses.replace(machine, profile=known)), memory=wanted.memory.budget
    )
    rule = make_policy(policy) if isinstance(policy, str) else policy
    return simulate(wanted, plan, rule, deterministic=True, keep_records=True)


def test_shares_run_together_and_the_whole_gpu_excludes_them() -> None:
    assert answers_s({"mobilenet_v2": "gpu0_1of2", "resnet50": "gpu0_2of2"}) == pytest.approx(
        # Until the small one is done, at 1/1.1 of the speed: 1 of the 4.5 ms that the other needs.
        [0.00121, 0.00121 + 0.0045 - 0.0011]
    )
    assert answers_s({"resnet50": "gpu0_1of2", "resnet101": "gpu0"}) == pytest.approx(
        [0.0045, 0.0105]
    )


def test_no_share_runs_while_the_whole_gpu_does() -> None:
    assignment = {"mobilenet_v2": "gpu0_1of2", "resnet50": "gpu0_2of2", "resnet101": "gpu0"}
    done = with_a_budget("", Fixed(assignment=assignment))
    runs = [(e.started_s, e.finished_s, e.processor) for e in done.recorder.executions()]
    whole = [(start, end) for start, end, name in runs if name == "gpu0"]
    parts = [(start, end) for start, end, name in runs if name != "gpu0"]
    assert whole
    assert parts
    assert not any(a < d and c < b for a, b in whole for c, d in parts)


def test_weights_are_in_the_memory_of_the_gpu_once_for_all_that_run_them() -> None:
    plan = Plan.of(load_machine(FILE))
    (place,) = [each for each in loadables(plan, "resnet50", plan.profile) if each.pool == GPU]
    assert place.processors == ("gpu0", "gpu0_1of2", "gpu0_2of2")
    assert place.size_bytes == 100 * MIB


def test_on_a_gpu_buffers_of_each_processor_count_beside_the_weights() -> None:
    machine = parse_machine(
        'processors: {a: {device: "CUDA:0"}, b: {device: "CUDA:0"}, c: {device: "CUDA:1"}}\n'
        "times: {m: {a: {mean: 1ms, memory: 100}, b: {mean: 1ms, memory: 100}, c: 1ms}}\n"
    )
    known = {
        key: dataclasses.replace(entry, run_bytes=10)
        for key, entry in machine.profile.entries.items()
    }
    machine = dataclasses.replace(machine, profile=type(machine.profile)(known))
    places = loadables(Plan.of(machine), "m", machine.profile)
    assert {each.processors: each.size_bytes for each in places} == {("a", "b"): 120, ("c",): 10}


@pytest.mark.parametrize("policy", ["fcfs", "edf", "earliest_finish", "comparative_advantage"])
def test_more_models_than_the_gpu_holds_are_all_served_within_its_budget(policy: str) -> None:
    done = with_a_budget("200MiB", policy)
    answers = Counter((each.model, each.outcome) for each in done.recorder.requests())
    assert answers == {
        (name, Outcome.COMPLETED): 12 for name in ("mobilenet_v2", "resnet50", "resnet101")
    }
    loads = done.run_counts.loads
    assert loads.loads >= 1
    assert loads.evictions >= 1
    believed = [dict(each.believed)[GPU] for each in done.recorder.memory().samples]
    assert max(taken for taken, _ in believed) <= 200 * MIB


@pytest.mark.parametrize("policy", ["fcfs", "earliest_finish", "least_slack"])
def test_a_network_without_room_on_the_gpu_is_not_left_to_the_cores(policy: str) -> None:
    there_s, beside_s = [
        with_a_budget("200MiB", policy, 100, cores=cores).run_counts.duration_s
        for cores in (False, True)
    ]
    assert beside_s < there_s
    beside = with_a_budget("200MiB", policy, 0, cores=True).run_counts
    assert beside.loads.loads > 20
    assert sum(each.completed for each in beside.models.values()) > 3 * 200, "77/s without loads"


def test_with_ample_memory_nothing_is_loaded_later() -> None:
    ample, none = with_a_budget("288MiB"), with_a_budget("")
    assert not ample.run_counts.loads
    assert ample.run_counts.duration_s == none.run_counts.duration_s


def test_a_budget_too_small_for_a_network_is_one_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="'resnet101' needs at least 172 MiB at a time"):
        with_a_budget("171MiB")
