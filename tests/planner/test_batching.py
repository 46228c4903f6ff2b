"""Which models are batched, for how many samples, and why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coinfer.errors import ScenarioError
from coinfer.machine.batching import Batching
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.model import Model
from coinfer.plan import Plan
from coinfer.plan.plan_folder import load_plan, save_plan
from coinfer.planner.columns import Demand
from coinfer.planner.make_plan import Planned, make_plan
from coinfer.planner.passes.batching import chosen_batching
from coinfer.planner.wishes import Wishes
from coinfer.profiling import Effort, Profiler
from coinfer.profiling.context import by_class
from coinfer.testing.models import model_from_text, tiny_linear
from coinfer.workload.batch_spec import BatchSpec
from coinfer.workload.scenario_file import parse_scenario

CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core0"}))
QUICK = Effort(warmup_runs=0, min_runs=2, max_runs=2)
EIGHT = BatchSpec.of({"max": 8})

COMPANY = model_from_text(
    """agraph (float[N,4] x) => (float[N,4] y) <float s = {0.02}>
    { m = ReduceMax <keepdims = 0> (x) d = Mul(m, s) y = Add(x, d) }""",
    name="m",
)
"""Each answer is shifted a little by the largest number in the whole batch."""
NO_AXIS = model_from_text(
    """agraph (float[N,4] x) => (float[N,4] y, float[4] m) <float[4] b = {1, 2, 3, 4}>
    { y = Relu(x) m = Identity(b) }""",
    name="m",
)

FIXED_ROWS = model_from_text(
    """agraph (float[4,3] x) => (float[4,3] y)
    { y = Softmax <axis = 0> (x) }""",
    name="m",
)
"""Four rows that depend on each other: no batch."""
FIXED_PLACES = model_from_text(
    """agraph (float[4,1] x) => (float[4,1] y) <float[4,1] b = {1, 2, 3, 4}>
    { y = Add(x, b) }""",
    name="m",
)
"""What a row gets depends on its place: no batch."""
FIXED_ONE = model_from_text(
    "agraph (float[1,3] x) => (float[1,3] y) { y = Relu(x) }",
    name="m",
)


def planned(model: Model, spec: BatchSpec = EIGHT) -> Planned:
    return make_plan({"m": model}, [CPU], Wishes(riders={"m": spec}), Profiler(effort=QUICK))


def why(plan: Plan) -> str:
    return next(str(c) for c in plan.models["m"].choices if c.by == "batching")


def measured(*shares: float, samples: int = 1) -> Plan:
    """A plan by what a sample takes of a run of its own at batches of 1, 2, 4, 8 and 16."""
    entries = {
        ProfileKey("m", "cpu", samples * 2**at): Measurement(seconds=(share * 2**at * 0.01,))
        for at, share in enumerate((1.0, *shares))
    }
    return Plan.of(Machine(processors=(CPU,), profile=Profile(entries)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (COMPANY, "its answers change with the company that they are computed in"),
        (NO_AXIS, "its open first axis is no batch"),
        (NO_AXIS.with_batch(True), "the first axis of output 'm' is not the batch"),
        (FIXED_ROWS, "its first axis of 4 was not found to be one"),
        (FIXED_PLACES, "its first axis of 4 was not found to be one"),
        (FIXED_ONE, "leaves no batch size open"),
    ],
    ids=["company", "no axis", "no axis, told otherwise", "fixed rows", "fixed places", "fixed 1"],
)
def test_what_must_not_be_batched_is_not_and_the_plan_says_why(model: Model, reason: str) -> None:
    plan = planned(model).plan
    assert plan.models["m"].batching is None
    assert reason in why(plan)
    assert {key.batch for key, _ in plan.profile} == {1}


def test_a_model_that_counts_samples_is_measured_at_larger_batches() -> None:
    plan = planned(tiny_linear().model).plan
    assert plan.models["m"].batching == Batching(8)
    assert {1, 2} <= {key.batch for key, _ in plan.profile}


def test_off_measures_nothing() -> None:
    plan = planned(tiny_linear().model, BatchSpec.of("off")).plan
    assert plan.models["m"].batching is None
    assert why(plan) == "none: as asked"
    assert {key.batch for key, _ in plan.profile} == {1}


def test_a_saved_plan_keeps_it(tmp_path: Path) -> None:
    plan = measured(0.6, 0.4).with_batching("m", Batching(8, 0.002))
    save_plan(plan, tmp_path / "plan")
    again = load_plan(tmp_path / "plan").plan
    assert again.models["m"].batching == Batching(8, 0.002)
    assert {key.batch for key, _ in again.profile} == {key.batch for key, _ in plan.profile}


class TestChoice:
    @pytest.mark.parametrize(
        ("shares", "most"),
        [
            ((0.6, 0.4, 0.3, 0.2), 16),
            ((0.6, 0.4, 0.39, 0.395), 4),  # more hardly pays
            ((0.6, 0.4, 0.7), 4),
            ((0.98, 0.97), None),
            ((1.4,), None),
        ],
    )
    def test_the_smallest_batch_that_is_nearly_the_best(
        self, shares: tuple[float, ...], most: int | None
    ) -> None:
        batching, _ = chosen_batching(measured(*shares), "m", BatchSpec())
        assert batching == (None if most is None else Batching(most))

    def test_a_gain_that_is_only_estimated_counts_less_than_what_was_measured(self) -> None:
        other = Processor(name="other", backend="onnxruntime", units=frozenset({"core1"}))
        entries = dict(measured(0.99, 0.99).profile)
        entries[ProfileKey("m", "other", 1)] = Measurement(seconds=(0.01,))
        for batch in (2, 4):
            guess = Measurement(seconds=(0.3 * 0.01 * batch,), estimated=True)
            entries[ProfileKey("m", "other", batch)] = guess
        plan = Plan.of(Machine(processors=(CPU, other), profile=Profile(entries)))
        batching, choice = chosen_batching(plan, "m", BatchSpec())
        assert batching is None
        assert "0.99x" in str(choice)

    def test_without_columns_there_is_none(self) -> None:
        batching, choice = chosen_batching(measured(), "m", BatchSpec())
        assert batching is None
        assert "no time is known" in str(choice)

    def test_what_is_asked_for_is_taken(self) -> None:
        batching, _ = chosen_batching(measured(0.98), "m", EIGHT)
        assert batching == Batching(8)


class TestMeasuring:
    """What is measured at larger batches, with a profiler that is told the times."""

    @staticmethod
    def plan_of(
        monkeypatch: pytest.MonkeyPatch,
        model: Model,
        seconds: Callable[[int, float], float],
        wishes: Wishes | None = None,
    ) -> Plan:
        """Make a plan where a run takes seconds by batch and by the work of a sample."""

        def profile(_self: Profiler, models: Mapping[str, Model], on: Any, **how: Any) -> Profile:
            entries: dict[ProfileKey, Measurement] = {}
            for name in models:
                classes = by_class(how["feeds"][name], how.get("works", {}).get(name))
                for shape, feeds in classes.items():
                    runs = [seconds(how["batch"], float(feed["x"].size)) for feed in feeds]
                    key = ProfileKey(name, on[0].name, how["batch"], shape=shape)
                    entries[key] = Measurement(seconds=tuple(runs))
            return Profile(entries)

        monkeypatch.setattr(Profiler, "profile", profile)
        samples = [model.sample_inputs(dims=dict.fromkeys(model.open_dims, n)) for n in (4, 64)]
        return make_plan(
            {"m": model}, [CPU], wishes or Wishes(), Profiler(), samples={"m": samples}
        ).plan

    def test_sizes_are_measured_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "agraph (float[N,C] x) => (float[N,C] y) { y = Relu(x) }"
        plan = self.plan_of(
            monkeypatch, model_from_text(text, name="m"), lambda batch, work: work * batch**0.5
        )
        found = {(key.batch, key.shape) for key, _ in plan.profile}
        classes = {shape for batch, shape in found if batch == 1}
        assert len(classes) == 2
        assert found == {(batch, shape) for batch in (1, 2, 4, 8, 16) for shape in classes}
        assert plan.models["m"].batching == Batching(16)
        assert "a sample takes 0.25x" in why(plan)

    @pytest.mark.parametrize(
        ("shares", "most", "largest"),
        [
            ((1.2, 0.6, 0.35, 0.34), 8, 16),  # as long for 2 as for 4
            ((0.6, 0.61, 0.3, 0.295), 8, 16),
            ((1.1, 1.1, 0.1, 0.1), None, 4),  # twice in a row
            ((0.6, 0.61, 0.61, 0.1), 2, 8),
        ],
    )
    def test_one_size_that_does_not_pay_ends_nothing(
        self,
        monkeypatch: pytest.MonkeyPatch,
        shares: tuple[float, ...],
        most: int | None,
        largest: int,
    ) -> None:
        by_batch = dict(zip((1, 2, 4, 8, 16), (1.0, *shares), strict=True))
        model = tiny_linear().model
        plan = self.plan_of(monkeypatch, model, lambda batch, _work: by_batch[batch] * batch)
        assert plan.models["m"].batching == (None if most is None else Batching(most))
        assert max(key.batch for key, _ in plan.profile) == largest

    @pytest.mark.parametrize(
        ("demand", "spec", "largest"),
        [
            (Demand(), BatchSpec(), 16),
            (Demand(deadlines={"other": 0.1}), BatchSpec(), 2),
            (Demand(deadlines={"other": 0.1}), BatchSpec.of({"max": 16}), 16),
        ],
        ids=["no deadline", "deadlines", "as asked"],
    )
    def test_what_deadlines_never_let_run_is_not_measured(
        self, monkeypatch: pytest.MonkeyPatch, demand: Demand, spec: BatchSpec, largest: int
    ) -> None:
        """A run of 4 takes 2.4 times one of a request, and at most 2 are allowed."""
        wishes = Wishes(demand=demand, riders={"m": spec})
        model = tiny_linear().model
        plan = self.plan_of(monkeypatch, model, lambda batch, _: 0.2 + 0.8 * batch**0.75, wishes)
        assert max(key.batch for key, _ in plan.profile) == largest
        assert ("batch 4: not measured: longer than 2 s" in why(plan)) == (largest == 2)

    def test_where_one_processor_was_measured_estimates_of_others_count(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So it is once the time for measuring is over."""

        def profile(_self: Profiler, models: Mapping[str, Model], on: Any, **how: Any) -> Profile:
            batch, (first, *others) = how["batch"], on
            seconds = (batch**0.5,)
            entries = {ProfileKey("m", first.name, batch): Measurement(seconds=seconds)}
            for each in others:
                found = Measurement(seconds=seconds, estimated=batch > 1)
                entries[ProfileKey("m", each.name, batch)] = found
            return Profile(entries)

        monkeypatch.setattr(Profiler, "profile", profile)
        model = tiny_linear().model
        other = Processor(name="other", backend="onnxruntime", units=frozenset({"core1"}))
        samples = {"m": [model.sample_inputs()]}
        plan = make_plan({"m": model}, [CPU, other], Wishes(), Profiler(), samples=samples).plan
        assert plan.models["m"].batching == Batching(16)
        found = {(key.processor, key.batch): entry.estimated for key, entry in plan.profile}
        assert found["cpu", 16] is False
        assert found["other", 16] is True


def scenario(batch: str) -> Any:
    return parse_scenario(
        f"models: {{m: {{source: m.onnx, batch: {batch}}}}}\narrivals: {{m: {{poisson: 5/s}}}}"
    )


class TestScenarios:
    @pytest.mark.parametrize(
        ("batch", "samples", "most"),
        [
            ("4", 4, 16),
            ("auto", 1, 16),
            ("off", 1, 0),
            ("{max: 32, max_delay: 2ms}", 1, 32),
            ("{samples: 2, max: off}", 2, 0),
        ],
    )
    def test_forms(self, batch: str, samples: int, most: int) -> None:
        spec = scenario(batch).models["m"]
        assert (spec.batch, spec.batching.most) == (samples, most)

    @pytest.mark.parametrize("batch", ["sometimes", "{max: 0}", "{most: 3}", "0", "{max: true}"])
    def test_nonsense_is_one_line_with_its_place(self, batch: str) -> None:
        with pytest.raises(ScenarioError, match=r"^scenario:1: models\.m\.batch"):
            scenario(batch)

    def test_a_described_machine_batches_what_has_times(self) -> None:
        machine = measured(0.6, 0.4).machine
        asked = "models: {m: m.onnx}\narrivals: {m: {poisson: 5/s}}\nmax_blocking: 20ms"
        found = parse_scenario(asked)
        assert found.limits.max_blocking_s == 0.02
        plan = Plan.of(machine)
        assert chosen_batching(plan, "m", found.models["m"].batching)[0] == Batching(4)
