"""Break the structure of ONNX models at random places, as damage and bad exporters do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import onnx_ir as ir
from onnx import helper

from coinfer import zoo

_HEADER = '<ir_version: 10, opset_import: ["": 23, "com.example": 1, "my": 1]>'
_TEXTS = (
    """g (float[n,4] x, int64 k, bool c, float[4] s) => (float[n,a] y)
    <float[4,2] m = {1,2,3,4,5,6,7,8}>
    { z = MatMul(x, m)
      i = If(c) <then_branch = t () => (float[n,2] q) { q = Relu(z) },
                 else_branch = e () => (float[n,2] q) { q = MatMul(x, m) }>
      l = Loop(k, c, i) <body = b (int64 it, bool go, float[n,2] s1) => (bool on, float[n,2] t)
          { on = Identity(go)  t = Add(s1, s1) }>
      w = Constant<value_floats = [1.0, 2.0]>()
      v = Add(l, w)
      y = Gemm<alpha=1.0, transB=1>(v, m) }""",
    """g (float[1,4,8,8] x, float[6,4,3,3] w) => (float[1,6,8,8] y)
    { y = Conv<pads=[1,1,1,1]>(x, w) }""",
    """g (float[5,2,3] x, float[1,16,3] w, float[1,16,4] r) => (float[5,1,2,4] y)
    { y, h, c = LSTM<hidden_size=4>(x, w, r) }""",
    """g (float[2,3] x, float[3,4] z) => (float[2,4] y)
    { e = Einsum<equation="ij,jk->ik">(x, z)  q = my.f<alpha=0.5>(e)  y = com.example.Other(q) }
    <domain: "my", opset_import: ["": 23]> f <alpha> (a) => (b)
    { b = LeakyRelu<alpha: float = @alpha>(a) }""",
    """g (float[3] s, float[5,3] x) => (float[3] t, float[5,3] z)
    { t, z = Scan(s, x) <num_scan_inputs=1, body = b (float[3] a, float[3] i)
      => (float[3] o, float[3] p) { o = Add(a, i)  p = Identity(o) }> }""",
    """g (float[2,2,4,8] q, float[2,2,6,8] k, float[2,2,6,8] v) => (float[2,2,4,8] y)
    { y = Attention(q, k, v) }""",
)
_OPERATORS = (
    *("Attention", "Constant", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum"),
    *("GRU", "Gemm", "Identity", "If", "LSTM", "Loop", "MatMul", "MatMulInteger", "Nope"),
    *("QLinearConv", "QLinearMatMul", "RNN", "Scan", "SequenceMap"),
)
_ATTRIBUTES = (3, 2.5, "text", [1, 2], [1.5], ["a", "b"])


def models() -> list[onnx.ModelProto]:
    """Models with all that is counted in a way of its own."""
    texts = [onnx.parser.parse_model(_HEADER + text) for text in _TEXTS]
    return [*texts, *(ir.to_proto(zoo.build(name)) for name in ("tiny_cnn", "tiny_encoder"))]


def mutated(model: onnx.ModelProto, chance: random.Random, times: int) -> onnx.ModelProto:
    """Copy a model with a few mutations."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(times):
        nodes = [*_nodes(copy.graph), *(node for f in copy.functions for node in f.node)]
        chance.choice(_MUTATIONS)(copy, chance.choice(nodes), chance)
    return copy


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _cut(items: Any, chance: random.Random) -> None:
    if items:
        del items[chance.randrange(len(items)) :]


def _inputs_cut(_: onnx.ModelProto, node: onnx.NodeProto, chance: random.Random) -> None:
    _cut(node.input, chance)


def _outputs_cut(_: onnx.ModelProto, node: onnx.NodeProto, chance: random.Random) -> None:
    _cut(node.output, chance)


def _input_renamed(_: onnx.ModelProto, node: onnx.NodeProto, chance: random.Random) -> None:
    if node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(("", "nowhere"))


def _attribute_gone(_: onnx.ModelProto, node: onnx.NodeProto, chance: random.Random) -> None:
    _cut(node.attribute, chance)


def _attribute_of_another_type(
    _: onnx.ModelProto, node: onnx.NodeProto, chance: random.Random
) -> None:
    if node.attribute:
        attribute = chance.choice(node.attribute)
        attribute.CopyFrom(helper.make_attribute(attribute.name, chance.choice(_ATTRIBUTES)))


def _attribute_by_reference(
    _: onnx.ModelProto, node: onnx.NodeProto, chance: random.Random
) -> None:
    if node.attribute:
        attribute = chance.choice(node.attribute)
        name, kind = attribute.name, attribute.type
        attribute.Clear()
        attribute.name, attribute.type, attribute.ref_attr_name = name, kind, "outer"


def _another_operator(_: onnx.ModelProto, node: onnx.NodeProto, chance: random.Random) -> None:
    node.op_type = chance.choice(_OPERATORS)


def _another_domain(_: onnx.ModelProto, node: onnx.NodeProto, chance: random.Random) -> None:
    node.domain = chance.choice(("com.example", "ai.onnx.ml"))


def _weight_of_another_type(
    model: onnx.ModelProto, _: onnx.NodeProto, chance: random.Random
) -> None:
    if model.graph.initializer:
        chance.choice(model.graph.initializer).data_type = chance.choice((0, 8, 14, 20, 23, 99))


def _weight_of_another_shape(
    model: onnx.ModelProto, _: onnx.NodeProto, chance: random.Random
) -> None:
    if model.graph.initializer:
        dims = chance.choice(([], [0], [2**40, 2**40], [1] * 9))
        chance.choice(model.graph.initializer).dims[:] = dims


def _value_of_another_type(
    model: onnx.ModelProto, _: onnx.NodeProto, chance: random.Random
) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    kind = chance.choice(values).type
    if chance.random() < 0.2:
        kind.ClearField("tensor_type")
    else:
        kind.tensor_type.elem_type = chance.choice((0, 8, 16, 99))


def _value_of_another_shape(
    model: onnx.ModelProto, _: onnx.NodeProto, chance: random.Random
) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    kind = chance.choice(values).type.tensor_type
    dims = kind.shape.dim
    if chance.random() < 0.3:
        kind.ClearField("shape")
    elif chance.random() < 0.5 or not dims:
        del dims[:]
    else:
        chance.choice(dims).dim_value = chance.choice((0, 1, 2**62))


_MUTATIONS: tuple[Callable[[onnx.ModelProto, onnx.NodeProto, random.Random], None], ...] = (
    _another_domain,
    _another_operator,
    _attribute_by_reference,
    _attribute_gone,
    _attribute_of_another_type,
    _input_renamed,
    _inputs_cut,
    _outputs_cut,
    _value_of_another_shape,
    _value_of_another_type,
    _weight_of_another_shape,
    _weight_of_another_type,
)
