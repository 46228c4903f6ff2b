"""Weights in a file of their own change nothing: such a model is cut and counted as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from coinfer.graph.cost import operator_costs
from coinfer.graph.operators import Operators
from coinfer.graph.partition import partition_at
from coinfer.model import Model, load_model
from graph.chains import assert_chain_equals_whole, everything


def tensor(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def weight(name: str, *shape: int) -> TensorProto:
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return numpy_helper.from_array(values / np.float32(8), name)


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def convolutions() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "v", "c"], ["y"]),
    ]
    weights = [
        *(weight("w", 256, 3, 3, 3), weight("b", 256)),
        *(weight("v", 256, 256, 3, 3), weight("c", 256)),
    ]
    inputs, outputs = [tensor("x", "n", 3, 6, 6)], [tensor("y", "n", 256, 2, 2)]
    return model_of(helper.make_graph(nodes, "g", inputs, outputs, weights))


def dense_layers(shape: list[onnx.NodeProto], weights: list[TensorProto]) -> onnx.ModelProto:
    nodes = [
        *shape,
        helper.make_node("Reshape", ["x", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["y"]),
    ]
    weights = [*weights, weight("w", 12, 400), weight("v", 400, 5)]
    return model_of(
        helper.make_graph(nodes, "g", [tensor("x", "n", 3, 4)], [tensor("y", "n", 5)], weights)
    )


def dense() -> onnx.ModelProto:
    return dense_layers([], [numpy_helper.from_array(np.array([-1, 12]), "shape")])


def dense_with_constant() -> onnx.ModelProto:
    value = numpy_helper.from_array(np.array([-1, 12]), "value")
    return dense_layers([helper.make_node("Constant", [], ["shape"], value=value)], [])


def loaded(proto: onnx.ModelProto, folder: Path, threshold: int) -> Model:
    path = folder / "m.onnx"
    onnx.save(
        *(proto, path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=threshold,
        convert_attribute=True,
    )
    return load_model(path)


def assert_cut_equals_whole(model: Model, parts: int) -> None:
    operators = Operators.of(model.graph)
    places = range(1, len(operators.groups))
    partition = partition_at(model, places, {"cpu": everything(operators)}, operators=operators)
    assert len(partition.units) == parts
    assert_chain_equals_whole(model, partition)


@pytest.mark.parametrize("threshold", [0, 1024])
def test_a_network_with_external_weights_is_cut_as_if_it_had_them(
    tmp_path: Path, threshold: int
) -> None:
    model = loaded(convolutions(), tmp_path, threshold)
    assert_cut_equals_whole(model, 3)
    macs = [cost.macs for cost in operator_costs(model.graph)]
    assert macs == [256 * 16 * 27, 0, 256 * 4 * 256 * 9]


@pytest.mark.parametrize("threshold", [0, 8, 1024])
@pytest.mark.parametrize("proto", [dense, dense_with_constant])
def test_shapes_in_the_file_of_weights_are_read(tmp_path: Path, proto, threshold: int) -> None:
    model = loaded(proto(), tmp_path, threshold)
    costs = operator_costs(model.graph)
    assert [cost.macs for cost in costs] == [0, 12 * 400, 0, 400 * 5]
    assert sum(cost.macs or 0 for cost in costs) == 6800
    assert_cut_equals_whole(model, 4)


def test_a_part_needs_the_file_no_more(tmp_path: Path) -> None:
    whole = loaded(dense(), tmp_path, 0)
    embedded = onnx.load_from_string(whole.to_bytes())
    assert not any(tensor.external_data for tensor in embedded.graph.initializer)
