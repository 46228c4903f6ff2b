"""Dense layers: edit a graph that ONNX Runtime rewrote, so that weights are used as they are.

Whenever a session is made, ONNX Runtime brings the constant right operand of a `Gemm` or `MatMul`
into another form: a millisecond by the MiB. If a file holds that form already, it does so all the
same, to compare both, and throws its own away; so it reads both. Filters of convolutions in blocks
of channels it uses as they are in the file. So a dense layer becomes a convolution of size one,
whose places are the rows. Each sum has the same products, added in another order. What adds a bias
to it, and the function applied to that, become part of it. Knows graphs; runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coinfer.backends.onnxruntime.dense_layer import DenseLayer, dense_layer
from coinfer.graph.initializers import Initializers

__all__ = ["dense_to_convolutions"]

_BLOCKS = "com.microsoft.nchwc"
_CONTRIBUTED = "com.microsoft"

_OF_SIZE_ONE: Mapping[str, Any] = {
    **dict.fromkeys(("kernel_shape", "strides", "dilations"), (1, 1)),
    "pads": (0, 0, 0, 0),
    "group": 1,
}
"""Attributes of a convolution that computes a dense layer."""

_LEAST_WEIGHT_BYTES = 2**20
"""Smaller ones are prepared within a millisecond, and a run would notice the operators around."""


def dense_to_convolutions(model: ir.Model, block: int) -> int:
    """Let dense layers with large constant weights be convolutions in blocks of channels.

    Args:
        model: A graph that is to be loaded as it is; it is changed.
        block: How many channels the library keeps together; 0: it has no such convolutions.

    Returns:
        How many layers were changed.
    """
    graph = model.graph
    if not block:
        return 0
    opset = graph.opset_imports.get("", 1)
    layers = [layer for node in graph if (layer := dense_layer(node, _LEAST_WEIGHT_BYTES, opset))]
    if layers:
        graph.opset_imports.setdefault(_BLOCKS, 1)
        edit = _Edit(graph, block)
        for layer in layers:
            edit.replace(layer)
        edit.clean_up()
    return len(layers)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """A value in blocks of channels.

    Attributes:
        value: That in blocks: [1, rows, 1, channels]; of no rows: [0, 1, 1, channels].
        leading: The sizes of all axes but the last, of the plain one.
    """

    value: ir.Value
    leading: ir.Value


class _Edit:
    """Replaces dense layers of a graph, in its order.

    Args:
        graph: It is changed.
        block: How many channels are kept together.
    """

    def __init__(self, graph: ir.Graph, block: int) -> None:
        self._graph = graph
        self._block = block
        # Before, a zero stands for the size of that axis, which is right for a matrix.
        self._reshape = {"allowzero": 1} if graph.opset_imports.get("", 1) >= 14 else {}
        self._initializers = Initializers(graph)
        self._known: dict[ir.Value, _Blocks] = {}
        self._weights: dict[tuple[ir.Value, bool, float], ir.Value] = {}
        self._numbers: dict[tuple[int, ...], ir.Value] = {}
        self._shapes: dict[tuple[ir.Value, int], ir.Value] = {}
        self._back: list[ir.Node] = []
        self._unread: list[ir.Value] = []

    def replace(self, layer: DenseLayer) -> None:
        """Put a convolution in the place of a layer."""
        at, old = layer.nodes[0], layer.nodes[-1].outputs[0]
        before = self._known.get(layer.x) or self._into_blocks(layer, at)
        blocks = _Blocks(self._convolution(layer, before, at), before.leading)
        new = self._out_of_blocks(blocks, layer.outputs, at)
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name, old.name = old.name, None
        if layer.outputs % self._block == 0:
            self._known[new] = blocks
        for node in reversed(layer.nodes):
            self._unread += [value for value in node.inputs if value is not None]
            self._graph.remove(node, safe=True)

    def clean_up(self) -> None:
        """Forget what nobody reads any more."""
        for node in reversed(self._back):
            if not any(v.uses() or v.is_graph_output() for v in node.outputs):
                self._graph.remove(node, safe=True)
        constants = [value for value in self._unread if value.is_initializer()]
        self._initializers.drop_unused(dict.fromkeys((*constants, *self._numbers.values())))

    def _convolution(self, layer: DenseLayer, x: _Blocks, at: ir.Node) -> ir.Value:
        inputs = [x.value, self._filter(layer)]
        if layer.bias is not None:
            bias = np.zeros(-(-layer.outputs // self._block) * self._block, np.float32)
            bias[: layer.outputs] = layer.bias
            inputs.append(self._initializers.add(f"{layer.weight.name}.bias", bias))
        attributes = dict(_OF_SIZE_ONE)
        if layer.function not in ("", "Gelu"):
            attributes["activation"] = layer.function
        made = self._node(at, "Conv", inputs, attributes, _BLOCKS)
        if layer.function == "Gelu":
            made = self._node(at, "Gelu", [made], {}, _CONTRIBUTED)
        return made

    def _into_blocks(self, layer: DenseLayer, at: ir.Node) -> _Blocks:
        """Bring what a layer reads into blocks; rows are the places of one picture, or of none."""
        x, one = layer.x, self._number(1)
        sizes = self._node(at, "Shape", [x])
        leading = self._node(at, "Slice", [sizes, self._number(0), self._number(-1)])
        rows = self._node(at, "ReduceProd", [leading])
        pictures = self._node(at, "Min", [rows, one])
        places = self._node(at, "Max", [rows, one])
        parts = [pictures, places, one, self._number(layer.inputs)]
        shape = self._node(at, "Concat", parts, {"axis": 0})
        spread = self._node(at, "Reshape", [x, shape], self._reshape)
        made = self._node(at, "ReorderInput", [spread], {"channels_last": 1}, _BLOCKS)
        found = self._known[x] = _Blocks(made, leading)
        return found

    def _out_of_blocks(self, blocks: _Blocks, outputs: int, at: ir.Node) -> ir.Value:
        attributes = {"channels": outputs, "channels_last": 1}
        plain = self._node(at, "ReorderOutput", [blocks.value], attributes, _BLOCKS)
        self._back.append(_producer(plain))
        key = blocks.leading, outputs
        if key not in self._shapes:
            parts = [blocks.leading, self._number(outputs)]
            self._shapes[key] = self._node(at, "Concat", parts, {"axis": 0})
            self._back.append(_producer(self._shapes[key]))
        made = self._node(at, "Reshape", [plain, self._shapes[key]], self._reshape)
        self._back.append(_producer(made))
        return made

    def _filter(self, layer: DenseLayer) -> ir.Value:
        key = layer.weight, layer.is_turned, layer.factor
        if key not in self._weights:
            name = f"{layer.weight.name}.blocks"
            array = _in_blocks(layer.matrix(), self._block)
            self._weights[key] = self._initializers.add(name, array)
        return self._weights[key]

    def _number(self, *numbers: int) -> ir.Value:
        if numbers not in self._numbers:
            array = np.array(numbers, np.int64)
            self._numbers[numbers] = self._initializers.add("sizes", array)
        return self._numbers[numbers]

    def _node(
        self,
        at: ir.Node,
        op_type: str,
        inputs: list[ir.Value],
        attributes: Mapping[str, Any] = MappingProxyType({}),
        domain: str = "",
    ) -> ir.Value:
        node = ir.node(op_type, inputs, dict(attributes), domain=domain)
        [made] = node.outputs
        made.name = self._initializers.free(f"{at.name or 'dense'}.{op_type}")
        self._graph.insert_before(at, node)
        return made


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _in_blocks(matrix: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    """Return the filter of a matrix of [outputs, inputs] as the library keeps it.

    >>> _in_blocks(np.arange(6, dtype=np.float32).reshape(2, 3), 2).ravel()
    array([0., 3., 1., 4., 2., 5., 0., 0.], dtype=float32)
    """
    outputs, inputs = (-(-size // block) for size in matrix.shape)
    whole = np.zeros((outputs * block, inputs * block), np.float32)
    whole[: matrix.shape[0], : matrix.shape[1]] = matrix
    pieces = whole.reshape(outputs, block, inputs, block).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pieces).reshape(outputs * block, inputs * block, 1, 1)
