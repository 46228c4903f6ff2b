"""Prepared: a copy of a model's graph in the one form that fusing works on. Opens no file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    TopologicalSortPass,
)

from coinfer.errors import ModelError, first_line
from coinfer.graph.fusing.batch_norm import fold_batch_norms
from coinfer.graph.inference import infer_shapes, mark
from coinfer.graph.operators import inlined
from coinfer.graph.shapes import static_shape
from coinfer.model import Model
from coinfer.model.validation import dimension, not_valid

__all__ = ["prepared"]

_OLDEST_OPSET: Final = 7
"""Before it, operators broadcast in another way; older models are converted."""

_SHAPED_BY: Final = {"ConstantOfShape": 0, "Reshape": 1}
"""What comes out has as many axes as this input has elements."""

_SAME_SHAPE: Final = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
"""What comes out has the shape of the first input, which ONNX's inference does not say."""

_CHANNELS: Final = ("Conv", "ConvTranspose")

_MOST_ROUNDS: Final = 20

_STANDARD: Final = ("", "ai.onnx")


def prepared(models: Sequence[Model]) -> tuple[ir.Model, ...]:
    """Copy graphs: one opset, functions in place, constants as initializers, batch norms folded.

    Weights are shared with the models, but for those that a batch norm was folded into. Shapes
    are those that follow from the inputs; what a file claims of sizes does not count.

    Args:
        models: Valid models; they are not changed.

    Raises:
        ModelError: opsets differ and the onnx library cannot convert one of them.
    """
    opset = max(_OLDEST_OPSET, *(_opset(model.graph) for model in models))
    return tuple(_prepared(model, opset) for model in models)


def _prepared(model: Model, opset: int) -> ir.Model:
    mark(model.graph)
    try:
        graph = inlined(model.graph)
        copy = graph.clone() if graph is model.graph else graph
        if _opset(copy) != opset:
            copy = _converted(copy, model.name, opset)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
        fold_batch_norms(copy.graph)
        RemoveUnusedNodesPass()(copy)
        TopologicalSortPass()(copy)
        _infer(copy)
    except ModelError:
        raise
    except Exception as error:
        # Cloning and the library's passes raise errors of many types.
        raise not_valid(f"model {model.name!r}", error) from error
    return copy


def _infer(model: ir.Model) -> None:
    """Infer shapes; what is reshaped to sizes that are computed has a known rank at least."""
    infer_shapes(model, believe_sizes=False)
    for _ in range(_MOST_ROUNDS):
        claimed = False
        for node in model.graph:
            shape = None if node.outputs[0].shape is not None else _claim(node)
            if shape is not None:
                node.outputs[0].shape = shape
                claimed = True
        if not claimed:
            break
        infer_shapes(model, believe_sizes=False)
    for node in model.graph:
        _settle_channels(node)
        _settle_same(node)


def _claim(node: ir.Node) -> ir.Shape | None:
    """Say what is certain of the shape of an operator of which ONNX's inference says nothing."""
    if node.domain:
        return None
    if node.op_type in _SHAPED_BY:
        sizes = static_shape(node.inputs[_SHAPED_BY[node.op_type]])
        return ir.Shape([None] * sizes[0]) if sizes is not None and len(sizes) == 1 else None
    before = node.inputs[0].shape if node.op_type in _SAME_SHAPE and node.inputs[0] else None
    return None if before is None else ir.Shape([dimension(dim) for dim in before])


def _settle_same(node: ir.Node) -> None:
    """Give sizes too where only symbols and the rank were taken from a claim."""
    if node.op_type in _SAME_SHAPE and not node.domain:
        node.outputs[0].shape = _claim(node) or node.outputs[0].shape


def _settle_channels(node: ir.Node) -> None:
    """Say how many channels a convolution reads: its weight tells where nothing else does."""
    if node.domain or node.op_type not in _CHANNELS:
        return
    image, weight = node.inputs[0], static_shape(node.inputs[1])
    if image is None or image.shape is None or weight is None or len(image.shape) < 2:
        return
    if dimension(image.shape[1]) is None:
        groups = node.attributes.get_int("group", 1)
        sizes = [dimension(dim) for dim in image.shape]
        sizes[1] = weight[1] * groups if node.op_type == "Conv" else weight[0]
        image.shape = ir.Shape(sizes)


def _opset(model: ir.Model) -> int:
    versions = [model.opset_imports[name] for name in _STANDARD if name in model.opset_imports]
    return max(versions, default=_OLDEST_OPSET)


def _converted(model: ir.Model, name: str, opset: int) -> ir.Model:
    from onnx import version_converter

    try:
        found: onnx.ModelProto = version_converter.convert_version(ir.to_proto(model), opset)
        converted: ir.Model = ir.from_proto(found)
        return converted
    except Exception as error:
        # The converter raises whatever C++ raised.
        raise ModelError(
            f"model {name!r} is of opset {_opset(model)} and cannot be converted to {opset}, which "
            f"another model needs: {first_line(error)}; export all with opset {opset}"
        ) from error
