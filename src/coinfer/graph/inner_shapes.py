"""Inner shapes: give values inside of If, Loop and Scan concrete shapes, if the model allows it.

Knows ONNX shape inference; `shapes` binds the dimensions of the graph around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from coinfer.graph.operators import subgraphs
from coinfer.graph.shapes import static_shape

__all__ = ["infer_inside"]


def infer_inside(bound: ir.Model, original: ir.Model) -> None:
    """Infer the shapes inside of the nodes of a model, in place.

    Args:
        bound: A copy from `bind_shapes`.
        original: The model before; dimensions of its inputs may have names that are used inside.
    """
    inner = list(_inner_graphs(bound.graph))
    numbers = _numbers(original.graph, bound.graph)
    is_open = False
    for graph in inner:
        for value in graph.inputs:
            _bind(value, numbers)
        for node in graph:
            for value in node.outputs:
                _bind(value, numbers)
                is_open = is_open or static_shape(value) is None
    if not is_open:
        return
    _infer(bound)
    if assumed := [loop for loop in _loops([bound.graph, *inner]) if _assume(loop)]:
        _infer(bound)
        for loop in assumed:
            _check(loop)


def _infer(model: ir.Model) -> None:
    # Not strict: if one operator cannot be inferred, only its own outputs stay unknown.
    ShapeInferencePass(check_type=False, strict_mode=False)(model)


def _loops(graphs: Iterable[ir.Graph]) -> Iterator[ir.Node]:
    for graph in graphs:
        yield from (node for node in graph if node.op_type == "Loop")


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
    carried = list(zip(body.inputs[2:], body.outputs[1:], strict=False))
    if all(static_shape(before) == static_shape(after) for before, after in carried):
        return
    for graph in (body, *_inner_graphs(body)):
        for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
            value.shape = None


def _inner_graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    for node in graph:
        for inner in subgraphs(node):
            yield inner
            yield from _inner_graphs(inner)


def _numbers(original: ir.Graph, bound: ir.Graph) -> dict[str, int]:
    """Assign a number to each dimension's name that has been bound."""
    found = {}
    for before, after in zip(original.inputs, bound.inputs, strict=True):
        for dim, size in zip(before.shape or (), after.shape or (), strict=False):
            if isinstance(dim, ir.SymbolicDim) and dim.value and isinstance(size, int):
                found[dim.value] = size
    return found


def _bind(value: ir.Value, numbers: Mapping[str, int]) -> None:
    if value.shape is None or value.shape.is_static():
        return
    names = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    sizes = [numbers.get(name, name) if isinstance(name, str) else name for name in names]
    settled = all(isinstance(size, int) for size in sizes)
    # A half-known shape of a computed value gets in the way of inference, so it is removed.
    value.shape = ir.Shape(sizes) if settled or value.producer() is None else None
