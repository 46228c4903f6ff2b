"""What is put in the place of layers: at full rank the same outputs, always the counted costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from coinfer import zoo
from coinfer.backends import get_backend
from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.decompose import decomposed
from coinfer.graph.compressing.factor_maker import FactorMaker
from coinfer.graph.compressing.factors import Factors
from coinfer.graph.compressing.layer import Kind, Layer, Ranks, clipped
from coinfer.graph.compressing.layers import Layers
from coinfer.graph.compressing.rank_rule import ratio_ranks
from coinfer.graph.cost import operator_costs, total
from coinfer.machine.processor import Processor
from coinfer.model import Model, model_from_ir
from coinfer.profiling.error import relative_error

pytest.importorskip("tensorly", reason="decomposing needs tensorly")

CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core"}))
ROUNDING = 1e-5
"""A weight as a product of three in float32, twenty layers deep."""


def full(layer: Layer) -> Ranks:
    return clipped(layer, Ranks(*layer.full_ranks))


def off(one: Model, other: Model) -> float:
    feed = one.sample_inputs()
    outputs = []
    for model in (one, other):
        session = get_backend("onnxruntime").load(model, CPU)
        outputs.append(session.run(feed))
        session.close()
    return relative_error([outputs[1]], [outputs[0]])


def compressed(graph: ir.Model, ranks: Mapping[str, Ranks], layers: Layers) -> Model:
    maker = FactorMaker(graph, layers)
    return model_from_ir(decomposed(graph, maker.all_of(ranks)), name="m")


@pytest.mark.parametrize("network", ["tiny_cnn", "tiny_branchy", "tiny_mlp", "small_resnet"])
def test_at_full_rank_the_outputs_are_the_same(network: str) -> None:
    graph = zoo.build(network)
    layers = Layers.of(graph, svd=True)
    found = compressed(graph, {layer.key: full(layer) for layer in layers}, layers)
    assert off(model_from_ir(graph, name="m"), found) < ROUNDING


@pytest.mark.parametrize("network", ["tiny_cnn", "tiny_branchy", "tiny_encoder", "small_resnet"])
@pytest.mark.parametrize("ratio", [0.3, 0.8])
def test_operations_and_parameters_are_as_counted(network: str, ratio: float) -> None:
    graph = zoo.build(network)
    layers = Layers.of(graph, svd=True)
    ranks = {layer.key: ratio_ranks(layer, ratio) for layer in layers}
    before, after = (
        total(operator_costs(each)) for each in (graph, compressed(graph, ranks, layers).graph)
    )
    macs = sum((each.macs() or 0) - (each.macs(ranks[each.key]) or 0) for each in layers)
    weights = sum(each.parameters() - each.parameters(ranks[each.key]) for each in layers)
    assert before.macs is not None
    assert after.macs == before.macs - macs
    assert after.trainable_parameters == before.trainable_parameters - weights
    assert after.parameters == before.parameters - weights, "no weight is left that nobody uses"


def one_layer(node: str, x: str, y: str, **weights: tuple[int, ...]) -> ir.Model:
    inputs = "".join(f", float{list(shape)} {name}" for name, shape in weights.items())
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 20]>
        g (float{x} x{inputs}) => (float{y} y) {{ y = {node} }}"""
    )
    rng = np.random.default_rng(0)
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        shape = weights[str(value.name)]
        value.const_value = ir.tensor(rng.normal(size=shape).astype(np.float32), name=value.name)
        model.graph.register_initializer(value)
    return model


@pytest.mark.parametrize(
    ("node", "x", "y", "weights", "kind"),
    [
        (
            "Conv <strides = [2, 1], pads = [1, 0, 2, 1], dilations = [1, 2]> (x, w, b)",
            "[2, 6, 9, 11]", "[2, 8, 5, 8]", {"w": (8, 6, 3, 3), "b": (8,)}, Kind.CONVOLUTION,
        ),
        (
            'Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (x, w)',
            "[1, 6, 7, 8]", "[1, 8, 4, 4]", {"w": (8, 6, 4, 3)}, Kind.CONVOLUTION,
        ),
        (
            "Conv <group = 3, pads = [1, 1]> (x, w, b)",
            "[1, 12, 9]", "[1, 15, 9]", {"w": (15, 4, 3), "b": (15,)}, Kind.CONVOLUTION,
        ),
        (
            "Conv <pads = [1, 1, 1, 1, 1, 1]> (x, w)",
            "[1, 3, 4, 5, 6]", "[1, 5, 4, 5, 6]", {"w": (5, 3, 3, 3, 3)}, Kind.CONVOLUTION,
        ),
        (
            "Conv <strides = [2, 2], pads = [0, 1, 0, 1]> (x, w, b)",
            "[1, 6, 8, 8]", "[1, 4, 4, 5]", {"w": (4, 6, 1, 1), "b": (4,)}, Kind.POINTWISE,
        ),
        (
            "Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, b)",
            "[3, 6]", "[3, 5]", {"w": (5, 6), "b": (5,)}, Kind.DENSE,
        ),
        ("Gemm (x, w)", "[3, 6]", "[3, 5]", {"w": (6, 5)}, Kind.DENSE),
        ("MatMul (x, w)", "[2, 3, 6]", "[2, 3, 5]", {"w": (6, 5)}, Kind.DENSE),
    ],
)  # fmt: skip
def test_every_form_of_a_layer_is_kept(
    node: str, x: str, y: str, weights: dict[str, tuple[int, ...]], kind: Kind
) -> None:
    graph = one_layer(node, x, y, **weights)
    layers = Layers.of(graph, svd=True)
    assert [layer.kind for layer in layers] == [kind]
    found = compressed(graph, {layer.key: full(layer) for layer in layers}, layers)
    original = model_from_ir(graph, name="m")
    assert off(original, found) < ROUNDING
    assert found.outputs == original.outputs
    parts = [each.op_type for each in found.graph.graph]
    assert len(parts) == (3 if kind is Kind.CONVOLUTION else 2)


def test_a_side_without_a_rank_has_no_part() -> None:
    graph = zoo.build("tiny_cnn")
    layers = Layers.of(graph)
    first, second = layers.items
    found = compressed(graph, {first.key: Ranks(None, 4), second.key: Ranks(8, None)}, layers)
    convolutions = [node for node in found.graph.graph if node.op_type == "Conv"]
    assert len(convolutions) == 4


def test_the_original_is_not_changed() -> None:
    graph = zoo.build("tiny_cnn")
    before = model_from_ir(graph.clone(), name="m").fingerprint
    layers = Layers.of(graph)
    compressed(graph, {layer.key: ratio_ranks(layer, 0.5) for layer in layers}, layers)
    assert model_from_ir(graph, name="m").fingerprint == before


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'nobody' cannot be decomposed: there is no such"):
        decomposed(zoo.build("tiny_cnn"), {"nobody": Factors(None, np.ones(1), None)})


def test_names_that_are_taken_are_not_taken_again() -> None:
    graph = one_layer("Conv (x, w)", "[1, 4, 5, 5]", "[1, 4, 3, 3]", w=(4, 4, 3, 3))
    taken = ir.tensor(np.ones(1, np.float32), name="y.core")
    graph.graph.register_initializer(ir.Value(name="y.core", const_value=taken))
    layers = Layers.of(graph)
    found = compressed(graph, {"y": Ranks(2, 2)}, layers)
    assert "y.core.1" in found.graph.graph.initializers
