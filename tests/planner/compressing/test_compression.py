"""Compressing networks: promises, errors and reports. Times are made up, but in one test."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

import coinfer
from coinfer.backends import get_backend
from coinfer.errors import ConfigurationError, InputError, UnknownNameError
from coinfer.graph.compressing.layer import Layer
from coinfer.graph.cost import operator_costs, total
from coinfer.machine.processor import Processor
from coinfer.metrics.paired import PairedRatio
from coinfer.model import Model, load_model, model_from_bytes, model_from_ir
from coinfer.planner.compressing.calibration import split
from coinfer.planner.compressing.compression import Compression
from coinfer.planner.compressing.error import largest_error
from coinfer.planner.compressing.gauge import MeasuringGauge
from coinfer.planner.compressing.picture import picture_of
from coinfer.planner.compressing.renormalising import renormalised
from coinfer.planner.compressing.setting import CompressionSetting
from coinfer.profiling.error import relative_error
from coinfer.profiling.side_by_side import Contest

pytest.importorskip("tensorly", reason="decomposing needs tensorly")

CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core"}))


def network(*, norm: bool = False, seed: int = 0) -> Model:
    """Two convolutions whose weights are nearly of rank 4; inputs are (batch, 8, 12, 12)."""
    rng = np.random.default_rng(seed)

    def weight(outputs: int, inputs: int) -> npt.NDArray[Any]:
        left, right = rng.normal(size=(outputs, 4)), rng.normal(size=(4, inputs * 9))
        noise = 0.02 * rng.normal(size=(outputs, inputs * 9))
        return ((left @ right + noise) / 20).reshape(outputs, inputs, 3, 3).astype(np.float32)

    arrays = {"w1": weight(24, 8), "w2": weight(16, 24)}
    behind = "c = BatchNormalization(d, scale, bias, mean, var)" if norm else "c = Identity(d)"
    if norm:
        ones = np.ones(16, np.float32)
        arrays |= {"scale": ones, "bias": 0 * ones, "mean": 0.1 * ones, "var": 2 * ones}
    graph = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 20]>
        net (float[batch, 8, 12, 12] x) => (float[batch, 16, 12, 12] y) {{
            a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            b = Relu(a)
            d = Conv <pads = [1, 1, 1, 1]> (b, w2)
            {behind}
            y = Relu(c)
        }}"""
    )
    return with_weights(graph, arrays)


def with_weights(graph: ir.Model, arrays: dict[str, npt.NDArray[Any]]) -> Model:
    """The model of a graph whose weights are not among its initializers yet."""
    for name, array in arrays.items():
        value = next(v for n in graph.graph for v in n.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(array, name=name)
        graph.graph.register_initializer(value)
    return model_from_ir(graph, name="net")


def one_place(rank: int) -> Model:
    """A convolution of 64 channels that has one place; its weights are nearly of a rank."""
    rng = np.random.default_rng(0)
    outputs, inputs = rng.normal(size=(2, 64, rank))
    weight = np.einsum("or,rskl,is->oikl", outputs, rng.normal(size=(rank, rank, 3, 3)), inputs)
    weight += 0.02 * rank * rng.normal(size=(64, 64, 3, 3))
    graph = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 20]>
        net (float[batch, 64, 3, 3] x) => (float[batch, 64, 1, 1] y) { y = Conv (x, w) }"""
    )
    return with_weights(graph, {"w": (weight / (20 * rank)).astype(np.float32)})


def correlated(count: int = 12, seed: int = 1) -> list[dict[str, npt.NDArray[Any]]]:
    """Inputs whose channels are mixtures of three."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).normal(size=(8, 3))
    shape = (count, 3, 12, 12)
    found = np.einsum("cm,nmij->ncij", mix, rng.normal(size=shape)) + 0.5
    return [{"x": each[np.newaxis].astype(np.float32)} for each in found]


def outputs(model: Model, feeds: list[dict[str, npt.NDArray[Any]]]) -> list[Any]:
    session = get_backend("onnxruntime").load(model, CPU)
    try:
        return [session.run(feed) for feed in feeds]
    finally:
        session.close()


def off(one: Model, other: Model) -> float:
    """How far apart they are on inputs that neither has seen."""
    feeds = correlated(seed=77)
    return relative_error(outputs(other, feeds), outputs(one, feeds))


def halved(model: Model) -> Model:
    """The same with half the weights in its second convolution."""
    graph = model.graph.clone()
    value = graph.graph.initializers["w2"]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() / 2, name="w2")
    return model.with_graph(graph)


def test_the_report_counts_what_the_model_costs() -> None:
    model = network()
    found = coinfer.compress(model, ranks="ratio:0.5", samples=correlated(), processors=[])
    for each, at in ((model, 0), (found.model, 1)):
        cost = total(operator_costs(each.graph))
        assert found.report.macs[at] == cost.macs
        assert found.report.parameters[at] == cost.trainable_parameters
    assert found.report.output_error is not None
    assert found.report.judged == 1
    assert [spec.shape for spec in found.model.inputs] == [spec.shape for spec in model.inputs]


def test_inputs_make_the_error_at_most_half_at_equal_ranks() -> None:
    model = network()
    errors = {}
    for aware in (False, True):
        found = coinfer.compress(
            model, ranks="ratio:0.3", samples=correlated(), data_aware=aware, processors=[]
        )
        errors[aware] = off(model, found.model)
    assert errors[True] < 0.5 * errors[False]


@pytest.mark.parametrize("norm", [False, True])
def test_equal_seeds_give_equal_models(norm: bool) -> None:
    prints = {
        coinfer.compress(
            network(norm=norm), ranks="ratio:0.4", samples=correlated(), processors=[], seed=3
        ).model.fingerprint
        for _ in range(2)
    }
    assert len(prints) == 1


def test_batch_norms_are_estimated_anew_where_that_helps() -> None:
    """Half the weights make half the values, which a norm can put right."""
    model = network(norm=True)
    wrong = halved(model)
    backend = get_backend("onnxruntime")
    found = renormalised(model, wrong, correlated(), backend)
    assert off(model, wrong) > 0.1
    assert off(model, found) < 1e-4
    before, after = (total(operator_costs(each.graph)) for each in (model, found))
    assert after.parameters == before.parameters, "no statistics are left that nobody uses"
    assert renormalised(model, model, correlated(), backend) is model


def test_compressed_files_run_in_plain_onnxruntime_and_openvino(tmp_path: Path) -> None:
    import onnxruntime

    model, path = network(norm=True), tmp_path / "small.onnx"
    found = coinfer.compress(model, ranks="energy:0.99", samples=correlated(), processors=[])
    found.save(path)
    feed = correlated(seed=5)[0]
    (expected,) = outputs(found.model, [feed])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, feed)[0], expected["y"], rtol=1e-4, atol=1e-5)
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", config)
    np.testing.assert_allclose(compiled(feed)[0], expected["y"], rtol=1e-3, atol=1e-4)


class _MadeUpTimes:
    """Times by operations alone, so that nothing depends on the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, overhead_s: float = 0.0) -> None:
        self.overhead_s = overhead_s
        monkeypatch.setattr(MeasuringGauge, "seconds", self.seconds)
        monkeypatch.setattr(MeasuringGauge, "gain", lambda *_: 1.1)
        monkeypatch.setattr(MeasuringGauge, "contests", self.contests)
        self.whole = 1.3

    def seconds(self, layer: Any, ranks: Any) -> Any:
        def taken(each: Any) -> float:
            parts = 1 + sum(rank is not None for rank in each)
            return layer.macs(each) * 1e-9 + parts * self.overhead_s

        return {each: [taken(each)] for each in ranks}

    def contests(self, *_: Any, **__: Any) -> list[Contest]:
        ratio = PairedRatio(median=self.whole, lower=self.whole, upper=self.whole, rounds=9)
        return [Contest(ratio=ratio, ours_s=1.0, theirs_s=self.whole)]


@pytest.mark.parametrize("max_error", [0.02, 0.1, 0.5])
def test_by_latency_no_error_is_beyond_what_was_allowed(
    max_error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    _MadeUpTimes(monkeypatch)
    monkeypatch.setattr("coinfer.planner.compressing.compression.channel_block", lambda _: 1)
    found = coinfer.compress(network(), max_error=max_error, samples=correlated(), processors=[CPU])
    assert found.report.decomposed
    assert found.report.output_error is not None
    assert found.report.output_error <= max_error
    assert found.report.curve
    assert picture_of(found.report).startswith("<svg")


@pytest.mark.parametrize(("rank", "count"), [(16, 12), (16, 18), (64, 36)])
def test_samples_that_shaped_factors_do_not_tell_their_error(
    rank: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one place per sample they are of lower rank than what comes; all looks alike to them."""
    _MadeUpTimes(monkeypatch)
    monkeypatch.setattr("coinfer.planner.compressing.compression.channel_block", lambda _: 1)
    rng = np.random.default_rng(1)
    feeds = [{"x": each} for each in rng.normal(size=(count, 1, 64, 3, 3)).astype(np.float32)]
    found = coinfer.compress(one_place(rank), max_error=0.3, samples=feeds, processors=[CPU])
    assert found.report.decomposed
    assert found.report.judged <= 3
    assert 0 < (found.report.output_error or 0) <= 0.3


def test_how_many_choices_the_held_out_samples_judged_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where they are further off than those chosen with, they take part in choosing."""
    _MadeUpTimes(monkeypatch)
    monkeypatch.setattr("coinfer.planner.compressing.compression.channel_block", lambda _: 1)
    real, errors = Compression._error, iter([0.6, 0.55])
    monkeypatch.setattr(
        Compression, "_error", lambda self, model: max(real(self, model), next(errors, 0.0))
    )
    found = coinfer.compress(network(), max_error=0.5, samples=correlated(), processors=[CPU])
    assert found.report.judged == 3
    assert found.report.to_json()["choices_judged"] == 3


def test_a_layer_of_unknown_sizes_is_not_called_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    _MadeUpTimes(monkeypatch)
    monkeypatch.setattr(Layer, "macs", lambda *_: None)
    found = coinfer.compress(network(), max_error=0.5, samples=correlated(), processors=[CPU])
    whys = {layer.why for layer in found.report.layers}
    assert whys == {"its sizes are not known, so it cannot be timed"}


@pytest.mark.parametrize("max_error", [0.5, math.inf])
@pytest.mark.parametrize("int8", [False, True])
def test_that_inputs_were_random_is_said_whatever_error_is_allowed(
    max_error: float, int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _MadeUpTimes(monkeypatch)
    processors = [] if int8 else [CPU]
    found = coinfer.compress(network(), max_error=max_error, int8=int8, processors=processors)
    assert any("no samples were given" in warning for warning in found.report.warnings)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (2, ["net: 1 sample judges; the error says little of others; give 24 or more"]),
        (12, ["net: 4 samples judge; the error says little of others; give 24 or more"]),
        (24, []),
    ],
)
@pytest.mark.parametrize("int8", [False, True])
def test_that_few_samples_judge_is_said(count: int, said: list[str], int8: bool) -> None:
    ranks = "latency" if int8 else "ratio:0.5"
    feeds = correlated(count)
    found = coinfer.compress(
        network(), ranks=ranks, max_error=math.inf, int8=int8, samples=feeds, processors=[]
    )
    assert [each for each in found.report.warnings if "judge" in each] == said


def test_the_seed_draws_random_samples_too() -> None:
    errors = {
        coinfer.compress(network(), ranks="ratio:0.3", processors=[], seed=seed).report.output_error
        for seed in (0, 0, 1)
    }
    assert len(errors) == 2


@pytest.mark.parametrize(("most", "count"), [(2**28, 12), (10 * 4608 + 7, 10), (1, 2)])
def test_random_samples_are_fewer_where_each_is_large(
    most: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    monkeypatch.setattr("coinfer.planner.compressing.setting._RANDOM_BYTES", most)
    setting = CompressionSetting.of(model, None, processors=[], backends={}, dims={}, seed=0)
    samples = setting.samples
    assert len(samples.calibration) + len(samples.held_out) == count
    [feed] = samples.calibration[:1]
    assert sum(array.nbytes for array in feed.values()) == 4608


def test_what_is_not_surely_faster_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    times = _MadeUpTimes(monkeypatch)
    times.whole = 0.99
    monkeypatch.setattr("coinfer.planner.compressing.compression.channel_block", lambda _: 1)
    model = network()
    found = coinfer.compress(model, max_error=0.5, samples=correlated(), processors=[CPU])
    assert found.model is model
    assert not found.report.decomposed
    assert any("not surely faster" in warning for warning in found.report.warnings)


def test_what_is_faster_nowhere_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    _MadeUpTimes(monkeypatch, overhead_s=1.0)
    monkeypatch.setattr("coinfer.planner.compressing.compression.channel_block", lambda _: 1)
    model = network()
    found = coinfer.compress(model, max_error=0.5, samples=correlated(), processors=[CPU])
    assert found.model is model
    assert {layer.why for layer in found.report.layers} == {"it is not faster at any rank tried"}


def test_an_error_that_cannot_be_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _MadeUpTimes(monkeypatch)
    monkeypatch.setattr("coinfer.planner.compressing.compression.channel_block", lambda _: 1)
    with pytest.raises(
        ConfigurationError, match=r"--max-error 1e-09 cannot be kept: .* is \d"
    ) as e:
        coinfer.compress(network(), max_error=1e-9, samples=correlated(), processors=[CPU])
    assert str(e.value).endswith("; allow more")
    with pytest.raises(ConfigurationError, match="or give inputs to calibrate with"):
        coinfer.compress(network(), max_error=1e-9, processors=[CPU])
    with pytest.raises(ConfigurationError, match=r"ratio:0\.1 puts its outputs off by"):
        coinfer.compress(network(), ranks="ratio:0.1", max_error=1e-9, processors=[])


@pytest.mark.alone
def test_measured_on_this_machine_it_is_faster() -> None:
    """The promise itself, on layers so wide that their parts are faster on any machine."""
    rng = np.random.default_rng(3)
    graph = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 20]>
        net (float[batch, 96, 32, 32] x) => (float[batch, 96, 32, 32] y)
        { y = Conv <pads = [1, 1, 1, 1]> (x, w) }"""
    )
    value = graph.graph[0].inputs[1]
    assert value is not None
    value.const_value = ir.tensor(rng.normal(size=(96, 96, 3, 3)).astype(np.float32), name="w")
    graph.graph.register_initializer(value)
    found = coinfer.compress(model_from_ir(graph, name="net"), max_error=math.inf, processors=[CPU])
    assert found.report.decomposed
    assert found.report.processors
    assert all(row.ratio.is_better for row in found.report.processors)


def test_a_wide_layer_is_decomposed_without_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coinfer.graph.compressing.moments.MOST_ELEMENTS", 100)
    found = coinfer.compress(network(), ranks="ratio:0.5", samples=correlated(), processors=[])
    assert found.report.output_error is not None


@pytest.mark.parametrize(
    ("model", "wanted", "error", "said"),
    [
        ("zoo:tiny_mlp", {}, ConfigurationError, "nothing to decompose: .* try --svd"),
        ("zoo:tiny_cnn", {"samples": [{"image": np.zeros((1, 3, 32, 32), np.float32)}]},
         InputError, "one sample is not enough"),
        ("zoo:tiny_cnn", {"samples": "nowhere.npz"}, InputError, "no samples at nowhere.npz"),
        ("zoo:tiny_cnn", {"max_error": 0.0}, ConfigurationError, "--max-error 0 is out of range"),
        ("zoo:tiny_cnn", {"max_error": math.nan}, ConfigurationError, "out of range"),
        ("zoo:tiny_cnn", {"seed": -1}, ConfigurationError, "--seed -1 is out of range"),
        ("zoo:tiny_cnn", {"processors": []}, ConfigurationError, "need a processor"),
        ("zoo:tiny_cnn", {"processors": ["gpu9"]}, UnknownNameError, "gpu9"),
        ("zoo:tiny_cnn", {"ranks": "ratio:2"}, ConfigurationError, "out of range"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_line(
    model: str, wanted: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        coinfer.compress(model, **wanted)
    assert "\n" not in str(caught.value)


def test_without_tensorly_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from coinfer.graph.compressing import factors

    factors._partial_tucker.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorly.decomposition", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'coinfer\[compress\]'"):
        coinfer.compress("zoo:tiny_cnn", ranks="ratio:0.5", processors=[])
    factors._partial_tucker.cache_clear()


def test_shapes_that_do_not_follow_are_found_by_running() -> None:
    """Behind a Reshape to sizes that are computed, nothing follows from the graph."""
    model = network()
    graph = model.graph.clone()
    text = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 20]>
        g (float[batch, 8, 12, 12] x) => (float[batch, 8, 12, 12] x0)
        { s = Shape(x)  f = Cast <to = 1> (s)  r = Ceil(f)  t = Cast <to = 7> (r)
          x0 = Reshape(x, t) }"""
    )
    first = next(iter(graph.graph))
    for node in list(text.graph):
        text.graph.remove(node)
        graph.graph.insert_before(first, node)
        for at, value in enumerate(node.inputs):
            if value is not None and value.name == "x":
                node.replace_input_with(at, graph.graph.inputs[0])
    first.replace_input_with(0, node.outputs[0])
    found = coinfer.compress(
        model_from_ir(graph, name="net"), ranks="ratio:0.5", samples=correlated(), processors=[]
    )
    plain = coinfer.compress(model, ranks="ratio:0.5", samples=correlated(), processors=[])
    assert found.report.macs == plain.report.macs


def test_what_was_estimated_anew_can_be_estimated_anew_again() -> None:
    """Names of what is put in must not meet those that an earlier compression gave."""
    model, backend = network(norm=True), get_backend("onnxruntime")
    for _ in range(2):
        wrong = halved(model)
        found = renormalised(model, wrong, correlated(), backend)
        assert found is not wrong
        assert off(model, found) < 1e-4
        model = model_from_bytes(found.to_bytes(), name="net")


def test_a_file_with_its_weights_in_constant_nodes_gets_smaller_too(tmp_path: Path) -> None:
    held = network(norm=True).graph.clone()
    for name, value in list(held.graph.initializers.items()):
        node = ir.node("Constant", [], {"value": value.const_value}, name=f"constant.{name}")
        node.outputs[0].name = f"held.{name}"
        held.graph.insert_before(held.graph[0], node)
        value.replace_all_uses_with(node.outputs[0])
        del held.graph.initializers[name]
    sizes = []
    for model in (network(norm=True), model_from_ir(held, name="net")):
        path = tmp_path / f"{len(sizes)}.onnx"
        found = coinfer.compress(model, ranks="ratio:0.3", samples=correlated(), processors=[])
        found.save(path)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 1.1 * sizes[0]


def with_tail(tail: str, output: str) -> Model:
    """Return `network` with other operators behind it, in place of its output."""
    model = network().graph.clone()
    text = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 20, "ai.onnx.ml": 3]>
        g (float[1, 16, 12, 12] v) => ({output} z) {{ {tail} }}"""
    )
    (last,) = model.graph.outputs
    nodes = list(text.graph)
    for node in nodes:
        text.graph.remove(node)
        model.graph.append(node)
        for at, value in enumerate(node.inputs):
            if value is not None and value.name == "v":
                node.replace_input_with(at, last)
    text.graph.outputs.clear()
    model.graph.outputs[:] = [nodes[-1].outputs[0]]
    model.opset_imports["ai.onnx.ml"] = 3
    return model_from_ir(model, name="net")


TAILS = {
    "the number of a class": ("f = Flatten(v)  z = ArgMax <axis = 1> (f)", "int64[1, 1]"),
    "places": (
        "k = Constant <value_float = 0.3> ()  g = Greater(v, k)  h = Cast <to = 6> (g)  "
        "z = NonZero(h)",
        "int64[4, n]",
    ),
    "a text": (
        "f = Flatten(v)  m = ArgMax <axis = 1, keepdims = 0> (f)  z = ai.onnx.ml.LabelEncoder "
        '<keys_int64s = [1, 2], values_strings = ["a", "b"], default_string = "c"> (m)',
        "string[1]",
    ),
}


@pytest.mark.parametrize("tail", TAILS)
def test_an_output_without_distance_is_right_or_infinitely_far_off(tail: str) -> None:
    """Class 998 in place of 999 is another answer, however near the numbers are."""
    model = with_tail(*TAILS[tail])
    whole = coinfer.compress(model, ranks="ratio:1", processors=[], data_aware=False)
    assert whole.report.output_error == 0.0
    gone = coinfer.compress(model, ranks="ratio:0.1", samples=correlated(30), processors=[])
    feeds = split(correlated(30), "net", seed=0).held_out
    is_right = all(
        np.array_equal(one["z"], other["z"])
        for one, other in zip(outputs(model, feeds), outputs(gone.model, feeds), strict=True)
    )
    assert gone.report.output_error == (0.0 if is_right else math.inf)
    assert gone.report.to_json()["output_error"] == (0.0 if is_right else "inf")


def test_by_latency_no_answer_without_distance_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    _MadeUpTimes(monkeypatch)
    monkeypatch.setattr("coinfer.planner.compressing.compression.channel_block", lambda _: 1)
    model = with_tail(*TAILS["places"])
    with pytest.raises(ConfigurationError, match="an output changes that has no distance"):
        coinfer.compress(model, max_error=0.5, samples=correlated(), processors=[CPU])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model = network().graph.clone()
    array = model.graph.initializers["w1"].const_value.numpy().copy()
    array[0, 0, 0, 0] = value
    model.graph.initializers["w1"].const_value = ir.tensor(array, name="w1")
    with pytest.raises(ConfigurationError, match="layer 'a' has weights that are not finite"):
        coinfer.compress(model_from_ir(model, name="net"), ranks="ratio:0.5", processors=[])


def test_old_files_that_list_their_weights_among_the_inputs_are_decomposed(tmp_path: Path) -> None:
    """Before IR version 4 they had to."""
    proto = onnx.load_from_string(network(norm=True).to_bytes())
    proto.ir_version = 3
    proto.opset_import[0].version = 9
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    path = tmp_path / "old.onnx"
    onnx.save(proto, path)
    found = coinfer.compress(path, ranks="ratio:0.5", samples=correlated(), processors=[])
    assert len(found.report.decomposed) == 2
    found.save(tmp_path / "new.onnx")
    read = load_model(tmp_path / "new.onnx")
    assert [spec.name for spec in read.inputs] == ["x"]
    feeds = correlated(seed=5)
    assert largest_error(outputs(read, feeds), outputs(found.model, feeds)) == 0.0
    cost = total(operator_costs(read.graph))
    assert cost.trainable_parameters == found.report.parameters[1]
