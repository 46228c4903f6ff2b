"""`policy: auto`: what is chosen and why, what is refused, and what no policy can keep."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from coinfer.backends.null import NullBackend
from coinfer.errors import ConfigurationError, ScenarioError
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor
from coinfer.plan import AUTO, Plan, PolicyChoice
from coinfer.plan.plan_folder import load_plan, save_plan
from coinfer.planner.make_plan import make_plan
from coinfer.planner.passes import policy
from coinfer.planner.planned_scenario import planned_scenario
from coinfer.planner.prepare import prepare
from coinfer.planner.wishes import Wishes
from coinfer.policies import make_policy
from coinfer.profiling import Effort, Profiler
from coinfer.runtime.prepared import Prepared
from coinfer.testing.models import tiny_linear
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario
from sim.machines import machine

MACHINE = """
processors: {cpu: {}, npu: {}}
times:
  front: {cpu: 40ms, npu: 4ms}
  log: {cpu: 45ms, npu: 30ms}
"""
FRONT = "models: {front: {source: a.onnx, deadline: 20ms}, log: {source: b.onnx}}\n"
LOOP = f"{FRONT}arrivals: {{front: {{periodic: 50/s}}, log: {{closed: 4}}}}\nduration: 5s\n"


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "BUDGET", 6_000)


def described(folder: Path, text: str) -> Prepared:
    path = folder / "machine.yaml"
    path.write_text(MACHINE)
    return prepare(parse_scenario(text), machine_file=path)


def test_a_policy_is_chosen_with_the_reasons_and_all_others_beside_it(tmp_path: Path) -> None:
    plan = described(tmp_path, f"{LOOP}policy: auto\n").plan
    make_policy(plan.policy.name, **plan.policy.options)
    [why] = plan.policy_why
    assert why.what.startswith(f"{plan.policy.text}, ")
    assert "in time" in why.what
    assert "where times are off by 1.5x" in why.what
    named = {each.name.split(" ")[0] for each in why.alternatives} | {plan.policy.name}
    assert {"earliest_finish", "edf", "fcfs", "heft", "fixed", "two_queues"} <= named
    assert all("requests" in each.why for each in why.alternatives)


def test_without_being_asked_nothing_is_chosen(tmp_path: Path) -> None:
    plan = described(tmp_path, LOOP).plan
    assert plan.policy == PolicyChoice()
    assert plan.policy_why == ()


def test_the_same_scenario_gives_the_same_plan(tmp_path: Path) -> None:
    one, other = (described(tmp_path, f"{LOOP}policy: auto\n").plan for _ in range(2))
    assert one == other


def test_no_deadline_at_all_and_one_model_only(tmp_path: Path) -> None:
    text = "models: {log: b.onnx}\narrivals: {mix: {in_flight: 3}}\nduration: 5s\npolicy: auto\n"
    plan = described(tmp_path, text).plan
    assert "/s" in plan.policy_why[0].what
    assert "in time" not in plan.policy_why[0].what
    assert not any("deadlines" in warning for warning in plan.warnings)


def test_options_beside_it_are_refused_with_the_line() -> None:
    with pytest.raises(ScenarioError, match=r":4: policy.*chooses the options too.*'patience_s'"):
        parse_scenario(f"{LOOP}policy: {{name: auto, patience_s: 2}}\n")
    wanted = parse_scenario(LOOP)
    with pytest.raises(ConfigurationError, match="chooses the options too"):
        wanted.with_options(policy=AUTO, policy_options={"patience_s": 2})


def test_it_is_no_policy_where_there_is_no_scenario() -> None:
    profiler = Profiler(effort=Effort(max_runs=2), backends={"null": NullBackend()})
    cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    wishes = Wishes(policy=PolicyChoice(name=AUTO))
    with pytest.raises(ConfigurationError, match="there is none; name a policy"):
        make_plan({"m": tiny_linear().model}, [cpu], wishes, profiler)


def test_the_choice_is_saved_and_read_again(tmp_path: Path) -> None:
    plan = described(tmp_path, f"{LOOP}policy: auto\n").plan
    save_plan(plan, tmp_path / "plan")
    assert load_plan(tmp_path / "plan").plan == plan
    asked = parse_scenario(f"{LOOP}policy: auto\n")
    taken = planned_scenario(asked, tmp_path / "plan", is_simulated=True).plan
    assert (taken.policy, taken.policy_why) == (plan.policy, plan.policy_why)
    assert not any("the plan's policy" in warning for warning in taken.warnings)


def test_it_is_chosen_for_a_saved_plan_when_asked_and_its_reasons_go_with_another_policy(
    tmp_path: Path,
) -> None:
    save_plan(described(tmp_path, LOOP).plan, tmp_path / "plan")
    asked = parse_scenario(LOOP).with_options(policy=AUTO)
    found = planned_scenario(asked, tmp_path / "plan", policy=AUTO, is_simulated=True).plan
    assert found.policy.name != AUTO
    assert found.policy_why
    save_plan(found, tmp_path / "plan")
    named = parse_scenario(LOOP).with_options(policy="sjf")
    other = planned_scenario(named, tmp_path / "plan", policy="sjf", is_simulated=True).plan
    assert other.policy.name == "sjf"
    assert other.policy_why == ()


def test_what_no_policy_keeps_is_said_with_the_rates_that_one_would(tmp_path: Path) -> None:
    text = (
        "models: {front: {source: a.onnx, deadline: 20ms, on_late: drop}}\n"
        "arrivals: {front: {periodic: 500/s}}\nduration: 5s\npolicy: auto\n"
    )
    [warning] = described(tmp_path, text).plan.warnings
    assert "no policy keeps the deadlines" in warning
    assert "front is the first to break" in warning
    factor = float(warning.split("multiplied by ")[1].split(" ")[0])
    assert factor == pytest.approx(1 / (500 * 0.004 * 0.95), rel=0.06)  # a server and its period
    kept = parse_scenario(text).scaled(0.95 * factor)
    path = tmp_path / "machine.yaml"
    assert prepare(kept, machine_file=path).plan.warnings == ()


def test_of_closed_loops_there_are_no_rates_to_name(tmp_path: Path) -> None:
    text = (
        "models: {log: {source: b.onnx, deadline: 40ms}}\n"
        "arrivals: {log: {closed: 4}}\nduration: 5s\npolicy: auto\n"
    )
    [warning] = described(tmp_path, text).plan.warnings
    assert "of those of log the best one meets" in warning
    assert warning.endswith("give it more time, or less to do")


def test_a_deadline_shorter_than_the_run_is_named_and_nothing_is_searched(tmp_path: Path) -> None:
    text = (
        "models: {front: {source: a.onnx, deadline: 2ms}, log: b.onnx}\n"
        "arrivals: {front: {periodic: 10/s}, log: {closed: 1}}\nduration: 5s\npolicy: auto\n"
    )
    [warning] = described(tmp_path, text).plan.warnings
    assert warning.endswith(
        "of those of front the best one meets 0.0%: front takes at least 4 ms, and its deadline is "
        "2 ms at any rates"
    )


def test_a_period_shorter_than_the_run_is_named_with_the_rates_at_which_it_is_not(
    tmp_path: Path,
) -> None:
    text = (
        "models: {front: {source: a.onnx, deadline: period, on_late: drop}}\n"
        "arrivals: {front: {periodic: 500/s}}\nduration: 5s\npolicy: auto\n"
    )
    [warning] = described(tmp_path, text).plan.warnings
    assert "front takes at least 4 ms, and its deadline is 2 ms, one period" in warning
    assert "front is the first to break" in warning
    factor = float(warning.split("multiplied by ")[1].split(" ")[0])
    assert factor == pytest.approx(1 / (500 * 0.004), rel=0.04)


def test_what_loops_break_at_any_rate_is_given_up_within_the_budget() -> None:
    """On one processor every frame may have to wait for a run of the loop."""
    plan = Plan.of(machine({"a": {"p": 0.004}, "b": {"p": 0.05}}))
    warnings = policy.with_best_policy(plan, core_load()).warnings
    assert [warning for warning in warnings if "None does with the rates multiplied by" in warning]


CORE = Processor(name="cpu0", backend="null", units=frozenset({"core0"}))
EXPRESS = Processor(
    name="cpu0+", backend="null", units=frozenset({"core0+"}), overlays=frozenset({"core0"})
)


def core_plan() -> Plan:
    on = machine({"a": {"cpu0": 0.004}, "b": {"cpu0": 0.05}})
    plan = Plan.of(dataclasses.replace(on, processors=(CORE, EXPRESS)))
    return plan.with_batching("b", Batching(4, 0.0))


def core_load(**fields: object) -> Scenario:
    return Scenario.model_validate(
        {
            "models": {"a": {"source": "zoo:lenet", "deadline": 0.02}, "b": "zoo:lenet"},
            "arrivals": {"a": {"periodic": 50.0}, "b": {"closed": 1}},
            "duration": 5.0,
            **fields,
        }
    )


def test_what_planning_added_may_be_left_out_and_what_was_asked_for_not() -> None:
    forms = dict(policy._forms(core_plan(), core_load()))
    assert list(forms) == ["", "without preemption", "without batching"]
    assert [p.name for p in forms["without preemption"].processors] == ["cpu0"]
    assert forms["without batching"].together == {}
    batched = {"a": "zoo:lenet", "b": {"source": "zoo:lenet", "batch": {"max": 4}}}
    asked = core_load(models=batched, processors={"preempt": True})
    assert list(policy._forms(core_plan(), asked)) == [("", core_plan())]


def test_preemption_stays_where_it_keeps_deadlines() -> None:
    found = policy.with_best_policy(core_plan(), core_load())
    assert any(processor.overlays for processor in found.processors)
    [why] = found.policy_why
    lost = [each for each in why.alternatives if "without preemption" in each.name]
    assert lost
