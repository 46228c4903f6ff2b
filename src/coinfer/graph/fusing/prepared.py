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

from coinfer.errors import ModelError
from coinfer.graph.fusing.batch_norm import fold_batch_norms
from coinfer.graph.inference import infer_shapes, mark
from coinfer.graph.operators import inlined
from coinfer.model import Model
from coinfer.model.validation import first_line, not_valid

__all__ = ["prepared"]

_OLDEST_OPSET: Final = 9
"""Before it, operators that move data have other inputs; older models are converted."""

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
        infer_shapes(copy, believe_sizes=False)
    except ModelError:
        raise
    except Exception as error:
        # Cloning and the library's passes raise errors of many types.
        raise not_valid(f"model {model.name!r}", error) from error
    return copy


def _opset(model: ir.Model) -> int:
    versions = [model.opset_imports[name] for name in _STANDARD if name in model.opset_imports]
    return max(versions, default=_OLDEST_OPSET)


def _converted(model: ir.Model, name: str, opset: int) -> ir.Model:
    from onnx import version_converter

    try:
        found: onnx.ModelProto = version_converter.convert_version(ir.to_proto(model), opset)
        return ir.from_proto(found)
    except Exception as error:
        # The converter raises whatever C++ raised.
        raise ModelError(
            f"model {name!r} is of opset {_opset(model)} and cannot be converted to {opset}, which "
            f"another model needs: {first_line(error)}; export all with opset {opset}"
        ) from error
