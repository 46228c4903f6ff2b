"""What a change of the model on a processor costs is part of what policies compare."""

from __future__ import annotations

import pytest

from coinfer.core.dispatcher import Dispatcher
from coinfer.core.events import Arrived, Finished, ModelLoaded, ModelUnloaded
from coinfer.core.request import OnLate, Outcome
from coinfer.core.residency import Residency
from coinfer.machine.machine_file import parse_machine
from coinfer.machine.profile import Profile
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.testing.machine import VirtualMachine, processors, profile, request
from coinfer.workload.scenario_file import parse_scenario
from core.compiled import only_plain

COUNTING = (
    "earliest_finish", "heft", "heft_reserved", "least_slack", "max_min", "min_min",
    "shortest_expected_latency", "sufferage", "two_queues",
)  # fmt: skip

SECONDS = {"a": {"npu": 0.1, "cpu": 0.3}, "b": {"npu": 0.1, "cpu": 0.3}}


def machine(policy: str, swap_s: float, **options: object) -> VirtualMachine:
    found = VirtualMachine(processors("npu", "cpu"), make_policy(policy, **options), {})
    for model, row in SECONDS.items():
        found.post(ModelLoaded(model, 1, profile(model, row), (), {"npu": swap_s}))
    return found


def placed(subject: VirtualMachine) -> list[tuple[str, str]]:
    return [(e.model, e.processor) for e in subject.executions]


class TestSlots:
    def test_only_a_change_costs(self) -> None:
        slots = Residency()
        slots.add("a", {"npu": 0.4, "cpu": 0.0})
        slots.add("b", {"npu": 0.5})
        assert slots.costs == {"npu": {"a": 0.4, "b": 0.5}}
        assert slots.added_to({"npu": 1.0, "cpu": 2.0}, "a") == {"npu": 1.0, "cpu": 2.0}
        slots.hold("npu", "b")
        slots.hold("cpu", "b")
        assert slots.added_to({"npu": 1.0, "cpu": 2.0}, "a") == {"npu": 1.4, "cpu": 2.0}
        assert slots.added_to({"npu": 1.0, "cpu": 2.0}, "b") == {"npu": 1.0, "cpu": 2.0}

    def test_a_copy_goes_its_own_way(self) -> None:
        slots = Residency()
        slots.add("a", {"npu": 0.4})
        slots.hold("npu", "b")
        foreseen = slots.copy()
        foreseen.hold("npu", "a")
        assert (slots.cost_s("npu", "a"), foreseen.cost_s("npu", "a")) == (0.4, 0.0)

    def test_a_processor_whose_last_change_costs_nothing_any_more_holds_nothing(self) -> None:
        slots = Residency()
        slots.add("a", {"npu": 0.4})
        slots.add("b", {"gpu": 0.5})
        slots.hold("npu", "b")
        slots.forget("a")
        assert slots.added_to({"npu": 1.0, "gpu": 2.0}, "b") == {"npu": 1.0, "gpu": 2.0}
        assert slots.added_to({"npu": 1.0, "gpu": 2.0}, "c") == {"npu": 1.0, "gpu": 2.0}

    def test_a_model_that_is_gone_leaves_nothing(self) -> None:
        slots = Residency()
        slots.add("a", {"npu": 0.4})
        slots.hold("npu", "a")
        slots.forget("a")
        assert not slots.costs
        slots.add("b", {"npu": 0.5})
        assert slots.cost_s("npu", "b") == 0.0


@pytest.mark.parametrize("policy", COUNTING)
def test_a_dear_change_sends_a_request_elsewhere_and_a_cheap_one_does_not(policy: str) -> None:
    for swap_s, expected in ((0.1, "npu"), (0.4, "cpu")):
        subject = machine(policy, swap_s)
        subject.submit("a")
        subject.run()
        subject.submit("b")
        assert placed(subject) == [("a", "npu"), ("b", expected)]


@pytest.mark.parametrize("policy", COUNTING)
def test_behind_another_model_the_change_counts_too(policy: str) -> None:
    subject = machine(policy, 0.15)
    subject.submit("a")
    subject.submit("b")  # 0.1 + 0.15 + 0.1 there, 0.3 on the cpu
    assert placed(subject) == [("a", "npu"), ("b", "cpu")]


def test_the_change_of_the_model_counts_in_what_is_hopeless() -> None:
    subject = machine("fcfs", 0.4)
    for _ in range(2):
        subject.submit("a")  # one runs on the npu, one on the cpu
    for model, patience_s in (("b", 0.25), ("b", 0.35), ("a", 0.15), ("a", 0.05)):
        subject.submit(model, deadline_s=patience_s, on_late=OnLate.DROP)
    view = subject.dispatcher.view
    hopeless = [view.is_hopeless(lane, request) for lane, request in view.in_order()]
    assert hopeless == [True, False, False, True]  # b takes 0.4 + 0.1 on the npu, 0.3 on the cpu


@pytest.mark.parametrize("policy", ["edf", "earliest_finish"])
def test_what_a_change_makes_hopeless_is_dropped_at_once(policy: str) -> None:
    subject = machine(policy, 0.4)
    subject.submit("a")
    subject.run()
    number = subject.submit("b", deadline_s=subject.now + 0.25, on_late=OnLate.DROP)
    assert subject.outcomes()[number] is Outcome.DROPPED


@pytest.mark.parametrize("policy", ["heft", "heft_reserved", "least_slack"])
def test_a_network_that_is_cut_stays_where_the_change_is_not_needed(policy: str) -> None:
    for swap_s, expected in ((0.05, {"npu"}), (0.5, {"cpu"})):
        subject = machine(policy, 0.0)
        cut = profile("cut", {"npu": 0.1, "cpu": 0.3}, units=3)
        subject.post(ModelLoaded("cut", 3, cut, (), {"npu": swap_s}))
        subject.submit("a")
        subject.run()
        number = subject.submit("cut")
        subject.run()
        steps = [e for e in subject.executions if e.requests[0].id == number]
        assert {step.processor for step in steps} == expected
        assert steps[0].expected_s == pytest.approx(0.3 if swap_s > 0.3 else 0.1 + swap_s)


def test_the_time_of_the_change_is_expected_and_not_learned() -> None:
    core = Dispatcher(processors("npu"), make_policy("fcfs"))
    for model in ("a", "b"):
        known = Profile.from_seconds({model: {"npu": 0.1}})
        core.handle(ModelLoaded(model, 1, known, (), {"npu": 0.4}), 0.0)
    expected = []
    now = 0.0
    for number, model in enumerate("abba"):
        run = core.handle(Arrived(request(model, id=number, arrival_s=now)), now)[0]
        expected.append(run.execution.expected_s)
        now += run.execution.expected_s
        core.handle(Finished(run.execution.id, run.execution.expected_s), now)
        core.check()
    assert expected == pytest.approx([0.1, 0.5, 0.1, 0.5])
    assert core.view.expected_s(core.view.entrance("a"), "npu") == pytest.approx(0.1)
    core.handle(ModelUnloaded("a"), now)
    core.handle(ModelUnloaded("b"), now)
    assert not core._state.residency.costs


MACHINE = """
processors: {cpu: {}, npu: {one_model: true, load: LOAD}}
times: {a: {cpu: 30ms, npu: 5ms}, b: {cpu: 30ms, npu: 5ms}}
"""


def latencies_s(policy: str, load: str) -> float:
    scenario = parse_scenario(
        "models: {a: x.onnx, b: y.onnx}\narrivals: {a: {poisson: 18/s}, b: {poisson: 18/s}}\n"
        "duration: 60s\nwarmup: 5s\nseed: 3"
    )
    described = parse_machine(MACHINE.replace("LOAD", load))
    run_counts = simulate(scenario, Plan.of(described), make_policy(policy)).run_counts
    return run_counts.models["a"].latencies.mean_s() + run_counts.models["b"].latencies.mean_s()


@only_plain
@pytest.mark.parametrize("policy", ["earliest_finish", "heft", "sufferage"])
def test_who_counts_the_change_is_not_caught_in_changing(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted_s = latencies_s(policy, "100ms")
    monkeypatch.setattr(Residency, "added_to", lambda _self, seconds, _model: seconds)
    monkeypatch.setattr(Residency, "costs_of", lambda _self, _model: {})
    assert counted_s < 0.5 * latencies_s(policy, "100ms")


@pytest.mark.parametrize("policy", COUNTING)
def test_a_change_that_costs_nothing_changes_nothing(policy: str) -> None:
    without = MACHINE.replace(", npu: {one_model: true, load: LOAD}", ", npu: {}")
    scenario = parse_scenario(
        "models: {a: x.onnx, b: y.onnx}\narrivals: {a: {poisson: 80/s}, b: {poisson: 80/s}}\n"
        "duration: 5s"
    )
    found = [
        simulate(scenario, Plan.of(parse_machine(text)), make_policy(policy))
        .run_counts.models["a"]
        .served
        for text in (without, MACHINE.replace("LOAD", "0s"))
    ]
    assert found[0] == found[1]
