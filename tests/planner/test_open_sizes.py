"""Models whose sizes are open: what they are measured at, and what the first axis is."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import coinfer
from coinfer.backends.null import NullBackend
from coinfer.backends.onnxruntime.backend import OnnxRuntimeBackend
from coinfer.errors import BackendError, ModelError, UnknownNameError
from coinfer.machine.processor import Processor
from coinfer.model import Model, load_model
from coinfer.model.size_guess import guessed_sizes
from coinfer.plan.plan_folder import save_plan
from coinfer.planner.make_plan import Planned, make_plan
from coinfer.planner.opened_plan import read_plan
from coinfer.planner.prepare import prepare
from coinfer.planner.samples import settled_sizes
from coinfer.planner.wishes import Wishes
from coinfer.profiling import Effort, ProfileCache, Profiler
from coinfer.testing.models import model_from_text
from coinfer.workload.scenario_file import load_scenario

pytest.importorskip("onnxruntime")

CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))


def conv(name: str = "m") -> Model:
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("float32")
    values = ", ".join(f"{value:.6f}" for value in weights.ravel())
    return model_from_text(
        f"m (float[n,3,h,w] x) => (float[n,4,p,q] y) <float[4,3,3,3] k = {{{values}}}>"
        "{ c = Conv<pads=[1,1,1,1]>(x, k)  y = Relu(c) }",
        name=name,
    )


def planned(model: Model, wishes: Wishes | None = None, **given: object) -> Planned:
    profiler = Profiler(effort=Effort(max_runs=2, min_runs=1, warmup_runs=1))
    samples = {"m": given["samples"]} if "samples" in given else None
    return make_plan({"m": model}, [CPU], wishes or Wishes(), profiler, samples=samples)  # type: ignore[arg-type]


def test_a_guess_is_stated_once_with_all_open_dimensions() -> None:
    found = planned(conv())
    [warning] = [each for each in found.plan.warnings if "guess" in each]
    assert "h=224, w=224" in warning
    assert found.plan.models["m"].sizes == ({"h": 224, "w": 224},)


def test_named_sizes_go_before_a_guess() -> None:
    found = planned(conv(), Wishes(dims={"w": 64}))
    [warning] = [each for each in found.plan.warnings if "guess" in each]
    assert "h=224" in warning
    assert "w=" not in warning.split(";")[0]
    assert found.plan.models["m"].sizes == ({"h": 224, "w": 64},)


def test_a_size_of_zero_that_a_model_does_not_run_at_is_one_clear_line() -> None:
    model = model_from_text(
        "m (float[1,1,h] x) => (float[1,1,q] y) <float[1,1,3] k = {1, 1, 1}> { y = Conv(x, k) }",
        name="m",
    )
    with pytest.raises(BackendError) as caught:
        planned(model, Wishes(dims={"h": 0}))
    assert str(caught.value) == "no processor runs model 'm' with h=0; give sizes from 1"


def test_a_size_of_zero_that_a_model_runs_at_is_measured() -> None:
    model = model_from_text("m (float[1,h] x) => (float[1,h] y) { y = Relu(x) }", name="m")
    assert planned(model, Wishes(dims={"h": 0})).plan.models["m"].sizes == ({"h": 0},)


def test_a_guess_names_every_way_to_state_all_sizes() -> None:
    [warning] = [each for each in planned(conv()).plan.warnings if "guess" in each]
    assert warning.endswith(
        "h=224, w=224; say it with `dims: {h: 224, w: 224}` in a scenario, --dim h=224 --dim w=224 "
        "on the command line, or an input of the right sizes in Python: "
        "Engine(..., samples={'m': INPUTS})"
    )


def test_the_argument_that_a_guess_names_is_one_of_engines() -> None:
    assert "samples" in inspect.signature(coinfer.Engine).parameters


def test_a_size_of_a_dimension_that_no_model_has_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="open dimension 'width'"):
        planned(conv(), Wishes(dims={"width": 64}))


def test_samples_go_before_everything_and_each_class_of_sizes_is_measured() -> None:
    feeds = [{"x": np.zeros((1, 3, 16, w), "float32")} for w in (64, 640, 640)]
    found = planned(conv(), Wishes(dims={"w": 7}), samples=feeds)
    own = found.plan.models["m"]
    assert own.sizes == ({"h": 16, "w": 64}, {"h": 16, "w": 640})
    assert own.work is not None
    wide = own.work.size_class({"h": 16, "w": 640})
    assert {key.shape for key, _ in found.plan.profile} == {0, wide}
    assert not [each for each in found.plan.warnings if "guess" in each]


def test_a_plan_keeps_sizes_and_work(tmp_path: Path) -> None:
    feeds = [{"x": np.zeros((1, 3, 16, w), "float32")} for w in (64, 640)]
    (tmp_path / "m.onnx").write_bytes(conv().to_bytes())
    plan = planned(load_model(tmp_path / "m.onnx", name="m"), samples=feeds).plan
    for folder in ("a", "b"):
        save_plan(plan, tmp_path / folder)
    again = read_plan(tmp_path / "a")
    assert again.models["m"].sizes == plan.models["m"].sizes
    assert again.models["m"].work == plan.models["m"].work
    assert {key for key, _ in again.profile} == {key for key, _ in plan.profile}
    texts = [(tmp_path / folder / "plan.yaml").read_bytes() for folder in ("a", "b")]
    assert texts[0] == texts[1]


def test_strings_without_samples_are_one_clear_line() -> None:
    text = model_from_text("m (string[n] x) => (string[n] y) { y = Identity(x) }", name="m")
    with pytest.raises(ModelError, match="no random strings"):
        planned(text)


def test_an_axis_along_which_entries_depend_on_each_other_is_no_batch() -> None:
    text = "m (float[n,4] x) => (float[n,4] y) { y = Softmax<axis=0>(x) }"
    found = planned(model_from_text(text, name="m"))
    assert found.plan.models["m"].fixed_batch
    assert any("is not taken for a batch" in each for each in found.plan.warnings)
    [model] = found.models.values()
    assert isinstance(model, Model)
    assert model.check_inputs({"x": np.zeros((0, 4), "float32")}) == 1


def test_an_axis_of_samples_is_the_batch() -> None:
    found = planned(conv())
    [model] = found.models.values()
    assert isinstance(model, Model)
    assert model.batch_symbol == "n"
    assert not found.plan.models["m"].fixed_batch
    assert model.check_inputs({"x": np.zeros((5, 3, 8, 8), "float32")}) == 5


@pytest.mark.parametrize("shared", ["float s", "float[3] s"])
def test_inputs_without_the_batch_are_the_same_for_two_samples(shared: str) -> None:
    text = f"m (float[n,3] x, {shared}) => (float[n,3] y) {{ y = Mul(x, s) }}"
    found = planned(model_from_text(text, name="m"))
    assert found.models["m"].has_batch
    assert found.plan.warnings == ()


ONLY_32_WIDE = """m (float[n,w] x) => (float[n,w] y)
<float[32] k = {%s}, int64[1] s = {32}, int64[1] first = {0}>
{ r = Mul(s, s)  q = Div(r, s)  v = Reshape(k, q)
  e = Add(x, v)  t = ReduceMean<keepdims=1>(e, first)  y = Add(e, t) }"""
"""Only 32 numbers can be added, which shape inference does not see; the answers mix samples."""


@pytest.mark.parametrize("samples", [None, [{"x": np.ones((1, 32), "float32")}]])
def test_whether_an_axis_is_the_batch_is_found_out_at_sizes_that_run(samples: object) -> None:
    model = model_from_text(ONLY_32_WIDE % ", ".join(["1.0"] * 32), name="m")
    given = {} if samples is None else {"samples": samples}
    assert planned(model, **given).models["m"].has_batch is False


@pytest.mark.parametrize("first", ["w", "v"])
def test_a_state_is_guessed_for_one_sequence(first: str) -> None:
    text = f"m (float[7,{first},u] x, float[2,v,8] h) => (float[2,v,8] y) {{ y = Relu(h) }}"
    assert next(guessed_sizes(model_from_text(text, name="m"), {}))["v"] == 1


def test_a_scenario_is_run_at_a_guess_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path))
    model = model_from_text(ONLY_32_WIDE % ", ".join(["1.0"] * 32), name="m")
    (tmp_path / "m.onnx").write_bytes(model.to_bytes())
    (tmp_path / "s.yaml").write_text(
        "models: {m: m.onnx}\narrivals: {m: {closed: 1}}\nprocessors: [cpu0]\n"
    )
    prepared = prepare(load_scenario(tmp_path / "s.yaml"))
    assert {feed["x"].shape[1] for feed in prepared.feeds["m"]} == {32}
    assert any("guess: n=32, w=32" in warning for warning in prepared.plan.warnings)


def test_the_guess_that_runs_is_found_once(tmp_path: Path) -> None:
    class Refusing(NullBackend):
        def load(self, *_: object, **__: object):  # type: ignore[no-untyped-def, override]
            raise AssertionError("it is known which guess runs")

    model = model_from_text(ONLY_32_WIDE % ", ".join(["1.0"] * 32), name="m")
    cache, version = ProfileCache(tmp_path), OnnxRuntimeBackend().versions()
    profiler = Profiler(cache=cache)
    for backend in (OnnxRuntimeBackend(), Refusing()):
        backend.versions = lambda: version  # type: ignore[method-assign]
        profiler = replace(profiler, backends={"onnxruntime": backend})
        assert settled_sizes(model, {}, [CPU], profiler)[0] == {"w": 32}


def test_beside_each_guess_stands_one_with_first_axes_of_one() -> None:
    model = model_from_text(
        "m (float[w,u] x, float[v] z) => (float[v] y) { y = Relu(z) }", name="m"
    )
    guesses = list(guessed_sizes(model, {}))
    assert guesses[:3] == [
        {"w": 128, "u": 128, "v": 128},
        {"w": 1, "u": 128, "v": 1},
        {"w": 64, "u": 64, "v": 64},
    ]


def test_guesses_that_take_gigabytes_are_not_tried() -> None:
    text = "m (float[a,n,3,h,w] x) => (float[a,n,3,h,w] y) { y = Relu(x) }"
    tried = [each["n"] for each in guessed_sizes(model_from_text(text, name="m"), {})]
    assert tried[0] == 128
    assert 256 in tried
    assert 512 not in tried


def test_what_the_first_axis_is_is_found_out_once(tmp_path: Path) -> None:
    from coinfer.backends.onnxruntime.backend import OnnxRuntimeBackend
    from coinfer.profiling import batch_axis

    loads = []

    class Counting(OnnxRuntimeBackend):
        def load(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def, override]
            loads.append(args)
            return super().load(*args, **kwargs)  # type: ignore[arg-type]

    model, cache = conv(), ProfileCache(tmp_path)
    two = [model.sample_inputs(seed=s, dims={"h": 8, "w": 8}) for s in (1, 2)]
    backends = {"onnxruntime": Counting()}
    for _ in range(2):
        assert batch_axis.counts_samples(model, [CPU], backends, lambda: [two], cache)
    assert len(loads) == 1


def test_an_engine_takes_models_with_open_sizes_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path))
    np.savez(tmp_path / "wide.npz", x=np.zeros((2, 3, 16, 320), "float32"))
    processors = [CPU]
    with coinfer.Engine(
        {"m": conv(), "g": conv("g")},
        processors=processors,
        samples={"m": tmp_path / "wide.npz"},
        measure_s=1.0,
    ) as engine:
        assert engine.plan.models["m"].sizes == ({"h": 16, "w": 320},)
        assert [w.split(":")[0] for w in engine.warnings if "guess" in w] == ["g"]
        for width in (320, 32, 48):
            found = engine.infer("m", {"x": np.ones((1, 3, 16, width), "float32")})
            assert found["y"].shape == (1, 4, 16, width)
        engine.load("late", conv("late"), samples={"x": np.zeros((1, 3, 8, 8), "float32")})
        assert engine.plan.models["late"].sizes == ({"h": 8, "w": 8},)


def test_samples_of_a_model_that_there_is_not_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="'typo'"):
        coinfer.Engine({"m": conv()}, samples={"typo": {"x": np.zeros((1, 3, 8, 8), "float32")}})


@pytest.mark.parametrize("backends", [["onnxruntime"], ["openvino"], ["openvino", "onnxruntime"]])
def test_a_model_that_runs_at_no_guess_is_still_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backends: list[str]
) -> None:
    for backend in backends:
        pytest.importorskip(backend)
    cpus = [replace(CPU, name=backend, backend=backend) for backend in backends]
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path))
    # Only 12 x 20 pictures can be reshaped so, which shape inference does not see.
    text = """m (float[1,3,h,w] x) => (float[a,b] y) <int64[2] s = {9, 80}>
    { r = Mul(s, s)  q = Div(r, s)  y = Reshape(x, q) }"""
    model = model_from_text(text, name="m")
    with coinfer.Engine({"m": model}, processors=cpus) as engine:
        assert any("give samples" in warning for warning in engine.warnings)
        x = np.arange(720, dtype="float32").reshape(1, 3, 12, 20)
        assert engine.infer("m", {"x": x})["y"].shape == (9, 80)
        # What cannot be compared with the reference runs where that does, if that is possible.
        assert set(engine.placement("m")) == {backends[-1]}


def test_a_model_whose_operators_contradict_every_guess_is_still_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path))
    text = """m (float[1,w] x) => (float[1,2] y) <float[37,2] v = {""" + ", ".join(["1.0"] * 74)
    model = model_from_text(text + "}> { y = MatMul(x, v) }", name="m")
    with coinfer.Engine({"m": model}, processors=[CPU]) as engine:
        assert any("give samples" in warning for warning in engine.warnings)
        y = engine.infer("m", {"x": np.ones((1, 37), "float32")})["y"]
    np.testing.assert_array_equal(y, [[37, 37]])
