"""What a model's operators cost in arithmetic and bytes, read from its graph alone.

Knows shapes and weights; knows nothing of time, processors or libraries that run models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Final

import onnx_ir as ir

from coinfer.graph.macs import count_macs
from coinfer.graph.operators import subgraphs
from coinfer.graph.shapes import NO_DIMS, bind_shapes, static_shape

__all__ = [
    "ModelCost",
    "OperatorCost",
    "TensorSize",
    "WeightSize",
    "known_sum",
    "operator_costs",
    "total",
]

_NOT_TRAINED: Final[Mapping[str, frozenset[int]]] = {
    "BatchNormalization": frozenset({3, 4}),  # running mean and variance
    "Clip": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
    "Dropout": frozenset({1, 2}),
    "Pad": frozenset({1, 2, 3}),
    "Pow": frozenset({1}),
    "QuantizeLinear": frozenset({1, 2}),
    "Resize": frozenset({1, 2, 3}),
    "Upsample": frozenset({1}),
}
"""Inputs, by operator, that are statistics or settings and not parameters that training moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSize:
    """An activation that an operator reads or writes; `bytes` is None if its shape is unknown."""

    name: str
    bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSize:
    """A stored tensor that an operator uses; `trainable` if this use makes it a parameter."""

    name: str
    elements: int
    bytes: int
    trainable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """Cost of one operator for one execution.

    Attributes:
        name: The node's name, or `OPTYPE_INDEX` if it has none.
        op_type: Its operator, with the domain before it unless that is the standard one.
        macs: Multiply-accumulate operations; None if unknown, never a silent zero.
        weights: Stored tensors that it uses, each once.
        reads: Activations that it reads, each once.
        writes: Activations that it writes.
    """

    name: str
    op_type: str
    macs: int | None
    weights: tuple[WeightSize, ...]
    reads: tuple[TensorSize, ...]
    writes: tuple[TensorSize, ...]

    @property
    def parameters(self) -> int:
        """Trainable elements, shared ones included."""
        return sum(weight.elements for weight in self.weights if weight.trainable)

    @property
    def weight_bytes(self) -> int:
        """Bytes of stored tensors, shared ones included."""
        return sum(weight.bytes for weight in self.weights)

    @property
    def input_bytes(self) -> int | None:
        """Bytes of activations read; None if one is unknown."""
        return known_sum(tensor.bytes for tensor in self.reads)

    @property
    def output_bytes(self) -> int | None:
        """Bytes of activations written; None if one is unknown."""
        return known_sum(tensor.bytes for tensor in self.writes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """Cost of a model for one execution.

    Attributes:
        parameters: Elements of all stored tensors, shared ones once.
        trainable_parameters: Those that training moves: floating point, not batch-norm statistics,
            not scalars, not settings such as the bounds of a clip.
        macs: Multiply-accumulate operations; None if any operator's are unknown.
        known_macs: Those of the operators for which they are known.
        unknown_operators: Names of the others.
        weight_bytes: Bytes of all stored tensors, shared ones once.
        peak_activation_bytes_estimate: Most bytes alive at once if operators run in the order
            given and each tensor is freed after its last reader; None if a shape is unknown.
    """

    parameters: int
    trainable_parameters: int
    macs: int | None
    known_macs: int
    unknown_operators: tuple[str, ...]
    weight_bytes: int
    peak_activation_bytes_estimate: int | None


def operator_costs(
    model: ir.Model, *, batch: int = 1, dims: Mapping[str, int] = NO_DIMS
) -> tuple[OperatorCost, ...]:
    """Count each operator's cost, in the order of the graph.

    `Constant` nodes are not operators here; a node with subgraphs carries their weights.

    Args:
        model: Any model; it is not changed and its weights are not read.
        batch: Number for each input's first dimension where that is symbolic.
        dims: Numbers for other symbolic dimensions, by name.

    Raises:
        UnknownNameError: no input has a dimension of one of the names in `dims`.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[n, 3] x, float[3, 5] w) => (float[n, 5] y) { y = MatMul(x, w) }''')
    >>> operator_costs(model, batch=2)[0].macs
    30
    """
    graph = bind_shapes(model, batch=batch, dims=dims).graph
    return tuple(
        _operator_cost(node, index)
        for index, node in enumerate(graph)
        if node.op_type != "Constant"
    )


def total(costs: Sequence[OperatorCost]) -> ModelCost:
    """Add up operators in execution order; tensors that several operators share count once.

    >>> total([]).macs
    0
    """
    weights: dict[str, WeightSize] = {}
    for weight in (weight for cost in costs for weight in cost.weights):
        if weight.name not in weights or weight.trainable:
            weights[weight.name] = weight
    return ModelCost(
        parameters=sum(weight.elements for weight in weights.values()),
        trainable_parameters=sum(w.elements for w in weights.values() if w.trainable),
        macs=known_sum(cost.macs for cost in costs),
        known_macs=sum(cost.macs or 0 for cost in costs),
        unknown_operators=tuple(cost.name for cost in costs if cost.macs is None),
        weight_bytes=sum(weight.bytes for weight in weights.values()),
        peak_activation_bytes_estimate=_peak(costs),
    )


def known_sum(numbers: Iterable[int | None]) -> int | None:
    """Add numbers up; None if one of them is not known."""
    found = list(numbers)
    return None if None in found else sum(number or 0 for number in found)


def _operator_cost(node: ir.Node, index: int) -> OperatorCost:
    weights: dict[str, WeightSize] = {}
    reads: dict[str, TensorSize] = {}
    for user, position, value in _uses(node):
        name = value.name or ""
        if value.const_value is not None and value.is_initializer():
            use = _weight(value, value.const_value, user, position)
            if name not in weights or use.trainable:
                weights[name] = use
        elif value.graph is node.graph:
            reads[name] = _activation(value)
    return OperatorCost(
        name=node.name or f"{node.op_type}_{index}",
        op_type=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        macs=count_macs(node),
        weights=tuple(weights.values()),
        reads=tuple(reads.values()),
        writes=tuple(_activation(value) for value in node.outputs if value.name),
    )


def _uses(node: ir.Node) -> Iterator[tuple[ir.Node, int, ir.Value]]:
    """Every value that the node or a node of its subgraphs takes, with who takes it where."""
    inner = map(ir.traversal.RecursiveGraphIterator, subgraphs(node))
    for user in (node, *chain.from_iterable(inner)):
        for position, value in enumerate(user.inputs):
            if value is not None:
                yield user, position, value


def _weight(value: ir.Value, tensor: ir.TensorProtocol, user: ir.Node, position: int) -> WeightSize:
    shape = tuple(int(dim) for dim in tensor.shape.numpy())
    setting = position in _NOT_TRAINED.get(user.op_type, ())
    return WeightSize(
        name=value.name or "",
        elements=prod(shape),
        bytes=tensor.nbytes,
        # A scalar is a constant of the formula, such as 1/sqrt(d) in attention, and not trained.
        trainable=tensor.dtype.is_floating_point() and bool(shape) and not setting,
    )


def _activation(value: ir.Value) -> TensorSize:
    shape = static_shape(value)
    if shape is None or value.dtype is None or value.dtype is ir.DataType.STRING:
        return TensorSize(name=value.name or "", bytes=None)
    bits = prod(shape) * value.dtype.bitwidth
    return TensorSize(name=value.name or "", bytes=-(-bits // 8))


def _peak(costs: Sequence[OperatorCost]) -> int | None:
    last_use = {tensor.name: i for i, cost in enumerate(costs) for tensor in cost.reads}
    produced = {tensor.name for cost in costs for tensor in cost.writes}
    alive: dict[str, int] = {}
    for cost in costs:
        for tensor in cost.reads:
            # A value that no operator writes is an input of the model: it is there from the start.
            if tensor.name not in produced:
                if tensor.bytes is None:
                    return None
                alive[tensor.name] = tensor.bytes
    peak = sum(alive.values())
    for index, cost in enumerate(costs):
        for tensor in cost.writes:
            if tensor.bytes is None:
                return None
            alive[tensor.name] = tensor.bytes
        peak = max(peak, sum(alive.values()))
        for tensor in cost.reads:
            if last_use[tensor.name] == index:
                alive.pop(tensor.name, None)
    return peak
