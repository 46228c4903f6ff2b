"""Dense layer: one of a graph, with what adds a bias to it and applies a function."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["DenseLayer", "dense_layer"]

_GEMM = (("", "Gemm"), ("com.microsoft", "FusedGemm"))
_MATMUL = ("", "MatMul")
_ADD = ("", "Add")
_BIAS_GELU = ("com.microsoft", "BiasGelu")

_FUNCTIONS = ("", "Relu", "Sigmoid", "Tanh")
"""Those without parameters that convolutions apply, too."""

_LEAST_OPSETS = {"Gemm": 12, "FusedGemm": 12, "MatMul": 14}
"""From these on shapes can be computed and restored, also of what has no rows."""

_MULTIPLE = 4
"""The library brings channels into blocks if there are so many, or a multiple."""


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A layer that computes f(x W^T + b).

    Attributes:
        nodes: The nodes that do, in their order; nobody else reads what passes between them.
        weight: A constant matrix.
        is_turned: Whether that has a row for each output.
        factor: It is multiplied by that.
        bias: What is added, a number for each output; None: nothing.
        function: Name of f; empty if there is none.
    """

    nodes: tuple[ir.Node, ...]
    weight: ir.Value
    is_turned: bool
    factor: float
    bias: npt.NDArray[np.float32] | None
    function: str

    @property
    def x(self) -> ir.Value:
        """What it reads now: any number of axes, the last one of features."""
        value = self.nodes[0].inputs[0]
        assert value is not None
        return value

    @property
    def inputs(self) -> int:
        """Number of features that it reads."""
        return self._sizes[1 if self.is_turned else 0]

    @property
    def outputs(self) -> int:
        """Number of those that it makes."""
        return self._sizes[0 if self.is_turned else 1]

    @property
    def _sizes(self) -> tuple[int, ...]:
        assert self.weight.const_value is not None
        return tuple(self.weight.const_value.shape.numpy())

    def matrix(self) -> npt.NDArray[np.float32]:
        """Return the weights that count: a row for each output."""
        assert self.weight.const_value is not None
        array = self.weight.const_value.numpy()
        turned = array if self.is_turned else array.T
        found: npt.NDArray[np.float32] = turned * np.float32(self.factor)
        return found


def dense_layer(node: ir.Node, least_bytes: int, opset: int) -> DenseLayer | None:
    """Return the layer that a node is, or begins.

    Args:
        node: A node of a graph that the library rewrote.
        least_bytes: Weights must have so many at least.
        opset: Version of the operators.

    Returns:
        None if it is none, of another form than can be a convolution, or small.
    """
    kind = (node.domain, node.op_type)
    if kind not in (*_GEMM, _MATMUL) or opset < _LEAST_OPSETS[node.op_type]:
        return None
    x, weight = node.inputs[:2]
    if x is None or x.is_initializer() or weight is None or not _is_large(weight, least_bytes):
        return None
    if kind == _MATMUL:
        layer: DenseLayer | None = _followed(DenseLayer((node,), weight, False, 1.0, None, ""))
    else:
        layer = _gemm(node, weight)
    return layer if layer is not None and layer.inputs % _MULTIPLE == 0 else None


def _gemm(node: ir.Node, weight: ir.Value) -> DenseLayer | None:
    attributes = node.attributes
    function = attributes.get_string("activation", "")
    if attributes.get_int("transA", 0) or function not in _FUNCTIONS:
        return None
    turned, factor = bool(attributes.get_int("transB", 0)), attributes.get_float("alpha", 1.0)
    layer = DenseLayer((node,), weight, turned, factor, None, function)
    added = node.inputs[2] if len(node.inputs) > 2 else None
    if added is None:
        return layer
    bias = _row(added, layer.outputs)
    if bias is None:
        return None
    return replace(layer, bias=bias * np.float32(attributes.get_float("beta", 1.0)))


def _followed(layer: DenseLayer) -> DenseLayer:
    """Return a product with the bias that is added to it, and the function of that."""
    [node] = layer.nodes
    [made] = node.outputs
    readers = {use.node for use in made.uses()}
    if made.is_graph_output() or len(made.uses()) != 1:
        return layer
    [reader] = readers
    kind = (reader.domain, reader.op_type)
    if kind not in (_ADD, _BIAS_GELU) or reader.graph is not node.graph:
        return layer
    [added] = [value for value in reader.inputs if value is not made]
    bias = None if added is None else _row(added, layer.outputs)
    if added is None or bias is None or added.shape is None or len(added.shape) != 1:
        return layer  # with more axes than the product it would add some
    function = "Gelu" if kind == _BIAS_GELU else ""
    return replace(layer, nodes=(node, reader), bias=bias, function=function)


def _is_large(weight: ir.Value, least_bytes: int) -> bool:
    constant = weight.const_value
    return (
        constant is not None
        and weight.is_initializer()
        and not weight.is_graph_input()
        and constant.dtype == ir.DataType.FLOAT
        and len(constant.shape) == 2
        and constant.nbytes >= least_bytes
    )


def _row(bias: ir.Value, outputs: int) -> npt.NDArray[np.float32] | None:
    """Return a constant as a number for each output; None if it is not the same for all rows."""
    if not bias.is_initializer() or bias.is_graph_input() or bias.const_value is None:
        return None
    array = bias.const_value.numpy()
    if array.dtype != np.float32 or array.size not in (1, outputs):
        return None
    if array.ndim and array.shape[-1] != array.size:
        return None
    return np.broadcast_to(array.reshape(-1), (outputs,))
