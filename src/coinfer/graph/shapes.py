"""Give every value of a model a concrete shape, where the model allows it.

Knows what callers call dimensions; knows nothing of cost or of processors.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    ShapeInferencePass,
)

from coinfer.errors import ModelError, UnknownNameError, first_line
from coinfer.graph.inference import infer_shapes, made_values, mark
from coinfer.model.model import NO_DIMS
from coinfer.model.validation import dimension
from coinfer.quiet import hushed

__all__ = ["bind_shapes", "static_shape"]


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

    Those inside of If, Loop and Scan too, where the model allows it.

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
        ModelError: the graph breaks rules, e.g. a call gives a function more than it takes.
    """
    numbers = _numbers(model.graph, batch, dims)
    try:
        return _bound(model, numbers)
    except Exception as error:  # such a graph makes its libraries raise almost anything
        raise ModelError(
            f"graph {model.graph.name!r}: its shapes cannot be inferred: {first_line(error)}; "
            "export it anew, with its functions inlined if it has any"
        ) from error


def _bound(model: ir.Model, numbers: Mapping[str, int]) -> ir.Model:
    mark(model)
    copy = model.clone()
    if copy.functions:
        InlinePass()(copy)
    LiftConstantsToInitializersPass()(copy)
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
    _infer_inside(copy, numbers)
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
    """Replace known names in a shape that the file claims.

    If others remain, forget it of a computed value: half of it gets in the way of inference.
    """
    if value.shape is not None:
        dims = [dimension(dim) for dim in value.shape]
        sizes = [numbers.get(dim, dim) if isinstance(dim, str) else dim for dim in dims]
        settled = all(isinstance(size, int) for size in sizes)
        value.shape = ir.Shape(sizes) if settled or value.producer() is None else None


def _infer_inside(model: ir.Model, numbers: Mapping[str, int]) -> None:
    """Infer the shapes inside of the nodes of a model whose own are bound, in place."""
    is_open = False
    for graph in model.graph.subgraphs():
        for value in graph.inputs:
            _bind(value, numbers)
        for value in made_values(graph):
            _bind(value, numbers)
            is_open = is_open or static_shape(value) is None
    if not is_open:
        return
    # Not strict: if one operator cannot be inferred, only its own outputs stay unknown.
    # If all of it fails, nothing follows: what the library logs then is for its authors.
    infer = ShapeInferencePass(check_type=False, strict_mode=False)
    with hushed("onnx_ir", logging.ERROR):
        infer(model)
    loops = [node for node in model.graph.all_nodes() if node.op_type == "Loop"]
    if assumed := [loop for loop in loops if _assume(loop)]:
        with hushed("onnx_ir", logging.ERROR):
            infer(model)
        for loop in assumed:
            _check(loop)


def _assume(loop: ir.Node) -> bool:
    """Give the values that a Loop carries on the shapes that they begin with, if it states none.

    ONNX does not: they may change from one run of the body to the next. `_check` sees if they do.
    """
    is_assumed = False
    carried = zip(loop.attributes["body"].as_graph().inputs[2:], loop.inputs[2:], strict=False)
    for inside, first in carried:
        shape = static_shape(first)
        if inside.shape is None and shape is not None:
            inside.shape = ir.Shape(shape)
            is_assumed = True
    return is_assumed


def _check(loop: ir.Node) -> None:
    """Forget all shapes inside of a Loop that does not hand on the shapes that it was given."""
    body = loop.attributes["body"].as_graph()
    carried = zip(body.inputs[2:], body.outputs[1:], strict=False)
    if all(static_shape(before) == static_shape(after) for before, after in carried):
        return
    for graph in (body, *body.subgraphs()):
        for value in (*graph.inputs, *made_values(graph)):
            value.shape = None
