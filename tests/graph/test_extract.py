"""What is cut out computes what it computed inside: chained spans give the whole's outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.errors import ConfigurationError
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition, choose_partition, partition_at
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.span import Span
from coinfer.model import Model, load_model, model_from_ir
from coinfer.planner.model_source import resolve_model
from coinfer.testing.models import Example, examples, model_from_text
from graph.chains import (
    assert_chain_equals_whole,
    assert_same,
    assert_well_formed,
    everything,
    gaps,
    light_models,
    random_models,
    random_support,
    run,
    run_chain,
    unit_chain,
)

MODES = (Mode.FALLBACK_PER_PROCESSOR, Mode.UNIT, Mode.MERGED)


def finest(model: Model, *, cuts: list[int] | None = None) -> Partition:
    operators = Operators.of(model.graph)
    places = range(1, len(operators.groups)) if cuts is None else cuts
    return partition_at(model, places, {"cpu": everything(operators)}, operators=operators)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_graph_with_any_support_gives_the_outputs_of_the_whole(data: st.DataObject) -> None:
    model = data.draw(random_models())
    operators = Operators.of(model.graph)
    partition = choose_partition(
        model,
        data.draw(random_support(operators)),
        PartitionOptions(
            mode=data.draw(st.sampled_from(MODES)),
            minimum_subgraph_size=data.draw(st.integers(1, 4)),
            pieces=data.draw(st.none() | st.integers(1, 5)),
        ),
        operators=operators,
    )
    assert_well_formed(partition)
    assert_chain_equals_whole(model, partition)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_graph_with_any_cuts_gives_the_outputs_of_the_whole(data: st.DataObject) -> None:
    model = data.draw(random_models())
    operators = Operators.of(model.graph)
    places = range(1, len(operators.groups))
    cuts = data.draw(st.sets(st.sampled_from(places))) if places else set()
    partition = partition_at(model, cuts, {"cpu": everything(operators)}, operators=operators)
    assert_well_formed(partition)
    assert len(partition.units) == len(cuts) + 1
    assert_chain_equals_whole(model, partition)


STRUCTURES = {
    "a skip connection over several units": """
        g (float[N,3] x) => (float[N,3] y)
        { a = Relu(x) b = Tanh(a) c = Neg(b) d = Tanh(c) y = Add(d, a) }""",
    "several inputs and outputs": """
        g (float[N,3] x, float[N,3] z) => (float[N,3] y, float[N,3] s, float[N,3] t)
        { y = Add(x, z) s = Tanh(z) r = Mul(y, s) t = Neg(r) }""",
    "an output that is read later": """
        g (float[N,3] x) => (float[N,3] a, float[N,3] y) { a = Relu(x) b = Tanh(a) y = Neg(b) }""",
    "an input that is an output": """
        g (float[N,3] x) => (float[N,3] y, float[N,3] x) { a = Relu(x) y = Tanh(a) }""",
    "an input that nothing reads": """
        g (float[N,3] x, float[M] unused) => (float[N,3] y) { a = Relu(x) y = Tanh(a) }""",
    "a constant output": """
        g (float[N,3] x) => (float[N,3] y, float[2] c, float[2] w) <float[2] w = {1, 2}>
        { c = Neg(w) a = Relu(x) y = Tanh(a) }""",
    "weights that units share": """
        g (float[N,3] x) => (float[N,3] y) <float[3,3] w = {1,2,3,4,5,6,7,8,9}>
        { a = MatMul(x, w) b = Tanh(a) c = MatMul(b, w) d = Tanh(c) y = MatMul(d, w) }""",
    "weights computed from weights that units share": """
        g (float[N,3] x) => (float[N,3] y) <float[3,3] q = {1,2,3,4,5,6,7,8,9}, float s = {0.1}>
        { w = Mul(q, s) a = MatMul(x, w) b = Tanh(a) c = MatMul(b, w) y = Tanh(c) }""",
    "left-out inputs and outputs": """
        g (float[N,3] x) => (float[N,3] y, int64[K] p) <float hi = {0.5}>
        { a = Relu(x) b = Clip(a, , hi) flat = Constant<value = int64[1] {-1}>()
          r = Reshape(b, flat) h, p = Unique(r) y = Tanh(b) }""",
    "a branch with outer values": """
        g (float[N,3] x) => (float[N,3] y) <float zero = {0}, float[3] w = {1, 2, 3}>
        { a = Relu(x) b = Tanh(a) s = ReduceSum<keepdims = 0>(b) c = Greater(s, zero)
          d = If(c) <then_branch = yes () => (float[N,3] t) { t = Mul(a, w) },
                     else_branch = no () => (float[N,3] e) { e = Sub(b, a) }>
          y = Neg(d) }""",
    "a loop with an outer value": """
        g (float[N,3] x) => (float[N,3] y, float[K,N,3] steps)
        { a = Relu(x) b = Tanh(a) n = Constant<value = int64 {3}>()
          go = Constant<value = bool {1}>()
          l, steps = Loop(n, go, a) <body = step (int64 i, bool c, float[N,3] s) =>
            (bool c2, float[N,3] s2, float[N,3] out)
            { c2 = Identity(c) s2 = Add(s, b) out = Tanh(s2) }>
          y = Neg(l) }""",
    "a scan with an outer value": """
        g (float[N,3] x) => (float[3] y)
        { a = Relu(x) w = Constant<value = float[3] {1, 2, 3}>() z = Mul(w, w)
          m = ReduceMax<keepdims = 0>(a)
          l, each = Scan<num_scan_inputs = 1, body = step (float[3] s, float[3] r) =>
            (float[3] s2, float[3] o) { t = Add(s, r) s2 = Mul(t, m) o = Neg(s2) }>(z, a)
          y = Tanh(l) }""",
    "shapes computed from shapes": """
        g (float[N,3,4] x) => (float[N,K] y) <int64 one = {1}, int64[1] last = {-1}>
        { a = Relu(x) s = Shape(a) i = Constant<value = int64[1] {0}>() n = Gather(s, i)
          t = Concat<axis = 0>(n, last) b = Tanh(a) y = Reshape(b, t) }""",
    "a sequence, which cannot be handed over": """
        g (float[N,4] x) => (float[N,K] y)
        { a = Relu(x) one = Constant<value = int64 {1}>() two = Constant<value = int64 {2}>()
          q = SplitToSequence<axis = 1>(a, two) b = SequenceAt(q, one) c = Tanh(b)
          d = ConcatFromSequence<axis = 1>(q) e = Concat<axis = 1>(c, d) y = Neg(e) }""",
    "strings": """
        g (float[N,3] x, string[N] names) => (string[N] same, float[N,3] y)
        { a = Relu(x) b = StringConcat(names, names) same = StringConcat(b, names) y = Tanh(a) }""",
    "a function of its own": """<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        g (float[N,3] x) => (float[N,3] y) { a = Relu(x) b = own.twice(a) y = Neg(b) }
        <opset_import: ["" : 20], domain: "own"> twice (v) => (r) { h = Tanh(v) r = Add(h, v) }""",
    "one operator": "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }",
    "no operator": "g (float[N,3] x) => (float[2] w) <float[2] w = {1, 2}> { }",
    "weights that are inputs too": """<ir_version: 3, opset_import: ["" : 9]>
        g (float[N,3] x, float[3] w) => (float[N,3] y) <float[3] w = {1, 2, 3}>
        { a = Mul(x, w) b = Tanh(a) y = Mul(b, w) }""",
    "what no output needs": """
        g (float[N,3] x) => (float[N,3] y) { a = Relu(x) dead = Neg(a) more = Tanh(dead)
        y = Tanh(a) }""",
}


@pytest.mark.parametrize("text", STRUCTURES.values(), ids=STRUCTURES)
def test_cut_everywhere_it_gives_the_outputs_of_the_whole(text: str) -> None:
    model = model_from_text(text, name="g")
    partition = finest(model)
    assert_well_formed(partition)
    assert len(partition.units) == max(1, len(partition.operators.groups))
    assert_chain_equals_whole(model, partition, _inputs(model))


def _inputs(model: Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        spec.name: (
            np.array(["a", "b"], object)
            if spec.dtype == object
            else rng.standard_normal([d if isinstance(d, int) else 2 for d in spec.shape]).astype(
                spec.dtype
            )
        )
        for spec in model.inputs
    }


def test_an_operator_may_leave_out_its_first_output() -> None:
    model = _with_lstm()
    partition = finest(model)
    assert partition.operators[1].writes == ("h",)
    assert_chain_equals_whole(model, partition, _inputs(model))


def _with_lstm() -> Model:
    import onnx
    import onnx_ir as ir

    rng = np.random.default_rng(1)
    weights = {"w": rng.normal(size=(1, 8, 3)), "r": rng.normal(size=(1, 8, 2))}
    make = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            make("Tanh", ["x"], ["a"]),
            make("LSTM", ["a", "w", "r"], ["", "h"], hidden_size=2),
            make("Neg", ["h"], ["y"]),
        ],
        "lstm",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["S", 2, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2, 2])],
        [onnx.numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    return model_from_ir(ir.from_proto(proto), name="lstm")


SMALL = (
    *("tiny_cnn", "tiny_branchy", "tiny_mlp", "tiny_encoder"),
    *("small_resnet", "lenet", "squeezenet1_1", "mobilenet_v2"),
)
"""Every kind of zoo network that loads in well under a second."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SMALL)
def test_zoo_networks_on_two_processors_give_the_outputs_of_the_whole(
    name: str, mode: Mode
) -> None:
    assert_cut_equals_whole(resolve_model(f"zoo:{name}"), mode)


def test_a_network_with_branches_is_cut_and_not_refused() -> None:
    # What must hold, because it did not in a public implementation of scheduling by spans.
    model = resolve_model("zoo:tiny_branchy")
    operators = Operators.of(model.graph)
    support = {"cpu": everything(operators), "npu": gaps(operators, "Relu")}
    options = PartitionOptions(minimum_subgraph_size=1)
    partition = choose_partition(model, support, options, operators=operators)
    assert len(partition.units) > 2
    assert any(len(border.values) > 1 for border in partition.borders[1:])


LARGE = ("densenet201", "inception_v3")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_zoo_networks_on_two_processors_give_the_outputs_of_the_whole(name: str) -> None:
    assert_cut_equals_whole(resolve_model(f"zoo:{name}"), Mode.MERGED)


@pytest.mark.parametrize("path", light_models(), ids=lambda path: Path(path).stem)
def test_models_of_the_onnx_package_give_the_outputs_of_the_whole(path: str) -> None:
    assert_cut_equals_whole(load_model(path), Mode.MERGED)


_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")


def assert_cut_equals_whole(model: Model, mode: Mode) -> None:
    operators = Operators.of(model.graph)
    support = {
        "cpu": everything(operators),
        "npu": gaps(operators, *_POOLS, "Softmax", "Sum"),
    }
    if support["npu"] == support["cpu"]:
        support["npu"] = gaps(operators, "Relu")
    options = PartitionOptions(mode=mode, minimum_subgraph_size=1)
    partition = choose_partition(model, support, options, operators=operators)
    assert len(partition.units) > 1
    assert_well_formed(partition)
    inputs = model.sample_inputs()
    assert_same(run_chain(model, partition, unit_chain(partition), inputs), run(model, inputs))


def test_the_whole_span_is_the_model_itself() -> None:
    model = resolve_model("zoo:tiny_cnn")
    assert extract(model, finest(model), finest(model).whole) is model


def test_weights_are_shared_with_the_whole() -> None:
    model = model_from_text(STRUCTURES["weights that units share"], name="g")
    [whole] = [v.const_value for v in model.graph.graph.initializers.values()]
    partition = finest(model)
    parts = [extract(model, partition, span) for span in unit_chain(partition)]
    found = [v.const_value for part in parts for v in part.graph.graph.initializers.values()]
    assert len(found) == 3
    assert all(tensor is whole for tensor in found)


def test_the_model_that_is_cut_does_not_change() -> None:
    model = resolve_model("zoo:tiny_branchy")
    before = model.to_bytes()
    assert_cut_equals_whole(model, Mode.MERGED)
    assert model.to_bytes() == before


def test_a_part_keeps_what_is_known_of_its_inputs() -> None:
    model = model_from_text(
        "g (int64[N,3] x) => (int64[N,3] y) { a = Neg(x) y = Abs(a) }", name="g"
    )
    model.graph.metadata_props["coinfer.input.x.high"] = "1000"
    part = extract(model, finest(model), Span(0, 0))
    assert part.sample_inputs(seed=1)["x"].max() > 1
    assert part.name == "g[0-0]"
    assert part.batch_symbol == "N"


def test_a_part_knows_what_only_other_parts_see() -> None:
    model = model_from_text(STRUCTURES["an output that is read later"], name="g")
    partition = finest(model)
    parts = [extract(model, partition, span) for span in unit_chain(partition)]
    assert [sorted(part.borders) for part in parts] == [[], ["b"], ["b"]]
    assert model.borders == frozenset()


def test_a_span_that_is_not_there_is_refused() -> None:
    model = resolve_model("zoo:tiny_cnn")
    partition = finest(model, cuts=[3])
    with pytest.raises(ConfigurationError, match=r"no span 1\.\.2 of 2 units"):
        extract(model, partition, Span(1, 2))


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.model.name)
def test_tiny_models_give_their_reference_outputs(example: Example) -> None:
    model = example.model
    inputs = model.sample_inputs(batch=3)
    partition = finest(model)
    got = run_chain(model, partition, unit_chain(partition), inputs)
    for name, array in example.reference(inputs).items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)
