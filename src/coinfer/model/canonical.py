"""Compute a model's fingerprint: equal graphs get equal digests, whatever their names.

The walk starts at the outputs, in their order, and follows inputs in their order. That order
depends on the topology alone, not on names nor on the order of nodes in the file; numbering nodes
and weights by it makes both digests canonical. Nodes and initializers that no output needs are
never met, so they do not count.

What belongs where:

- structure: operators with their domain, opset and attributes; topology; names, dtypes and shapes
  of graph inputs and outputs (a symbol counts by where it recurs, not by its name); dtype and
  shape of weights; values of boolean, string and wide integer constants, because they steer shapes
  and control flow; values of the float inputs of Resize and Upsample for the same reason.
- weights: values of floating-point constants, of integers of 8 bits or fewer, and of the 32-bit
  biases of quantised operators.

A `Constant` node counts as an initializer of that value. An attribute that spells out its default
differs from one left away: normalising needs the schema of every domain.

Imported on first use: it needs `onnx_ir`, which is slow to import.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir

from coinfer.errors import ModelError
from coinfer.model.fingerprint import Fingerprint

__all__ = ["constant_tensor", "fingerprint_of", "graphs_of"]

_DIGEST_BYTES = 16
_DEFAULT_DOMAIN = "ai.onnx"
_SHAPED_BY_FLOATS = frozenset({"Resize", "Upsample"})
_QUANTISED_BIAS = frozenset({"DequantizeLinear", "QLinearConv"})
_NARROW_BITS = 8

_DIGESTS: WeakKeyDictionary[ir.TensorProtocol, bytes] = WeakKeyDictionary()
"""What was computed of tensors that still are there: the parts of a model share them."""

_Record = tuple[Any, ...]
"""Nested tuples of str, int, float, bytes and None only: `ascii` of it is the same everywhere."""


def fingerprint_of(ir_model: ir.Model, name: str) -> Fingerprint:
    """Compute the fingerprint. Reads each weight once; external ones are mapped and released.

    Raises:
        ModelError: the graph uses a value that nothing produces, or a function calls itself.
    """
    hasher = _Hasher(ir_model, name)
    walk = hasher.walk(ir_model.graph, dict(ir_model.opset_imports))
    if walk.captured:
        raise ModelError(
            f"model {name!r} uses the value {walk.captured[0].name!r} but nothing produces it"
        )
    symbols: dict[str, int] = {}
    specs = (
        tuple(_spec_record(value, symbols) for value in _given(ir_model.graph)),
        tuple(_spec_record(value, symbols) for value in ir_model.graph.outputs),
    )
    weights = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for tensor in walk.weights:
        weights.update(hasher.tensor_digest(tensor))
    return Fingerprint(structure=_digest((specs, walk.record)).hex(), weights=weights.hexdigest())


class _Hasher:
    """What the walks of one model share: its functions."""

    def __init__(self, ir_model: ir.Model, name: str) -> None:
        self.name = name
        self.functions = ir_model.functions
        self._walks: dict[ir.OperatorIdentifier, _Walk | None] = {}

    def walk(self, graph: ir.Graph, opsets: dict[str, int]) -> _Walk:
        return _Walk(self, graph, opsets).run()

    def function_walk(self, key: ir.OperatorIdentifier) -> _Walk:
        if key not in self._walks:
            self._walks[key] = None
            function = self.functions[key]
            self._walks[key] = self.walk(function.graph, dict(function.opset_imports))
        walk = self._walks[key]
        if walk is None:
            raise ModelError(f"model {self.name!r}: function {key[1]!r} calls itself")
        return walk

    def tensor_digest(self, tensor: ir.TensorProtocol) -> bytes:
        digest = _DIGESTS.get(tensor)
        if digest is None:
            digest = _DIGESTS[tensor] = _tensor_digest(tensor)
        return digest


class _Walk:
    """One canonical walk over one graph.

    After `run`, `record` describes the structure, `weights` lists the weights and `captured` the
    values of enclosing graphs, both in the order in which the walk met them.
    """

    def __init__(self, hasher: _Hasher, graph: ir.Graph, opsets: dict[str, int]) -> None:
        self._hasher = hasher
        self._graph = graph
        self._opsets = opsets
        self._refs: dict[ir.Value, _Record] = {}
        self._inner: dict[ir.Node, list[tuple[str, _Walk]]] = {}
        self._nodes = 0
        self._state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self.weights: list[ir.TensorProtocol] = []
        self.captured: list[ir.Value] = []
        self.record: _Record = ()

    def run(self) -> Self:
        for index, value in enumerate(_given(self._graph)):
            self._refs[value] = ("input", index)
        for value in self._graph.outputs:
            self._visit(value)
        outputs = tuple(self._refs[value] for value in self._graph.outputs)
        self.record = (len(_given(self._graph)), outputs, self._state.digest())
        return self

    def _visit(self, root: ir.Value) -> None:
        """Number the value and all it depends on, depth first; a stack, as graphs are deep."""
        stack = [root]
        while stack:
            value = stack[-1]
            if value in self._refs:
                stack.pop()
                continue
            node = value.producer()
            if node is None or node.graph is not self._graph or _is_constant(node):
                self._refs[value] = self._leaf(value)
                continue
            pending = [item for item in self._needs(node) if item not in self._refs]
            if pending:
                stack.extend(reversed(pending))
            else:
                self._emit(node)

    def _leaf(self, value: ir.Value) -> _Record:
        tensor = constant_tensor(value) if value.graph is self._graph else None
        if tensor is None:
            self.captured.append(value)
            return ("captured", len(self.captured) - 1)
        kind = (int(tensor.dtype), _sizes(tensor.shape))
        if _is_weight(tensor.dtype, value):
            self.weights.append(tensor)
            return ("weight", len(self.weights) - 1, *kind)
        return ("constant", *kind, self._hasher.tensor_digest(tensor))

    def _needs(self, node: ir.Node) -> Iterator[ir.Value]:
        yield from (value for value in node.inputs if value is not None)
        for _, walk in self._subgraphs(node):
            yield from walk.captured

    def _subgraphs(self, node: ir.Node) -> list[tuple[str, _Walk]]:
        if node not in self._inner:
            self._inner[node] = [
                (attr.name, self._hasher.walk(graph, self._opsets))
                for attr in sorted(node.attributes.values(), key=lambda attr: attr.name)
                for graph in graphs_of(attr)
            ]
        return self._inner[node]

    def _emit(self, node: ir.Node) -> None:
        inputs = tuple(None if value is None else self._refs[value] for value in node.inputs)
        inner = [
            (name, walk.record, tuple(self._refs[value] for value in walk.captured))
            for name, walk in self._subgraphs(node)
        ]
        # The operator comes first: a function adds weights of its own.
        record = (
            self._operator(node),
            tuple(self._attributes(node)),
            _trimmed(inputs),
            tuple(inner),
            len(_trimmed(tuple(value.name or None for value in node.outputs))),
        )
        for _, walk in self._subgraphs(node):
            self.weights.extend(walk.weights)
        self._state.update(ascii(record).encode())
        for index, value in enumerate(node.outputs):
            self._refs[value] = (self._nodes, index)
        self._nodes += 1

    def _operator(self, node: ir.Node) -> _Record:
        key = node.op_identifier()
        if key in self._hasher.functions:
            walk = self._hasher.function_walk(key)
            self.weights.extend(walk.weights)
            return ("function", walk.record)
        domain = node.domain or _DEFAULT_DOMAIN
        version = self._opsets.get(node.domain, self._opsets.get(domain))
        return (domain, node.op_type, node.overload, version)

    def _attributes(self, node: ir.Node) -> Iterator[_Record]:
        for attr in sorted(node.attributes.values(), key=lambda attr: attr.name):
            if attr.is_ref():
                yield (attr.name, int(attr.type), "reference", attr.ref_attr_name)
            elif attr.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                yield (attr.name, int(attr.type), self._attribute_value(attr))

    def _attribute_value(self, attr: ir.Attr) -> Any:
        kinds = ir.AttributeType
        match attr.type:
            case kinds.INT:
                return int(attr.value)
            case kinds.INTS:
                return tuple(int(item) for item in attr.value)
            case kinds.FLOAT:
                return _float32(attr.value)
            case kinds.FLOATS:
                return tuple(_float32(item) for item in attr.value)
            case kinds.TENSOR:
                return self._tensor_value(attr.value)
            case kinds.TENSORS:
                return tuple(self._tensor_value(tensor) for tensor in attr.value)
            case kinds.STRINGS:
                return tuple(str(item) for item in attr.value)
            case _:
                return str(attr.value)

    def _tensor_value(self, tensor: ir.TensorProtocol) -> _Record:
        return (int(tensor.dtype), _sizes(tensor.shape), self._hasher.tensor_digest(tensor))


def _given(graph: ir.Graph) -> list[ir.Value]:
    """List the inputs without those that an initializer gives."""
    return [value for value in graph.inputs if value.const_value is None]


def _spec_record(value: ir.Value, symbols: dict[str, int]) -> _Record:
    shape = None if value.shape is None else tuple(_dim(dim, symbols) for dim in value.shape)
    return (value.name, str(value.type), shape)


def _dim(dim: int | ir.SymbolicDim, symbols: dict[str, int]) -> _Record | int | None:
    if not isinstance(dim, ir.SymbolicDim):
        return int(dim)
    if not dim.value:
        return None
    return ("symbol", symbols.setdefault(dim.value, len(symbols)))


def _is_constant(node: ir.Node) -> bool:
    return (
        node.op_type == "Constant"
        and node.domain in ("", _DEFAULT_DOMAIN)
        and not any(attr.is_ref() for attr in node.attributes.values())
    )


def constant_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer or of a `Constant` node, None for other values."""
    node = value.producer()
    if node is None:
        return value.const_value
    if not _is_constant(node) or len(node.attributes) != 1:
        return None
    (attr,) = node.attributes.values()
    match attr.name:
        case "value":
            return attr.as_tensor()
        case "value_int" | "value_ints":
            return ir.tensor(np.asarray(attr.value, dtype=np.int64))
        case "value_float" | "value_floats":
            return ir.tensor(np.asarray(attr.value, dtype=np.float32))
        case "value_string" | "value_strings":
            return ir.tensor(np.asarray(attr.value, dtype=object), dtype=ir.DataType.STRING)
        case _:
            return None


def _is_weight(dtype: ir.DataType, value: ir.Value) -> bool:
    uses = [(use.node.op_type, use.idx) for use in value.uses()]
    if dtype in (ir.DataType.BOOL, ir.DataType.STRING):
        return False
    if dtype.is_integer():
        bias = dtype == ir.DataType.INT32 and any(op in _QUANTISED_BIAS for op, _ in uses)
        return bias or dtype.bitwidth <= _NARROW_BITS
    return not any(op in _SHAPED_BY_FLOATS and index > 0 for op, index in uses)


def graphs_of(attr: ir.Attr) -> Iterable[ir.Graph]:
    """Return the graphs that an attribute holds."""
    if attr.is_ref():
        return ()
    if attr.type == ir.AttributeType.GRAPH:
        return (attr.as_graph(),)
    return attr.as_graphs() if attr.type == ir.AttributeType.GRAPHS else ()


def _trimmed(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Drop trailing Nones: an optional input or output at the end may be empty or left away."""
    end = len(items)
    while end and items[end - 1] is None:
        end -= 1
    return items[:end]


def _sizes(shape: ir.ShapeProtocol) -> tuple[int, ...]:
    return tuple(dim for dim in shape if isinstance(dim, int))


def _float32(value: float) -> float:
    """Round as the file format does, so that a graph made in memory equals its saved copy."""
    return float(np.float32(value))


def _tensor_digest(tensor: ir.TensorProtocol) -> bytes:
    if tensor.dtype == ir.DataType.STRING:
        return _digest(tuple(_text(item) for item in tensor.numpy().ravel().tolist()))
    if not isinstance(tensor, ir.ExternalTensor):
        return hashlib.blake2b(tensor.tobytes(), digest_size=_DIGEST_BYTES).digest()
    # A mapping of its own, to release it here: others may be reading through the tensor's mapping.
    mapped = ir.ExternalTensor(
        tensor.location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name or "",
        base_dir=tensor.base_dir,
    )
    try:
        return hashlib.blake2b(mapped.tobytes(), digest_size=_DIGEST_BYTES).digest()
    finally:
        mapped.release()


def _text(item: str | bytes) -> bytes:
    return item.encode() if isinstance(item, str) else bytes(item)


def _digest(record: _Record) -> bytes:
    return hashlib.blake2b(ascii(record).encode(), digest_size=_DIGEST_BYTES).digest()
