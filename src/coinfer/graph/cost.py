"""What a model's operators cost in arithmetic and bytes, read from its graph alone.

Knows shapes and weights; knows nothing of time, processors or libraries that run models.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from coinfer.errors import ModelError
from coinfer.graph.count_range import CountRange
from coinfer.graph.macs import count_macs
from coinfer.graph.operators import subgraphs
from coinfer.graph.shapes import bind_shapes, static_shape
from coinfer.graph.weights import WeightSize, is_trainable, stored_tensors
from coinfer.model.model import NO_DIMS

__all__ = [
    "ModelCost",
    "OperatorCost",
    "TensorSize",
    "known_sum",
    "operator_costs",
    "total",
    "value_bytes",
]

_log = logging.getLogger(__name__)

_NO_BYTES = (ir.DataType.UNDEFINED, ir.DataType.STRING)
"""Types whose elements have no size of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSize:
    """An activation that an operator reads or writes; `bytes` is None if its shape is unknown."""

    name: str
    bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """Cost of one operator for one execution.

    Attributes:
        name: The node's name, or `OPTYPE_INDEX` if it has none.
        op_type: Its operator, with the domain before it unless that is the standard one.
        mac_range: Multiply-accumulate operations, as far as they are known; never a silent zero.
        weights: Stored tensors that it uses, each once.
        reads: Activations that it reads, each once.
        writes: Activations that it writes.
    """

    name: str
    op_type: str
    mac_range: CountRange
    weights: tuple[WeightSize, ...]
    reads: tuple[TensorSize, ...]
    writes: tuple[TensorSize, ...]

    @property
    def macs(self) -> int | None:
        """Multiply-accumulate operations; None if their number is not exactly known."""
        return self.mac_range.exact

    @property
    def parameters(self) -> int:
        """Trainable elements, shared ones included."""
        return sum(weight.elements for weight in self.weights if weight.trainable)

    @property
    def weight_bytes(self) -> int | None:
        """Bytes of stored tensors, shared ones included; None if one is unknown."""
        return known_sum(weight.bytes for weight in self.weights)

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
        mac_range: Multiply-accumulate operations, as far as they are known.
        unknown_operators: Names of the operators for whose MACs no limit is known.
        weight_bytes: Bytes of all stored tensors, shared ones once; None if one is unknown.
        peak_activation_bytes_estimate: Most bytes alive at once if operators run in the order
            given and each tensor is freed after its last reader; None if a shape is unknown.
    """

    parameters: int
    trainable_parameters: int
    mac_range: CountRange
    unknown_operators: tuple[str, ...]
    weight_bytes: int | None
    peak_activation_bytes_estimate: int | None

    @property
    def macs(self) -> int | None:
        """Multiply-accumulate operations; None if their number is not exactly known."""
        return self.mac_range.exact

    @property
    def known_macs(self) -> int:
        """Those that are done in any case."""
        return self.mac_range.least


def operator_costs(
    model: ir.Model, *, batch: int = 1, dims: Mapping[str, int] = NO_DIMS
) -> tuple[OperatorCost, ...]:
    """Count each operator's cost, in the order of the graph.

    `Constant` nodes are not operators here; a node with subgraphs carries their weights. Of a graph
    that breaks the rules of ONNX what cannot be counted is unknown, and the log says why.

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
    bound = _bound(model, batch, dims)
    stored = stored_tensors(bound.graph)
    return tuple(
        _operator_cost(node, index, stored)
        for index, node in enumerate(bound.graph)
        if node.op_type != "Constant"
    )


def _bound(model: ir.Model, batch: int, dims: Mapping[str, int]) -> ir.Model:
    """Bind and infer shapes where the graph allows it; otherwise take those that are stated."""
    try:
        return bind_shapes(model, batch=batch, dims=dims)
    except ModelError as error:
        _log.warning("%s; so less is known of what it costs", error)
        return model


def total(costs: Sequence[OperatorCost], stored: Iterable[WeightSize] = ()) -> ModelCost:
    """Add up operators in execution order; tensors that several operators share count once.

    Args:
        costs: From `operator_costs`.
        stored: All tensors of the same model, from `stored_weights`; those that no operator uses
            count as stored too.

    >>> total([]).macs
    0
    """
    weights = {weight.name: weight for weight in stored}
    for weight in (weight for cost in costs for weight in cost.weights):
        if weight.name not in weights or weight.trainable:
            weights[weight.name] = weight
    return ModelCost(
        parameters=sum(weight.elements for weight in weights.values()),
        trainable_parameters=sum(w.elements for w in weights.values() if w.trainable),
        mac_range=CountRange.total(cost.mac_range for cost in costs),
        unknown_operators=tuple(cost.name for cost in costs if cost.mac_range.most is None),
        weight_bytes=known_sum(weight.bytes for weight in weights.values()),
        peak_activation_bytes_estimate=_peak(costs),
    )


def known_sum(numbers: Iterable[int | None]) -> int | None:
    """Add numbers up; None if one of them is not known."""
    found = list(numbers)
    return None if None in found else sum(number or 0 for number in found)


def value_bytes(costs: Iterable[OperatorCost]) -> dict[str, int]:
    """Gather the sizes of all values that operators read or write, where known."""
    return {
        tensor.name: tensor.bytes
        for cost in costs
        for tensor in (*cost.reads, *cost.writes)
        if tensor.bytes is not None
    }


def _operator_cost(
    node: ir.Node, index: int, stored: Mapping[ir.Value, WeightSize]
) -> OperatorCost:
    weights: dict[str, WeightSize] = {}
    reads: dict[str, TensorSize] = {}
    for user, position, value in _uses(node):
        if value in stored:
            use = replace(stored[value], trainable=is_trainable(value, user, position))
            if use.name not in weights or use.trainable:
                weights[use.name] = use
        elif value.graph is node.graph:
            reads[value.name or ""] = _activation(value)
    return OperatorCost(
        name=node.name or f"{node.op_type}_{index}",
        op_type=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        mac_range=count_macs(node),
        weights=tuple(weights.values()),
        reads=tuple(reads.values()),
        writes=tuple(_activation(value) for value in node.outputs if value.name),
    )


def _uses(node: ir.Node) -> Iterator[tuple[ir.Node, int | None, ir.Value]]:
    """Every value that the node or a node of its subgraphs takes, with who takes it where.

    What a subgraph returns as it is has no position.
    """
    for position, value in enumerate(node.inputs):
        if value is not None:
            yield node, position, value
    for graph in subgraphs(node):
        for inner in graph:
            yield from _uses(inner)
        yield from ((node, None, value) for value in graph.outputs)


def _activation(value: ir.Value) -> TensorSize:
    shape = static_shape(value)
    if shape is None or value.dtype is None or value.dtype in _NO_BYTES:
        return TensorSize(name=value.name or "", bytes=None)
    bits = prod(shape) * value.dtype.bitwidth
    return TensorSize(name=value.name or "", bytes=-(-bits // 8))


def _peak(costs: Sequence[OperatorCost]) -> int | None:
    sizes = value_bytes(costs)
    last_use = {tensor.name: i for i, cost in enumerate(costs) for tensor in cost.reads}
    produced = {tensor.name for cost in costs for tensor in cost.writes}
    if sizes.keys() != last_use.keys() | produced:
        return None
    # A value that no operator writes is an input of the model: it is there from the start.
    alive = {name: size for name, size in sizes.items() if name not in produced}
    peak = sum(alive.values())
    for index, cost in enumerate(costs):
        alive.update((tensor.name, sizes[tensor.name]) for tensor in cost.writes)
        peak = max(peak, sum(alive.values()))
        for tensor in cost.reads:
            if last_use[tensor.name] == index:
                alive.pop(tensor.name, None)
    return peak
