"""Translation: which of a graph's nodes torch computes, and what their functions need to know.

Reads the graph; computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from coinfer.backends.torch.library import torch
from coinfer.backends.torch.operators import OPERATORS, Operator, OperatorNode
from coinfer.errors import ModelError
from coinfer.graph.inference import infer_shapes, mark
from coinfer.graph.operators import inlined

__all__ = ["Translated", "Translation"]

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """A node that torch computes.

    Attributes:
        operator: The row of the table.
        node: What its function needs to know.
        reads: Names of its inputs; None where one is left out.
        writes: Names of its outputs; None where one is left out.
    """

    operator: Operator
    node: OperatorNode
    reads: tuple[str | None, ...]
    writes: tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A graph in the words of the table.

    Attributes:
        nodes: What torch computes, in topological order.
        refused: By the first value that a node makes, why torch does not compute it.
        constants: What is known beforehand, by name: weights and what `Constant` nodes say.
        op_types: Types of the refused nodes.
    """

    nodes: tuple[Translated, ...]
    refused: Mapping[str, str]
    constants: Mapping[str, ir.TensorProtocol]
    op_types: tuple[str, ...]

    @classmethod
    def of(
        cls, model: ir.Model, *, compute: Any = torch.float32, device: Any = "cpu"
    ) -> Translation:
        """Read a graph.

        Args:
            model: Any valid model; it is not changed.
            compute: The type in which what is float32 is computed.
            device: Where new tensors are made.

        Raises:
            ModelError: its functions cannot be put in place.
        """
        whole = inlined(model)
        types, ranks = _kinds(whole)
        constants = {
            name: value.const_value
            for name, value in whole.graph.initializers.items()
            if value.const_value is not None
        }
        nodes, refused, op_types = [], {}, []
        for node in whole.graph:
            if node.op_type == "Constant" and node.domain in _STANDARD:
                constants[node.outputs[0].name or ""] = _constant(node)
                continue
            reads = tuple(None if value is None else value.name for value in node.inputs)
            known = OperatorNode(
                op_type=node.op_type,
                version=node.version or whole.opset_imports.get("", 1),
                attributes={a.name: _plain(a) for a in node.attributes.values()},
                given=tuple(name is not None for name in reads),
                outputs=tuple(bool(value.name) for value in node.outputs),
                types=tuple(types.get(name or "") for name in reads),
                ranks=tuple(ranks.get(name or "") for name in reads),
                compute=compute,
                device=device,
            )
            why = _why_refused(node, known)
            if why:
                key = next((value.name for value in node.outputs if value.name), "")
                refused[key] = why
                op_types.append(f"{node.domain}.{node.op_type}".removeprefix("."))
                continue
            nodes.append(
                Translated(
                    operator=OPERATORS[node.op_type],
                    node=known,
                    reads=reads,
                    writes=tuple(value.name or None for value in node.outputs),
                )
            )
        return cls(
            nodes=tuple(nodes),
            refused=refused,
            constants=constants,
            op_types=tuple(dict.fromkeys(op_types)),
        )


def _why_refused(node: ir.Node, known: OperatorNode) -> str:
    if node.domain not in _STANDARD:
        return f"operators of {node.domain} are not known"
    operator = OPERATORS.get(node.op_type)
    if operator is None:
        return f"{node.op_type} is not in the table"
    wrong = next((t for t in known.types if t is not None and t not in operator.types), None)
    if wrong is not None:
        return f"{node.op_type} is not computed in {ir.DataType(wrong).name.lower()}"
    if any(known.outputs[operator.outputs :]):
        return f"only the first output of {node.op_type} is computed"
    return operator.refuses(known)


def _kinds(model: ir.Model) -> tuple[dict[str, int], dict[str, int]]:
    """Types and ranks of values, as far as they follow."""
    mark(model)
    copy = model.clone()
    try:
        infer_shapes(copy, believe_sizes=False)
    except Exception as error:
        # Serializing and inferring raise errors of many types.
        raise ModelError(f"graph {model.graph.name!r}: its types cannot be inferred") from error
    graph = copy.graph
    values = [*graph.inputs, *graph.initializers.values()]
    values += [value for node in graph for value in node.outputs]
    types, ranks = {}, {}
    for value in values:
        name = value.name or ""
        if value.const_value is not None:
            types[name] = int(value.const_value.dtype)
            ranks[name] = len(value.const_value.shape)
            continue
        if value.type is not None:  # a sequence has a type whose elements torch does not take
            plain = isinstance(value.type, ir.TensorType)
            types[name] = int(value.type.dtype) if plain else int(ir.DataType.UNDEFINED)
        if value.shape is not None:
            ranks[name] = len(value.shape)
    return types, ranks


def _plain(attribute: ir.Attr) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.value.numpy()
    return attribute.value


def _constant(node: ir.Node) -> ir.TensorProtocol:
    attribute = next(iter(node.attributes.values()))
    if attribute.type == ir.AttributeType.TENSOR:
        tensor: ir.TensorProtocol = attribute.value
        return tensor
    kinds = {"value_float": ir.DataType.FLOAT, "value_floats": ir.DataType.FLOAT}
    text = attribute.name.startswith("value_string")
    kind = ir.DataType.STRING if text else kinds.get(attribute.name, ir.DataType.INT64)
    return ir.tensor(attribute.value, dtype=kind)
