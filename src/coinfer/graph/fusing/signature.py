"""Signature: what of an operator and of all before it must agree, for two of them to correspond.

Names do not count, nor do the values of weights. What counts is operators, attributes, topology,
dtypes, shapes, and constants that carry structure: shapes, axes, pads and what these are computed
from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from coinfer.graph.operators import read_values, subgraphs
from coinfer.model.validation import dimension

__all__ = [
    "SETTINGS",
    "Signatures",
    "attributes_of",
    "digest",
    "operator_key",
    "settings_of",
    "spec_record",
]

SETTINGS: Final[Mapping[str, tuple[int, ...]]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "STFT": (1, 3),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Inputs, by operator, that say what shape comes out or along which axis; those of `Reduce` too."""


def settings_of(node: ir.Node) -> tuple[int, ...]:
    """Return the inputs of an operator that carry structure."""
    if node.domain:
        return ()
    return (1,) if node.op_type.startswith("Reduce") else SETTINGS.get(node.op_type, ())


@dataclass(frozen=True, slots=True, eq=False)
class Signatures:
    """The signatures of a graph.

    Attributes:
        order: The operators in an order that follows from the topology alone.
        of: The signature of each operator. Equal operators on equal inputs are told apart by a
            number.
        values: The signature of each value.
        fixed: Constants that carry structure.
    """

    order: tuple[ir.Node, ...]
    of: Mapping[ir.Node, bytes]
    values: Mapping[ir.Value, Any]
    fixed: frozenset[ir.Value]

    @classmethod
    def make(cls, model: ir.Model) -> Signatures:
        """Sign all operators of a prepared model that an output needs."""
        graph = model.graph
        order = tuple(_canonical(graph))
        fixed = _fixed(order)
        symbols: dict[str, int] = {}
        values: dict[ir.Value, Any] = {
            value: ("input", index, spec_record(value, symbols))
            for index, value in enumerate(graph.inputs)
        }
        numbers: Counter[bytes] = Counter()
        of: dict[ir.Node, bytes] = {}
        for node in order:
            inputs = [_input(value, values, fixed) for value in node.inputs]
            captured = [_input(value, values, fixed) for value in read_values(node)]
            record = (operator_key(node, model.opset_imports), inputs, captured, _made(node))
            base = digest(record)
            of[node] = digest((base, numbers[base]))
            numbers[base] += 1
            for index, value in enumerate(node.outputs):
                values[value] = (of[node], index)
        for value in graph.outputs:  # an input or a constant may be an output
            values.setdefault(value, _input(value, values, fixed))
        return cls(order, of, values, fixed)


def _canonical(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield operators depth first from the outputs, each after those that it reads from."""
    done: set[ir.Node] = set()
    stack = [value.producer() for value in reversed(graph.outputs)]
    while stack:
        node = stack[-1]
        if node is None or node in done:
            stack.pop()
            continue
        before = [value.producer() for value in read_values(node)]
        waiting = [each for each in before if each is not None and each not in done]
        if waiting:
            stack.extend(reversed(waiting))
        else:
            done.add(node)
            yield node


def _fixed(order: tuple[ir.Node, ...]) -> frozenset[ir.Value]:
    """Find the constants that shapes and axes are made of, without looking through data."""
    timeless: set[ir.Value] = set()  # what follows from constants and shapes alone
    for node in order:
        by_shape = node.op_type in ("Shape", "Size") and not node.domain
        if by_shape or all(value in timeless or _is_stored(value) for value in read_values(node)):
            timeless.update(node.outputs)
    fixed: set[ir.Value] = set()
    for node in reversed(order):
        wanted = [node.inputs[at] for at in settings_of(node) if at < len(node.inputs)]
        if not fixed.isdisjoint(node.outputs) and node.op_type not in ("Shape", "Size"):
            wanted += node.inputs
        fixed.update(v for v in wanted if v is not None and (v in timeless or _is_stored(v)))
    return frozenset(value for value in fixed if _is_stored(value))


def _is_stored(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()


def _input(
    value: ir.Value | None, values: Mapping[ir.Value, Any], fixed: frozenset[ir.Value]
) -> Any:
    if value is None or value in values:
        return None if value is None else values[value]
    tensor = value.const_value
    if tensor is None:
        return ("unknown", value.name)
    kind = (int(tensor.dtype), tuple(int(size) for size in tensor.shape.numpy()))
    if value in fixed or tensor.dtype == ir.DataType.STRING:
        return ("fixed", *kind, _tensor(tensor))
    return ("weight", *kind)


def spec_record(value: ir.Value, symbols: dict[str, int]) -> Any:
    """Describe type and shape of an input; a symbol counts by where it recurs, not by its name."""
    dims = None if value.shape is None else [dimension(dim) for dim in value.shape]
    if dims is None:
        return (str(value.type), None)
    return (str(value.type), [_number(dim, symbols) for dim in dims])


def _number(dim: int | str | None, symbols: dict[str, int]) -> int | None:
    """Replace a symbol by where it first occurs; sizes are not below 0, so it is told apart."""
    return symbols.setdefault(dim, -len(symbols) - 1) if isinstance(dim, str) else dim


def _made(node: ir.Node) -> list[bool]:
    made = [bool(value.name) for value in node.outputs]
    while made and not made[-1]:
        made.pop()
    return made


def operator_key(node: ir.Node, opsets: Mapping[str, int]) -> Any:
    """Return what an operator is, apart from what it reads: its type and its attributes."""
    inner = [
        [(operator_key(each, opsets), len(each.inputs)) for each in graph]
        for graph in subgraphs(node)
    ]
    defaults = _defaults(node.op_type, node.domain, opsets.get(node.domain, 1))
    attributes = [
        (name, value)
        for name, value in sorted(attributes_of(node).items())
        if defaults.get(name) != value
    ]
    version = opsets.get(node.domain) if node.domain else None  # that of ONNX itself is the same
    return (node.domain, version, node.op_type, node.overload, attributes, inner)


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Return the attributes as plain values; graphs inside are left out."""
    kinds = ir.AttributeType
    return {
        attr.name: _tensor(attr.value) if attr.type == kinds.TENSOR else _plain(attr.value)
        for attr in node.attributes.values()
        if attr.type not in (kinds.GRAPH, kinds.GRAPHS)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, str | bytes | int):
        return value
    if isinstance(value, float):
        return float(np.float32(value))  # as the file format keeps it
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return str(value)


@cache
def _defaults(op_type: str, domain: str, opset: int) -> Mapping[str, Any]:
    """Return what attributes are if they are left away."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return {}
    found = {}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.name:
            attr = ir.from_proto(attribute.default_value)
            found[name] = _plain(attr.value)
    return found


def _tensor(tensor: ir.TensorProtocol) -> bytes:
    if tensor.dtype == ir.DataType.STRING:
        return digest([str(item) for item in tensor.numpy().ravel()])
    shape = tuple(int(size) for size in tensor.shape.numpy())
    return digest((int(tensor.dtype), shape, tensor.tobytes()))


def digest(record: Any) -> bytes:
    """Digest nested plain values."""
    return hashlib.blake2b(repr(record).encode(), digest_size=16).digest()
