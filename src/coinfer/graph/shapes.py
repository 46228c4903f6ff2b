"""Give every value of a model a concrete shape, where the model allows it.

Knows what callers call dimensions; knows nothing of cost or of processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass

from coinfer.errors import UnknownNameError
from coinfer.graph.inference import infer_shapes, made_values, mark
from coinfer.model.validation import dimension

__all__ = ["NO_DIMS", "bind_shapes", "static_shape"]

NO_DIMS: Mapping[str, int] = MappingProxyType({})
"""No dimension bound besides the batch."""


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Give the shape of a value, or None if any dimension is unknown.

    >>> static_shape(ir.val("x", ir.DataType.FLOAT, [2, 3]))
    (2, 3)
    >>> static_shape(ir.val("x", ir.DataType.FLOAT, ["n", 3])) is None
    True
    """
    if value is None:
        return None
    shape = value.shape
    if shape is None and value.const_value is not None:
        shape = ir.Shape(value.const_value.shape.numpy())
    if shape is None or not shape.is_static():
        return None
    return tuple(int(dim) for dim in shape.numpy())


def bind_shapes(model: ir.Model, *, batch: int = 1, dims: Mapping[str, int] = NO_DIMS) -> ir.Model:
    """Copy a model with its symbolic dimensions bound to numbers, and infer all shapes.

    Shapes that the file states for values inside count only where none follows from its inputs.
    Weights are shared with the original, model-local functions are inlined, and tensors of 16
    elements or more that sit in `Constant` nodes become initializers.

    Args:
        model: Any model; it is not changed.
        batch: Number for each input's first dimension where that is symbolic.
        dims: Numbers for other open dimensions, by name; they win over `batch`. A nameless one is
            `"input:axis"`, as for `Model.sample_inputs`.

    Returns:
        The copy. Values whose shape cannot be inferred keep an unknown shape.

    Raises:
        UnknownNameError: no input has a dimension of one of the names in `dims`.
    """
    mark(model)
    copy = model.clone()
    if copy.functions:
        InlinePass()(copy)
    LiftConstantsToInitializersPass()(copy)
    numbers = _numbers(copy.graph, batch, dims)
    for value in copy.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    size if isinstance(size, int) else numbers.get(name, size)
                    for size, name in _named_dims(value)
                ]
            )
    for value in made_values(copy.graph):
        _bind(value, numbers)
    infer_shapes(copy, believe_sizes=True)
    return copy


def _named_dims(value: ir.Value) -> list[tuple[int | str | None, str]]:
    """Give each dimension of an input and what callers call it."""
    dims = [dimension(dim) for dim in value.shape or ()]
    return [
        (dim, dim if isinstance(dim, str) else f"{value.name}:{axis}")
        for axis, dim in enumerate(dims)
    ]


def _numbers(graph: ir.Graph, batch: int, dims: Mapping[str, int]) -> dict[str, int]:
    """Assign a number to each open dimension's name that is known."""
    shapes = [_named_dims(value) for value in graph.inputs]
    known = {name for shape in shapes for size, name in shape if not isinstance(size, int)}
    for name in dims:
        if name not in known:
            raise UnknownNameError.of("dimension", name, known)
    leading = {shape[0][1]: batch for shape in shapes if shape and not isinstance(shape[0][0], int)}
    return {**leading, **dims}


def _bind(value: ir.Value, numbers: Mapping[str, int]) -> None:
    """Replace known names in a shape that the file claims; forget it if others remain."""
    if value.shape is not None:
        dims = [dimension(dim) for dim in value.shape]
        sizes = [numbers.get(dim) if isinstance(dim, str) else dim for dim in dims]
        value.shape = None if None in sizes else ir.Shape(sizes)
