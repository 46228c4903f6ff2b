"""Answers agree, whatever processor serves them; what does not is left out and said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinfer.api import Engine
from coinfer.errors import ConfigurationError
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.planner.make_plan import Planned, make_plan
from coinfer.planner.wishes import CutWish, Wishes
from coinfer.profiling import Effort, ProfileCache, Profiler
from coinfer.testing.models import model_from_text, tiny_linear
from coinfer.workload.agreement_spec import AgreementSpec
from coinfer.workload.scenario_file import parse_scenario
from profiling.fakes import FakeBackend, cpu

pytest.importorskip("openvino")

QUICK = Effort(warmup_runs=0, min_runs=2, max_runs=2)
ORT = Processor(name="ort", backend="onnxruntime", units=frozenset({"a"}))
OV = Processor(name="ov", backend="openvino", units=frozenset({"b"}))
BOTH = (OV, ORT)

HASH = """g (int64[n] ids, float[n, 3] x) => (int64[n] h, float[n, 3] y)
    <int64 k = {2654435761}, int64 size = {1000}>
    { y = Sigmoid(x)  p = Mul(ids, k)  h = Mod(p, size) }"""
HASHED = [100, 861, 622, 383]
HASH_FEED = {"ids": np.arange(100, 104), "x": np.zeros((4, 3), np.float32)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path))


def model(text: str) -> Model:
    return model_from_text(text, name="m")


def planned(
    text: str, processors: Sequence[Processor] = BOTH, samples: Any = None, **wishes: Any
) -> Planned:
    given = {} if samples is None else {"m": [samples]}
    made = Wishes(keep_all=True, **wishes)
    return make_plan({"m": model(text)}, processors, made, Profiler(effort=QUICK), samples=given)


def used(text: str, *processors: Processor, **wishes: Any) -> list[str]:
    return [*planned(text, processors or BOTH, **wishes).plan.models["m"].original.spans]


def engines(text: str, **options: Any) -> Iterator[Engine]:
    """Engines on the processors together and in either order."""
    for processors in (BOTH, BOTH[::-1]):
        with Engine({"m": model(text)}, processors=processors, measure_s=0, **options) as engine:
            yield engine


def test_hashes_of_64_bits_are_right_on_every_request() -> None:
    for engine in engines(HASH):
        assert [*engine.placement("m")] == ["ort"]
        for _ in range(4):
            assert engine.infer("m", HASH_FEED)["h"].tolist() == HASHED
        [warning] = engine.warnings[:1]
        assert warning.startswith("m does not run on ov: int64 is computed in 32 bits there")


def test_of_a_model_that_is_cut_only_the_wide_operators_stay_away() -> None:
    options = PartitionOptions(mode=Mode.UNIT, minimum_subgraph_size=1)
    choosy = Processor(
        name="ort",
        backend="onnxruntime",
        units=frozenset({"a"}),
        unsupported_ops=frozenset({"Sigmoid"}),
    )
    with Engine(
        {"m": model(HASH)}, processors=(OV, choosy), partition=options, measure_s=0
    ) as engine:
        assert set(engine.placement("m")) == {"ort", "ov"}
        for _ in range(4):
            assert engine.infer("m", HASH_FEED)["h"].tolist() == HASHED
        assert any("Mul of m does not run on ov" in warning for warning in engine.warnings)
        lost = [a.name for c in engine.plan.models["m"].choices for a in c.alternatives]
        assert {"Mul on ov", "Mod on ov"} <= set(lost)


def test_what_no_processor_computes_right_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigurationError, match="'m' agrees with the reference on no processor"):
        planned(HASH, [OV])


def test_float64_is_computed_in_64_bits() -> None:
    text = "g (double[n] x) => (double[n] y) { y = Exp(x) }"
    x = np.linspace(0, 1, 5)
    for engine in engines(text):
        y = engine.infer("m", {"x": x})["y"]
        assert np.abs(y - np.exp(x)).max() < 1e-14


def test_a_conversion_from_float64_is_no_arithmetic() -> None:
    text = "g (double[n] x) => (float[n] y) { f = Cast<to = 1>(x)  y = Exp(f) }"
    assert used(text) == ["ov", "ort"]


RELU = "g (float[n] x) => (float[n] y) { y = Relu(x) }"
SPOILED = {"x": np.array([np.nan, -1, 2], np.float32)}


def test_nan_comes_out_as_nan_if_that_is_asked_for() -> None:
    for engine in engines(RELU, agreement={"nonfinite": "strict"}):
        y = engine.infer("m", SPOILED)["y"]
        assert np.array_equal(y, np.array([np.nan, 0, 2], np.float32), equal_nan=True)


def test_nan_that_comes_out_otherwise_is_warned_of_once_and_noted() -> None:
    plan = planned(RELU).plan
    assert [*plan.models["m"].original.spans] == ["ov", "ort"]
    [warning] = [each for each in plan.warnings if "NaN" in each]
    assert "m on ov" in warning
    [choice] = [each for each in plan.models["m"].choices if each.by == "agreement"]
    assert choice.what == "within 0.001 of onnxruntime; NaN or infinity come out otherwise on ov"


def test_nan_in_the_samples_leaves_a_processor_out() -> None:
    found = planned(RELU, samples=SPOILED)
    assert [*found.plan.models["m"].original.spans] == ["ort"]
    assert "is not finite where that of onnxruntime is" in found.plan.warnings[0]


def test_arithmetic_that_a_table_bounds_may_run_in_32_bits() -> None:
    text = """g (int64[n] ids) => (float[n, 2] y)
        <float[5, 2] table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, int64 one = {1}>
        { i = Add(ids, one)  y = Gather(table, i) }"""
    assert used(text) == ["ov", "ort"]


def test_shape_arithmetic_may_run_in_32_bits() -> None:
    text = """g (float[n, 4] x, int64[1] rows) => (float[a, b] y) <int64[1] m = {-1}>
        { s = Shape(x)  p = ReduceProd(s)  t = Concat<axis = 0>(rows, m)  y = Reshape(x, t)
          q = Add(p, rows) }"""
    samples = {"x": np.ones((2, 4), np.float32), "rows": np.array([2])}
    assert [*planned(text, samples=samples).plan.models["m"].original.spans] == ["ov", "ort"]


@pytest.mark.parametrize(
    "text",
    [
        "g (float[n, 5] x) => (int64[n, 1] i) { i = ArgMax<axis = 1>(x) }",
        """g (float[n, 5] x) => (float[n, 2] v, int64[n, 2] i) <int64[1] k = {2}>
        { v, i = TopK(x, k) }""",
        "g (float[n, 5] x) => (bool[n, 5] y) <float zero = {0}> { y = Greater(x, zero) }",
    ],
    ids=["ArgMax", "TopK", "Greater"],
)
def test_integers_of_floats_agree(text: str) -> None:
    assert used(text) == ["ov", "ort"]


def test_what_draws_random_numbers_is_not_compared() -> None:
    text = "g (float[n] x) => (float[n] y) { r = RandomNormalLike(x)  y = Add(r, x) }"
    assert used(text) == ["ov", "ort"]


class Off(FakeBackend):
    """Off by one per cent in fp32."""

    def load(self, model: Model, processor: Processor) -> Any:
        session = super().load(model, processor)
        session._factor = 1.01
        return session


@pytest.mark.parametrize(("tolerance", "runs"), [(1e-3, False), (0.02, True)])
def test_beyond_the_tolerance_a_processor_is_not_used_and_the_warning_says_the_error(
    tolerance: float, runs: bool
) -> None:
    profiler = Profiler(effort=QUICK, backends={"fake": Off()})
    wishes = Wishes(keep_all=True, agreement=AgreementSpec(tolerance=tolerance))
    plan = make_plan({"m": tiny_linear().model}, [cpu(), ORT], wishes, profiler).plan
    assert [*plan.models["m"].original.spans] == (["cpu0", "ort"] if runs else ["ort"])
    said = "m does not run on cpu0: its output 'y' is 0.01 off that of onnxruntime"
    assert any(warning.startswith(said) for warning in plan.warnings) is not runs
    errors = {key.processor: entry.error for key, entry in plan.measured}
    assert errors["ort"] == 0.0
    assert not runs or errors["cpu0"] == pytest.approx(0.01, rel=1e-3)
    [choice] = [each for each in plan.models["m"].choices if each.by == "agreement"]
    assert [each.name for each in choice.alternatives] == ([] if runs else ["cpu0"])


def test_below_fp32_a_processor_must_compute_64_bits_too() -> None:
    low = Processor(name="low", backend="openvino", units=frozenset({"b"}), precision="bf16")
    plan = planned(HASH, [low, ORT], allow=("bf16",), tolerance=0.1).plan
    if any("reports no bf16" in warning for warning in plan.warnings):
        pytest.skip("the processor has no bf16")
    assert [*plan.models["m"].original.spans] == ["ort"]
    assert any("m does not run on low: int64" in warning for warning in plan.warnings)


def test_a_reference_that_cannot_run_a_model_is_replaced_and_that_is_said() -> None:
    text = """<ir_version: 10, opset_import: ["": 20, "example": 1]>
        g (float[n, 4] x) => (float[n, 3] y) { y = example.Linear(x) }"""
    profiler = Profiler(effort=QUICK, backends={"fake": FakeBackend()})
    plan = make_plan({"m": model(text)}, [cpu()], Wishes(), profiler).plan
    assert [*plan.models["m"].original.spans] == ["cpu0"]
    assert any("compared with those on cpu0, because onnxruntime" in w for w in plan.warnings)


def test_a_second_start_loads_nothing_and_says_the_same(tmp_path: Path) -> None:
    def plan(backend: FakeBackend) -> Any:
        profiler = Profiler(
            effort=QUICK, cache=ProfileCache(tmp_path / "p"), backends={"fake": backend}
        )
        return make_plan({"m": tiny_linear().model}, [cpu(), ORT], Wishes(), profiler).plan

    first, second = Off(), Off()
    once, again = plan(first), plan(second)
    assert first.loads
    assert second.loads == []
    assert once == again


def test_times_that_were_measured_before_are_completed(tmp_path: Path) -> None:
    cache = ProfileCache(tmp_path / "p")
    backends = {"fake": Off()}
    profiler = Profiler(effort=QUICK, cache=cache, backends=backends)
    linear = tiny_linear().model
    measured = profiler.profile({"m": linear}, [cpu()], batch=1, feeds={}, skipped=pytest.fail)
    [(_, entry)] = measured
    assert entry.error is None
    plan = make_plan({"m": linear}, [cpu(), ORT], Wishes(keep_all=True), profiler).plan
    assert [*plan.models["m"].original.spans] == ["ort"]


def test_scenarios_and_engines_share_one_section() -> None:
    scenario = parse_scenario(
        "models: {m: a.onnx}\narrivals: {m: {poisson: 1/s}}\n"
        "agreement: {tolerance: 0.01, nonfinite: strict}"
    )
    assert scenario.agreement == AgreementSpec.of({"tolerance": 0.01, "nonfinite": "strict"})


@pytest.mark.parametrize("wrong", [{"nonfinite": "maybe"}, {"tolerance": 0}, {"tol": 1}, 5])
def test_a_wrong_agreement_is_refused_in_one_line(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^agreement: [^\n]*$"):
        Engine({"m": tiny_linear().model}, processors=[ORT], agreement=wrong)


def test_a_cut_is_compared_span_by_span() -> None:
    options = PartitionOptions(mode=Mode.UNIT, minimum_subgraph_size=1)
    wishes = Wishes(cuts={"m": CutWish(options)}, keep_all=True)
    profiler = Profiler(effort=QUICK, backends={"fake": Off()})
    plan = make_plan({"m": tiny_linear().model}, [cpu(), ORT], wishes, profiler).plan
    assert [*plan.models["m"].original.spans] == ["ort"]
    [choice] = [each for each in plan.models["m"].choices if each.by == "agreement"]
    assert any("off that of onnxruntime" in each.why for each in choice.alternatives)


@pytest.mark.parametrize(
    ("text", "feed", "expected"),
    [
        ("g (int64[n] i) => (int64[n] h) { h = Identity(i) }", [2**40 + 1, 5], [2**40 + 1, 5]),
        (
            """g (int64[n] i) => (int64[n] h) <int64 k = {34359738375}, int64 z = {100}>
            { c = Equal(i, z)  h = Where(c, k, i) }""",
            [100, 101],
            [2**35 + 7, 101],
        ),
    ],
)
def test_integers_of_64_bits_are_handed_on_as_they_are(
    text: str, feed: list[int], expected: list[int]
) -> None:
    for engine in engines(text):
        assert engine.infer("m", {"i": np.array(feed)})["h"].tolist() == expected
        assert any("m does not run on ov: int64" in warning for warning in engine.warnings)


def test_a_library_that_computes_in_32_bits_is_not_asked_for_more() -> None:
    """OpenVINO crashes where it reads far beyond a table; onnxruntime refuses these samples."""
    text = """g (int64[n] i) => (int64[n] h) <int64[4] table = {1, 2, 3, 4}, int64 first = {100}>
        { at = Sub(i, first)  h = Gather(table, at) }"""
    with pytest.raises(ConfigurationError, match="agrees with the reference on no processor"):
        planned(text)
    assert planned(text, samples={"i": np.array([100, 103])}).plan.models["m"].original.spans
