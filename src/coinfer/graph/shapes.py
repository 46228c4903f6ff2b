"""Give every value of a model a concrete shape, where the model allows it.

Knows ONNX shape inference; knows nothing of cost or of processors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, ShapeInferencePass

from coinfer.errors import UnknownNameError

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

    Weights are shared with the original, model-local functions are inlined, and tensors of 16
    elements or more that sit in `Constant` nodes become initializers.

    Args:
        model: Any model; it is not changed.
        batch: Number for each input's first dimension where that is symbolic.
        dims: Numbers for other symbolic dimensions, by name; they win over `batch`.

    Returns:
        The copy. Values whose shape cannot be inferred keep an unknown shape.

    Raises:
        UnknownNameError: no input has a dimension of one of the names in `dims`.
    """
    copy = model.clone()
    if copy.functions:
        InlinePass()(copy)
    LiftConstantsToInitializersPass()(copy)
    numbers = _numbers(copy.graph, batch, dims)
    for value in _values(copy.graph):
        _bind(value, numbers, batch if value in copy.graph.inputs else None)
    if any(static_shape(value) is None for value in _values(copy.graph)):
        # Not strict: if one operator cannot be inferred, only its own outputs stay unknown.
        ShapeInferencePass(check_type=False, strict_mode=False)(copy)
    return copy


def _numbers(graph: ir.Graph, batch: int, dims: Mapping[str, int]) -> dict[str, int]:
    """Assign a number to each dimension's name that is known."""
    shapes = [value.shape for value in graph.inputs if value.shape is not None]
    symbols = [[d.value for d in shape if isinstance(d, ir.SymbolicDim)] for shape in shapes]
    known = {name for names in symbols for name in names if name is not None}
    for name in dims:
        if name not in known:
            raise UnknownNameError.of("dimension", name, known)
    first = (shape[0] for shape in shapes if len(shape))
    leading = {d.value: batch for d in first if isinstance(d, ir.SymbolicDim) if d.value}
    return {**leading, **dims}


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        # An operator leaves out an optional output by giving it no name.
        yield from (value for value in node.outputs if value.name)


def _bind(value: ir.Value, numbers: Mapping[str, int], batch: int | None) -> None:
    """Replace known names; `batch` is for the unnamed first dimension of an input."""
    if value.shape is None or value.shape.is_static():
        return
    sizes: list[int | str | None] = []
    for axis, dim in enumerate(value.shape):
        if isinstance(dim, int):
            sizes.append(dim)
        elif dim.value is None:
            sizes.append(batch if axis == 0 else None)
        else:
            sizes.append(numbers.get(dim.value, dim.value))
    settled = all(isinstance(size, int) for size in sizes)
    # A half-known shape of an inner value gets in the way of inference, so it is removed.
    value.shape = ir.Shape(sizes) if settled or value.producer() is None else None
