"""Difference: say in one sentence where two graphs part, and why. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx_ir as ir

from coinfer.graph.fusing.signature import Signatures, attributes_of, settings_of, spec_record
from coinfer.model.specs import text_of_shape
from coinfer.model.validation import dimension

__all__ = ["Signed", "difference_of", "inputs_differ"]

Signed = tuple[str, Signatures, ir.Model]
"""Name, signatures and graph of a model."""

_LONGEST = 60


def inputs_differ(name: str, model: ir.Model, other_name: str, other: ir.Model) -> str:
    """Say in which input two models differ; empty if they take the same."""
    ours, theirs = model.graph.inputs, other.graph.inputs
    if len(ours) != len(theirs):
        return f"models {name!r} and {other_name!r} take {len(ours)} and {len(theirs)} inputs"
    symbols: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for mine, yours in zip(ours, theirs, strict=True):
        if spec_record(mine, symbols[0]) != spec_record(yours, symbols[1]):
            return (
                f"input {mine.name!r} is {_layout(mine)} in {name!r}, but {_layout(yours)}"
                f"{'' if mine.name == yours.name else f' ({yours.name!r})'} in {other_name!r}"
            )
    return ""


def difference_of(one: Signed, other: Signed) -> str:
    """Name the first operator at which two models part, in the order of execution, and say why."""
    (name, signed, _), (other_name, theirs, _) = one, other
    mine = _alone(signed, theirs)
    yours = _alone(theirs, signed)
    node, twin = next(mine, None), next(yours, None)
    if node is None and twin is None:
        return _outputs(one, other)
    if node is None or twin is None:
        only, owner = (twin, other_name) if node is None else (node, name)
        assert only is not None
        return (
            f"models {name!r} and {other_name!r} part at operator {_text(only)}, which only "
            f"{owner!r} has"
        )
    why = _why((name, signed, node), (other_name, theirs, twin))
    return f"models {name!r} and {other_name!r} part at operator {_text(node)}: {why}"


def _alone(signed: Signatures, other: Signatures) -> Iterator[ir.Node]:
    known = set(other.of.values())
    return (node for node in signed.order if signed.of[node] not in known)


def _text(node: ir.Node) -> str:
    name = node.name or next((value.name for value in node.outputs if value.name), "")
    return f"{name!r} ({node.op_type})"


_Part = tuple[str, Signatures, ir.Node]


def _why(one: _Part, other: _Part) -> str:
    (name, _, node), (other_name, _, twin) = one, other
    if (node.domain, node.op_type) != (twin.domain, twin.op_type):
        return f"in {other_name!r} there is {_text(twin)}"
    mine, yours = attributes_of(node), attributes_of(twin)
    for key in sorted({*mine, *yours}):
        if mine.get(key) != yours.get(key):
            return (
                f"its {key} is {_short(mine.get(key, 'the default'))} in {name!r}, but "
                f"{_short(yours.get(key, 'the default'))} in {other_name!r}"
            )
    if len(node.inputs) != len(twin.inputs) or len(node.outputs) != len(twin.outputs):
        return f"in {other_name!r} it has another number of inputs or outputs"
    return _why_bodies(one, other) or _why_inputs(one, other)


def _why_bodies(one: _Part, other: _Part) -> str:
    """Say which operator in a branch or a loop differs; empty if none does by itself."""
    (name, _, node), (other_name, _, twin) = one, other
    for key, attribute in node.attributes.items():
        if attribute.type is not ir.AttributeType.GRAPH or key not in twin.attributes:
            continue
        bodies = attribute.as_graph(), twin.attributes[key].as_graph()
        for mine, yours in zip_longest(*bodies):
            if mine is None or yours is None:
                return f"its {key} has more operators in {other_name if mine is None else name!r}"
            ours, theirs = [(n.domain, n.op_type, attributes_of(n)) for n in (mine, yours)]
            if ours != theirs:
                return (
                    f"in its {key}, {_text(mine)} in {name!r} is {_text(yours)} in {other_name!r}; "
                    "control flow must be the same, or resolved at export"
                )
    return ""


def _why_inputs(one: _Part, other: _Part) -> str:
    (name, signed, node), (other_name, theirs, twin) = one, other
    for index, (mine, yours) in enumerate(zip(node.inputs, twin.inputs, strict=True)):
        if mine is None or yours is None:
            if mine is not yours:
                return f"its input {index} is left out in one of them"
            continue
        ours, others = mine.const_value, yours.const_value
        if (ours is None) != (others is None):
            return f"its input {index} is stored in one model and computed in the other"
        if ours is None or others is None:
            if signed.values[mine] != theirs.values[yours]:
                return (
                    f"its input {index} is {mine.name!r} in {name!r}, but {yours.name!r} in "
                    f"{other_name!r}"
                )
            continue
        if (ours.dtype, ours.shape) != (others.dtype, others.shape):
            return (
                f"its stored input {mine.name!r} is {ours.dtype}{list(ours.shape.numpy())} in "
                f"{name!r}, but {others.dtype}{list(others.shape.numpy())} in {other_name!r}"
            )
        differs = not np.array_equal(ours.numpy(), others.numpy())
        if differs and (mine in signed.fixed or index in settings_of(node)):
            return (
                f"its setting {mine.name!r} is {_short(ours.numpy().tolist())} in {name!r}, but "
                f"{_short(others.numpy().tolist())} in {other_name!r}"
            )
    return f"its place among equal operators is another one in {other_name!r}"


def _outputs(one: Signed, other: Signed) -> str:
    (name, signed, model), (other_name, theirs, twin) = one, other
    ours, others = model.graph.outputs, twin.graph.outputs
    if len(ours) != len(others):
        return f"models {name!r} and {other_name!r} give {len(ours)} and {len(others)} outputs"
    for mine, yours in zip(ours, others, strict=True):
        if signed.values[mine] != theirs.values[yours]:
            break
    return (
        f"models {name!r} and {other_name!r} part at their outputs: {mine.name!r} and "
        f"{yours.name!r} are results of different operators"
    )


def _layout(value: ir.Value) -> str:
    dtype = "?" if value.dtype is None else value.dtype.name.lower()
    if value.shape is None:
        return f"{dtype}[...]"
    return f"{dtype}{text_of_shape(tuple(dimension(dim) for dim in value.shape))}"


def _short(value: Any) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
