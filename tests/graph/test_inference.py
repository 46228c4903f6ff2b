"""What a file states of the shapes inside of it is a claim; what follows from its inputs counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from coinfer.errors import ModelError
from coinfer.graph.cost import operator_costs
from coinfer.graph.inference import border_specs
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition, partition_at
from coinfer.model import Model, load_model, model_from_ir
from coinfer.testing.models import model_from_text
from graph.chains import assert_chain_equals_whole, everything

FOREIGN = '<ir_version: 10, opset_import: ["": 20, "com.example": 1]>'


def tensor(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def filters(name: str, *shape: int) -> TensorProto:
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return numpy_helper.from_array(values, name)


def two_convolutions(
    inner: tuple[int | str, ...], output: tuple[int | str, ...] = ("n", 4, 4, 4)
) -> onnx.ModelProto:
    """Conv, Relu, Conv on x[n,3,8,8], with such a shape stated for the values between them."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("x", "n", 3, 8, 8)],
        [tensor("y", *output)],
        [filters("w", 4, 3, 3, 3), filters("v", 4, 4, 3, 3)],
        value_info=[tensor("h", *inner), tensor("r", *inner)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def loaded(proto: onnx.ModelProto, folder: Path) -> Model:
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return load_model(path)


def parted(model: Model) -> Partition:
    operators = Operators.of(model.graph)
    places = range(1, len(operators.groups))
    return partition_at(model, places, {"cpu": everything(operators)}, operators=operators)


def shapes(text: str) -> dict[str, tuple[int | str | None, ...]]:
    return {name: spec.shape for name, spec in border_specs(ir.from_onnx_text(text)).items()}


@pytest.mark.parametrize(
    ("inner", "output"),
    [
        ((1, 4, 6, 6), ("n", 4, 4, 4)),  # those of another batch
        ((1, 4, 5, 5), ("n", 4, 4, 4)),  # those of other inputs
        ((-1, 4, -1, -1), ("n", 4, 4, 4)),
        ((1, 4, 6, 6), (1, 4, 4, 4)),
    ],
)
def test_wrong_inner_shapes_are_not_believed(
    tmp_path: Path, inner: tuple[int | str, ...], output: tuple[int | str, ...]
) -> None:
    model = loaded(two_convolutions(inner, output), tmp_path)
    partition = parted(model)
    assert len(partition.units) == 3
    assert partition.operators.specs["r"].shape == ("n", 4, 6, 6)
    assert partition.operators.specs["y"].shape == ("n", 4, 4, 4)
    assert_chain_equals_whole(model, partition, model.sample_inputs(batch=4))
    costs = operator_costs(model.graph, batch=4)
    assert [cost.macs for cost in costs] == [4 * 4 * 36 * 27, 0, 4 * 4 * 16 * 36]


def test_a_wrong_rank_is_not_believed(tmp_path: Path) -> None:
    model = loaded(two_convolutions((1, 4, 36)), tmp_path)
    assert Operators.of(model.graph).specs["r"].shape == ("n", 4, 6, 6)


def test_the_shape_that_a_branch_states_is_not_believed() -> None:
    text = f"""{FOREIGN} g (float[n,3] x, bool c) => (float[n,3] y) {{
        h = If(c) <then_branch = a () => (float[1,3] t) {{ t = Relu(x) }},
                   else_branch = b () => (float[1,3] e) {{ e = Neg(x) }}>
        y = Tanh(h) }}"""
    assert shapes(text)["h"] == ("n", 3)


def test_of_what_nobody_can_infer_rank_and_symbols_are_believed_but_no_size() -> None:
    text = f"""{FOREIGN} g (float[n,3] x) => (float[n,3] y) <float[n,1,5] h>
        {{ h = com.example.Thing(x)  r = Relu(h)  y = com.example.Other(r) }}"""
    found = shapes(text)
    assert found["h"] == found["r"] == ("n", None, None)
    assert found["y"] == ("n", None)


def test_costs_count_claimed_sizes_where_nothing_else_is_known() -> None:
    text = f"""{FOREIGN} g (float[n,3] x, float[5,2] w) => (float[n,2] y) <float[n,5] h>
        {{ h = com.example.Thing(x)  r = Relu(h)  y = MatMul(r, w) }}"""
    costs = operator_costs(ir.from_onnx_text(text), batch=4)
    assert [cost.macs for cost in costs] == [None, 0, 4 * 5 * 2]


@pytest.mark.parametrize(
    ("claim", "follows"), [("n,5", ("n", None)), ("6,5", (None, None)), ("n,5,2", (None, None))]
)
def test_open_sizes_take_a_symbol_from_a_claim_that_fits(
    claim: str, follows: tuple[str | None, ...]
) -> None:
    text = f"""{FOREIGN} g (float[n,3] x, int64[2] s) => (float[n,5] y) <float[{claim}] h>
        {{ h = Reshape(x, s)  y = Neg(h) }}"""
    assert shapes(text)["h"] == follows


def test_claims_behind_what_nobody_can_infer_must_fit_each_other() -> None:
    text = f"""{FOREIGN} g (float[n,3] x) => (float[n,5] y) <float[n,5] h, float[n] r>
        {{ h = com.example.Thing(x)  r = Relu(h)  y = Neg(r) }}"""
    assert shapes(text)["r"] == ("n", None)


def test_a_type_that_is_claimed_wrongly_is_not_believed() -> None:
    text = f"""{FOREIGN} g (float[n,3] x) => (float[n,3] y) <int64[n,3] h>
        {{ h = Relu(x)  y = Neg(h) }}"""
    specs = border_specs(ir.from_onnx_text(text))
    assert str(specs["h"]) == "h: float32[n,3]"


def test_contradictions_are_told_once_per_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(two_convolutions((1, 4, 5, 5)), tmp_path)
    for batch in (1, 4):
        Operators.of(model.graph)
        operator_costs(model.graph, batch=batch)
    [record] = caplog.records
    assert record.name == "coinfer.graph.inference"
    assert "states the shape [1,4,5,5] for the value 'h', but [n,4,6,6]" in record.getMessage()


def test_claims_that_fit_are_not_talked_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(two_convolutions(("rows", 4, 6, 6), ("N", 4, 4, 4)), tmp_path)
    Operators.of(model.graph)
    operator_costs(model.graph)
    assert not caplog.records


def test_a_program_prints_one_line_of_contradictions(tmp_path: Path) -> None:
    model = loaded(two_convolutions((1, 4, 6)), tmp_path)
    command = [sys.executable, "-m", "coinfer", "inspect", str(model.source), "--batch", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [line] = done.stderr.splitlines()
    assert line.startswith("graph 'g': the file states the shape [1,4,6]")
    assert "24,768" in done.stdout  # 15,552 and 9,216


def test_models_with_functions_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    model = model_from_text(
        """<ir_version: 10, opset_import: ["": 20, "local": 1]>
        g (float[n,3] x) => (float[n,3] y) <float[1,4] h> { h = local.f(x)  y = Neg(h) }
        <opset_import: ["": 20], domain: "local"> f (a) => (b) { b = Relu(a) }""",
        name="m",
    )
    Operators.of(model.graph)
    operator_costs(model.graph)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("nameless", [-1, "?", "", "None", "unk__12", "-1"])
def test_sizes_without_a_name_are_open_each_for_itself(tmp_path: Path, nameless: int | str) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    shape = ("n", 3, nameless, nameless)
    graph = helper.make_graph(nodes, "g", [tensor("x", *shape)], [tensor("y", *shape)])
    graph.value_info.append(tensor("h", *shape))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = loaded(proto, tmp_path)
    assert model.inputs[0].shape == ("n", 3, None, None)
    image = {"x": np.ones((1, 3, 4, 6), np.float32)}
    assert model.check_inputs(image) == 1
    partition = parted(model)
    assert partition.operators.specs["h"].shape == ("n", 3, None, None)
    assert_chain_equals_whole(model, partition, image)
    assert [border.bytes for border in partition.borders] == [None, None]
    unknown = operator_costs(model.graph)
    assert [cost.output_bytes for cost in unknown] == [None, None]
    known = operator_costs(model.graph, dims={"x:2": 4, "x:3": 6})
    assert [cost.output_bytes for cost in known] == [288, 288]


def test_a_multiplication_of_open_size_has_no_cost(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [tensor("x", 1, -1, 3)], [tensor("y", 1, -1, 5)], [filters("w", 3, 5)]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    [cost] = operator_costs(loaded(proto, tmp_path).graph)
    assert (cost.macs, cost.input_bytes, cost.output_bytes) == (None, None, None)


def shapeless(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A model on x[n,3] with an output y that has a type and no shape."""
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [tensor("x", "n", 3)], [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_an_output_needs_no_shape(tmp_path: Path) -> None:
    model = loaded(
        shapeless(helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])),
        tmp_path,
    )
    assert str(model.outputs[0]) == "y: float32[...]"
    assert model_from_ir(model.graph.clone(), name="m").outputs == model.outputs
    partition = parted(model)
    assert partition.operators.specs["y"].shape == ("n", 3)
    assert_chain_equals_whole(model, partition)


def test_an_output_may_have_any_rank(tmp_path: Path) -> None:
    """What is squeezed depends on the sizes, so nobody can tell the rank before a run."""
    model = loaded(
        shapeless(
            helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Squeeze", ["h"], ["y"])
        ),
        tmp_path,
    )
    partition = parted(model)
    assert len(partition.units) == 2
    assert "y" not in partition.operators.specs
    for batch in (1, 2):
        assert_chain_equals_whole(model, partition, model.sample_inputs(batch=batch))
    assert operator_costs(model.graph)[1].output_bytes is not None  # known once batch is 1


def test_an_output_needs_no_shape_where_weights_are_in_another_file(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    proto = shapeless(*nodes)
    proto.graph.initializer.append(filters("w", 3, 5))
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = load_model(path)
    assert_chain_equals_whole(model, parted(model))


def test_what_else_is_wrong_is_found_where_an_output_has_no_shape(tmp_path: Path) -> None:
    proto = shapeless(helper.make_node("Relu", ["h"], ["y"]))
    with pytest.raises(ModelError, match="h"):
        loaded(proto, tmp_path)


def test_an_output_of_unknown_rank_is_shown(tmp_path: Path) -> None:
    proto = shapeless(helper.make_node("Squeeze", ["x"], ["y"]))
    model = loaded(proto, tmp_path)
    command = [sys.executable, "-m", "coinfer", "inspect", str(model.source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "y: float32[...]" in done.stdout
    assert not done.stderr
