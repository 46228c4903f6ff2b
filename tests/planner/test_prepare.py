"""From a scenario to all that a run needs: what may run where, and why not otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinfer.errors import BackendError, ConfigurationError, UnknownNameError
from coinfer.experiments.certificate import certify
from coinfer.hardware.cores import find_cores
from coinfer.planner.prepare import prepare
from coinfer.planner.processors import choose_processors
from coinfer.profiling import Effort, Profiler
from coinfer.runtime.prepared import Prepared
from coinfer.testing.models import fixed_batch
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario
from profiling.fakes import LINEAR, FakeBackend

QUICK = Effort(warmup_runs=0, min_runs=2, max_runs=2)
CORE = find_cores().numbers[0]
FP32 = f"{{name: p, backend: fake, cores: [{CORE}]}}"
BF16 = f"{{name: low, backend: fake, cores: [{CORE}], precision: bf16}}"
ALLOW = "precision: {allow: [bf16], tolerance: 0.02}"


@pytest.fixture(autouse=True)
def linear_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is the one that the fake backend computes."""
    monkeypatch.setattr(
        "coinfer.planner.prepare.resolve_model",
        lambda source, *, name, data_root: _named(source, name),
    )


def _named(source: str, name: str) -> Any:
    import dataclasses

    found = fixed_batch().model if "fixed" in source else LINEAR.model
    return dataclasses.replace(found, name=name)


def scenario(
    *lines: str, processors: str = FP32, models: str = "{m: a.onnx}", base: Path = Path()
) -> Scenario:
    return parse_scenario(
        f"models: {models}\narrivals: {{mix: {{in_flight: 1}}}}\nprocessors: [{processors}]\n"
        + "\n".join(lines),
        base=base,
    )


def prepared(wanted: Scenario, backend: FakeBackend | None = None) -> Prepared:
    fake = FakeBackend() if backend is None else backend
    return prepare(wanted, Profiler(effort=QUICK, backends={"fake": fake}))


def test_described_processors_are_all_measured_and_loaded() -> None:
    ready = prepared(scenario(ALLOW, processors=f"{FP32}, {BF16}"))
    assert ready.plan.measured.processors() == ready.plan.profile.processors() == ("p", "low")


def test_express_processors_are_there_but_neither_measured_nor_assigned_to() -> None:
    express = f"{{name: p+, backend: fake, cores: [{CORE}], overlays: [core{CORE}]}}"
    ready = prepared(scenario(processors=f"{FP32}, {express}"))
    assert [p.name for p in ready.plan.processors] == ["p", "p+"]
    assert ready.plan.measured.processors() == ready.plan.profile.processors() == ("p",)
    certificate = certify(ready.scenario, ready.plan.machine)
    assert certificate.bound.throughput_per_s == pytest.approx(
        1 / ready.plan.measured.expected_s("m", "p")
    )
    assigned = "policy: {name: fixed, assignment: {m: p+}}"
    with pytest.raises(UnknownNameError, match=r"unknown processor in the policy's options 'p\+'"):
        prepared(scenario(assigned, processors=f"{FP32}, {express}"))


def test_an_express_processor_that_stands_on_no_other_is_refused() -> None:
    express = f"{{name: p+, backend: fake, cores: [{CORE}], overlays: [elsewhere]}}"
    with pytest.raises(ConfigurationError, match=r"'p\+' stands on no other"):
        choose_processors(scenario(processors=f"{FP32}, {express}"))


@pytest.mark.parametrize(("error", "runs"), [(0.01, True), (0.05, False), (float("nan"), False)])
def test_a_lower_precision_runs_what_stays_within_the_tolerance(error: float, runs: bool) -> None:
    ready = prepared(scenario(ALLOW, processors=f"{FP32}, {BF16}"), FakeBackend(error=error))
    assert ("low" in ready.plan.profile.processors()) is runs
    assert ("low" in ready.plan.measured.processors()) is runs
    assert any("low" in warning for warning in ready.plan.warnings) is not runs


def test_the_tolerance_holds_for_requests_of_several_samples_too() -> None:
    wanted = scenario(ALLOW, processors=f"{FP32}, {BF16}", models="{m: {source: a.onnx, batch: 4}}")
    assert prepared(wanted, FakeBackend(error=0.5)).plan.profile.processors() == ("p",)


def test_the_measured_error_is_reported_by_processor_and_model() -> None:
    ready = prepared(scenario(ALLOW, processors=f"{FP32}, {BF16}"), FakeBackend(error=0.01))
    assert ready.plan.output_errors == {"low": {"m": pytest.approx(0.01, rel=1e-4)}}


def test_the_refusal_names_model_processor_error_and_tolerance() -> None:
    ready = prepared(scenario(ALLOW, processors=f"{FP32}, {BF16}"), FakeBackend(error=0.25))
    assert ready.plan.warnings == (
        "m does not run on low: its output error against fp32 is 0.25, the tolerance 0.02",
    )


def test_a_model_that_is_nowhere_precise_enough_is_one_error() -> None:
    with pytest.raises(ConfigurationError, match=r"precisely enough: .*0\.25.*raise the tolerance"):
        prepared(scenario(ALLOW, processors=BF16), FakeBackend(error=0.25))


def test_a_processor_that_cannot_load_a_model_is_left_out_with_a_warning() -> None:
    both = f"{FP32}, {{name: q, backend: fake, cores: [{CORE}], threads: 2}}"
    ready = prepared(scenario(processors=both), FakeBackend(refused=frozenset({"q"})))
    assert ready.plan.profile.processors() == ("p",)
    assert ready.plan.warnings == ("model 'm' on processor 'q': refused",)


def test_a_model_that_nothing_loads_is_one_error_with_the_reason() -> None:
    with pytest.raises(BackendError, match=r"no processor runs model 'm': .*'p': refused"):
        prepared(scenario(), FakeBackend(refused=frozenset({"p"})))


def test_requests_of_several_samples_use_the_entry_of_that_batch() -> None:
    backend = FakeBackend()
    models = "{m: {source: a.onnx, batch: {samples: 4, max: off}}, n: {source: a.onnx, batch: off}}"
    ready = prepared(scenario(models=models), backend)
    assert {(key.model, key.batch) for key in ready.plan.profile.entries} == {("m", 4), ("n", 1)}
    assert {len(feed["x"]) for feed in ready.feeds["m"]} == {4}
    # Two together only to find out whether the first axis is the batch.
    assert set(backend.batches) == {1, 2, 4}


def test_a_fixed_batch_is_measured_with_the_samples_it_takes(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((4, 3), np.float32))
    onnx = f"{{name: p, backend: onnxruntime, cores: [{CORE}]}}"
    models = "{m: {source: fixed.onnx, batch: 2, inputs: in.npz}}"
    ready = prepared(scenario(processors=onnx, models=models, base=tmp_path))
    assert ready.plan.models["m"].filling == 2
    assert [key.batch for key in ready.plan.profile.entries] == [2]
    assert {feed["x"].shape for feed in ready.feeds["m"]} == {(2, 3)}


def test_superfluous_processors_are_pruned_only_where_none_were_asked_for() -> None:
    both = f"{FP32}, {{name: twin, backend: fake, cores: [{CORE}]}}"
    ready = prepared(scenario(processors=both))
    assert ready.plan.profile == ready.plan.measured


def test_more_thread_pools_than_there_is_room_for_are_not_loaded() -> None:
    both = f"{FP32}, {{name: wide, backend: fake, units: [a, b], threads: 2}}"
    models = "{" + ", ".join(f"m{i}: a.onnx" for i in range(20)) + "}"
    ready = prepared(scenario(processors=both, models=models))
    assert ready.plan.profile.processors() == ("p",)
    assert ready.plan.measured.processors() == ("p", "wide")
    assert "thread pools" in ready.plan.warnings[0]


FIXED = "policy: {name: fixed, options: {assignment: {%s}}}"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("m: nowhere", "unknown processor in the policy's options 'nowhere'.*Known: p"),
        ("m: p, x: p", "unknown model in the policy's options 'x'"),
    ],
)
def test_an_assignment_with_unknown_names_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        prepared(scenario(FIXED % assignment))


def test_an_assignment_that_leaves_a_model_out_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no processor for 'n'"):
        prepared(scenario(FIXED % "m: p", models="{m: a.onnx, n: a.onnx}"))


def test_an_assignment_to_a_processor_that_cannot_run_the_model_says_why() -> None:
    both = f"{FP32}, {{name: q, backend: fake, cores: [{CORE}], threads: 2}}"
    with pytest.raises(ConfigurationError, match=r"puts 'm' on 'q'.*refused"):
        prepared(scenario(FIXED % "m: q", processors=both), FakeBackend(refused=frozenset({"q"})))


def test_names_in_the_policy_are_checked_before_anything_is_measured() -> None:
    backend = FakeBackend()
    with pytest.raises(UnknownNameError):
        prepared(scenario(FIXED % "m: nowhere"), backend)
    assert not backend.loads


class TestChooseProcessors:
    def test_default_is_what_is_found(self) -> None:
        wanted = scenario().model_copy(
            update={
                "processors": parse_scenario(
                    "models: {m: a.onnx}\narrivals: {mix: {in_flight: 1}}"
                ).processors
            }
        )
        assert "cpu0" in {processor.name for processor in choose_processors(wanted)}

    def test_found_ones_can_be_named(self) -> None:
        assert [p.name for p in choose_processors(scenario(processors="cpu0"))] == ["cpu0"]

    def test_an_unknown_name_points_to_doctor(self) -> None:
        with pytest.raises(UnknownNameError, match=r"unknown processor 'gpu7'.*coinfer doctor"):
            choose_processors(scenario(processors="gpu7"))

    def test_a_core_that_may_not_be_used_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="core 4711 may not be used"):
            choose_processors(scenario(processors="{name: p, backend: fake, cores: [4711]}"))

    def test_two_processors_of_one_name_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="two processors are named 'p'"):
            choose_processors(scenario(processors=f"{FP32}, {FP32}"))
