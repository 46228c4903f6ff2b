"""Which layers are found, and that what they cost is exact."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coinfer import zoo
from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.layer import Kind, Layer, Ranks, check_ranks, clipped
from coinfer.graph.compressing.layers import Layers
from coinfer.graph.compressing.rank_rule import ratio_ranks
from coinfer.graph.cost import operator_costs, total


def conv(**sizes: object) -> Layer:
    known = {"inputs": 8, "outputs": 12, "kernel": (3, 3), "groups": 1, "kind": Kind.CONVOLUTION}
    return Layer(key="y", name="y", in_places=1, out_places=1, **{**known, **sizes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "ratio", "fewer", "convolutions"),
    [
        ("vgg16", 0.32, 0.81, 13),
        ("resnet152", 0.37, 0.386, 51),
        ("inception_v3", 0.31, 0.628, 54),
        ("regnet_y_32gf", 0.40, 0.358, 21),
    ],
)
def test_one_ratio_removes_as_many_operations_as_the_paper(
    network: str, ratio: float, fewer: float, convolutions: int
) -> None:
    """JKIICE 26(6):842-849, 2022; within one point, because ranks are whole numbers."""
    graph = zoo.build(network)
    layers = Layers.of(graph)
    macs = total(operator_costs(graph)).macs
    assert macs is not None
    saved = sum(
        (layer.macs() or 0) - (layer.macs(ratio_ranks(layer, ratio)) or 0) for layer in layers
    )
    assert len(layers) == convolutions
    assert saved / macs == pytest.approx(fewer, abs=0.01)


def test_matrices_are_found_on_demand_only() -> None:
    graph = zoo.build("tiny_cnn")
    plain, both = Layers.of(graph), Layers.of(graph, svd=True)
    assert {layer.kind for layer in plain} == {Kind.CONVOLUTION}
    assert {layer.kind for layer in both} == {Kind.CONVOLUTION, Kind.DENSE}
    assert any("on demand" in why for why in plain.left.values())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("float[1,4,8,8] x, float[4,4,3,3] w", "an input of the model"),
        ("float[1,4,8,8] x, float[4,4,3,3] z", "computed"),
    ],
)
def test_a_weight_that_is_no_constant_is_left_with_the_reason(text: str, why: str) -> None:
    made = "w = Neg(z)" if why == "computed" else ""
    graph = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 20]>
        g ({text}) => (float[1,4,6,6] y) {{ {made} y = Conv(x, w) }}"""
    )
    found = Layers.of(graph)
    assert not found.items
    assert why in found.left["y"]


def test_a_depthwise_convolution_is_left_with_the_reason() -> None:
    found = Layers.of(zoo.build("mobilenet_v2"))
    assert {layer.groups for layer in found} == {1}
    assert "it has one channel per group" in found.left.values()


def test_the_shapes_of_an_open_batch_are_those_of_one_sample() -> None:
    layers = Layers.of(zoo.build("tiny_cnn"))
    assert all(layer.macs() is not None for layer in layers)


@pytest.mark.parametrize(
    ("layer", "ranks", "said"),
    [
        (conv(), Ranks(9, 4), "input rank 9 is out of range; give 1 to 8"),
        (conv(), Ranks(4, 0), "output rank 0 is out of range; give 1 to 12"),
        (conv(inputs=2), Ranks(1, 12), "output rank 12 is out of range; give 1 to 9"),
        (conv(kernel=(1, 1), kind=Kind.POINTWISE), Ranks(9), "give 1 to 8"),
        (conv(kernel=(), kind=Kind.DENSE), Ranks(4, 4), "has one rank"),
    ],
)
def test_a_rank_out_of_range_is_refused(layer: Layer, ranks: Ranks, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_ranks(layer, ranks)


def test_clipped_ranks_are_in_range() -> None:
    for inputs in (1, 2, 5, 40):
        for outputs in (1, 3, 60):
            check_ranks(conv(), clipped(conv(), Ranks(inputs, outputs)))


@pytest.mark.parametrize(
    ("shape", "group", "why"),
    [
        ((6, 2, 3, 3), 4, "cannot be divided"),
        ((6, 2, 3, 3), 0, "cannot be divided"),
        ((6, 0, 3, 3), 1, "no weights"),
        ((0, 2, 3, 3), 1, "no weights"),
    ],
)
def test_a_damaged_convolution_is_left_with_the_reason(
    shape: tuple[int, ...], group: int, why: str
) -> None:
    weight = ir.Value(name="w", const_value=ir.tensor(np.zeros(shape, np.float32), name="w"))
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 8, 6, 6]))
    node = ir.node("Conv", [x, weight], {"group": group}, name="c")
    node.outputs[0].name = "y"
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 20})
    found = Layers.of(ir.Model(graph, ir_version=10))
    assert not found.items
    assert why in found.left["c"]
