"""From a scenario with a `partition` section to what an engine loads and a simulation needs."""

from __future__ import annotations

import pytest

from coinfer.backends.null import NullBackend
from coinfer.errors import BackendError, ConfigurationError
from coinfer.graph.cut_model import CutModel
from coinfer.machine.contention import Contention
from coinfer.machine.profile import Measurement
from coinfer.machine.span import Fork, Span, completes
from coinfer.machine.submission import Submission
from coinfer.model import Model
from coinfer.planner.passes.surroundings import whole_profile
from coinfer.planner.prepare import prepare
from coinfer.profiling import Effort, Profiler
from coinfer.profiling import profiler as profiler_module
from coinfer.profiling.budget import Budget
from coinfer.runtime.prepared import Prepared
from coinfer.workload.scenario_file import parse_scenario
from planner.test_span_selection import FakeProfiler

QUICK = Effort(warmup_runs=0, min_runs=2, max_runs=2)
PROCESSORS = """
  - {name: npu, backend: "null", units: [npu], unsupported_ops: [GlobalAveragePool]}
  - {name: cpu, backend: "null", units: [cpu]}
"""


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeProfiler:
    found = FakeProfiler(
        {"npu": {"Conv": 0.001}, "cpu": {"Conv": 0.010, "GlobalAveragePool": 0.001}}
    )
    monkeypatch.setattr(profiler_module, "profile_models", found.profile)
    return found


def one_cut(policy: str = "fcfs", section: str = "{minimum_subgraph_size: 1}") -> Prepared:
    wanted = parse_scenario(
        f"models:\n  cut: {{source: 'zoo:tiny_cnn', partition: {section}}}\n"
        "  whole: 'zoo:tiny_cnn'\n"
        f"arrivals: {{mix: {{in_flight: 1}}}}\nprocessors: {PROCESSORS}\npolicy: {policy}\n"
    )
    return prepare(wanted, Profiler(effort=QUICK, backends={"null": NullBackend()}))


def cut_of(ready: Prepared, name: str = "cut") -> CutModel:
    model = ready.models[name]
    assert isinstance(model, CutModel)
    return model


def test_an_engine_loads_the_cut_model_and_the_whole_one() -> None:
    ready = one_cut()
    assert isinstance(ready.models["cut"], CutModel)
    assert isinstance(ready.models["whole"], Model)
    spans = {key.span for key, _ in ready.plan.profile if key.model == "cut"}
    assert completes(spans, ready.plan.models["cut"].original.n_units)
    assert ready.plan.models["cut"].original.n_units > 1
    assert {key.processor for key, _ in ready.plan.profile if key.model == "cut"} == {"npu", "cpu"}
    assert {key.processor for key, _ in ready.plan.profile if key.model == "whole"} == {"cpu"}


def test_the_bound_rests_on_all_that_was_measured_of_the_cut_model() -> None:
    ready = one_cut()
    of_cut = {key for key, _ in ready.plan.measured if key.model == "cut"}
    assert {key for key, _ in ready.plan.profile if key.model == "cut"} <= of_cut


def test_where_a_cut_model_runs_whole_it_stands_for_itself_in_measurements() -> None:
    """Contention is measured with whole models, and only where they run."""
    assert [tuple(key[:2]) for key, _ in whole_profile(one_cut().plan)] == [
        ("whole", "cpu"),
        ("cut", "cpu"),
    ]
    assert all(key.span == Span() for key, _ in whole_profile(one_cut().plan))


def test_what_partitioning_costs_in_memory_is_said() -> None:
    ready = one_cut()
    (note,) = [warning for warning in ready.plan.warnings if "hold" in warning]
    cut = cut_of(ready)
    assert f"cut is cut into {len(cut.pieces)} spans of {cut.units} units" in note
    assert "more than the whole model" in note


def test_the_size_of_subgraphs_is_searched_where_the_scenario_says_so() -> None:
    """Every convolution is ten times faster on `npu`, so even small islands are worth it."""
    cut = cut_of(one_cut(section="{minimum_subgraph_size: search}"))
    assert "npu" in cut.profile.processors()


def test_a_fixed_policy_may_put_a_cut_model_on_a_processor_that_runs_a_part_of_it() -> None:
    ready = one_cut("{name: fixed, assignment: {cut: npu, whole: cpu}}")
    assert ready.plan.profile.expected_s("cut", "npu", span=Span(0, 0)) is not None
    with pytest.raises(ConfigurationError, match="'whole' on 'npu', which does not run it"):
        one_cut("{name: fixed, assignment: {cut: npu, whole: npu}}")


def test_a_model_that_runs_nowhere_is_named(fake: FakeProfiler) -> None:
    fake.refused = lambda model, processor: model != "whole"
    with pytest.raises(BackendError, match="'cut' together"):
        one_cut()


def test_branches_that_are_worth_it_reach_the_machine_that_is_simulated(
    fake: FakeProfiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.seconds |= {name: {"Conv": 0.010} for name in ("cpu0", "cpu1")}
    where = "coinfer.planner.passes.surroundings"
    monkeypatch.setattr(f"{where}.measure_contention", lambda *_, **__: Contention())
    monkeypatch.setattr(f"{where}.measure_cold", lambda *_, **__: {})
    monkeypatch.setattr(
        "coinfer.experiments.handover.handover", lambda *_, **__: Measurement(seconds=(0.5, 1.5))
    )
    monkeypatch.setattr(
        "coinfer.experiments.submission.submission", lambda *_, **__: Submission(0.25, 0.125)
    )
    forks = {}
    for branches in ("true", "false"):
        wanted = parse_scenario(
            f"models:\n  net: {{source: 'zoo:tiny_branchy', partition: {{branches: {branches}}}}}\n"
            "arrivals: {net: {closed: 1}}\npolicy: heft\nprocessors:\n"
            "  - {name: cpu0, backend: 'null', units: [a]}\n"
            "  - {name: cpu1, backend: 'null', units: [b]}\n"
        )
        profiler = Profiler(effort=QUICK, backends={"null": NullBackend()})
        ready = prepare(wanted, profiler, surroundings=True)
        planned = ready.plan.models["net"].original.forks
        assert planned == cut_of(ready, "net").forks
        machine = ready.plan.machine
        assert machine.submission == Submission(0.25, 0.125)
        assert (machine.overhead_s, machine.overhead_factors) == (1.0, (0.5, 1.5))
        forks[branches] = planned
    assert Fork(1, 2, 2) in forks["true"]
    assert forks["false"] == ()


def test_what_a_simulation_needs_is_not_measured_once_the_time_for_measuring_is_spent(
    fake: FakeProfiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_run(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    fake.seconds["cpu0"] = {"Conv": 0.010}
    where = "coinfer.planner.passes.surroundings"
    monkeypatch.setattr(f"{where}.measure_contention", must_not_run)
    monkeypatch.setattr(f"{where}.measure_cold", must_not_run)
    wanted = parse_scenario(
        "models:\n  net: {source: 'zoo:tiny_cnn'}\narrivals: {net: {closed: 1}}\npolicy: fcfs\n"
        "processors:\n  - {name: cpu0, backend: 'null', units: [a]}\n"
    )
    profiler = Profiler(effort=QUICK, backends={"null": NullBackend()}, budget=Budget(0.0))
    ready = prepare(wanted, profiler, surroundings=True)
    assert any("cold starts are not measured" in warning for warning in ready.plan.warnings)
