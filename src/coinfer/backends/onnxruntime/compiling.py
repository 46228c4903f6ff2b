"""Compile a model, or a part of one, with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coinfer.backends.onnxruntime.assignment import require_assigned
from coinfer.backends.onnxruntime.creation import Style, create
from coinfer.backends.onnxruntime.part import compiled_in_blocks
from coinfer.backends.onnxruntime.providers import CPU_PROVIDER, Provider
from coinfer.backends.onnxruntime.session import OnnxRuntimeSession
from coinfer.backends.source import source_of
from coinfer.errors import BackendError, first_line
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["compiled"]


def compiled(
    model: Model,
    processor: Processor,
    provider: Provider,
    common: Mapping[str, Any],
    kept: Path | None = None,
) -> OnnxRuntimeSession:
    """Compile a model.

    Args:
        model: A model or a part of one.
        processor: Where it is to run.
        provider: What runs it there.
        common: What any session of it is told.
        kept: Write down there what is compiled, in the form in which it is run.

    Raises:
        BackendError: ONNX Runtime refuses the graph, or the provider took nothing of it.
    """
    what = common["what"]
    is_part = bool(model.borders) and provider[0] == CPU_PROVIDER
    found = compiled_in_blocks(model, processor, common, kept) if is_part else ""
    if not isinstance(found, str):
        return found
    try:
        source, check = source_of(model)
        session = create(source, processor, provider, Style(shared=is_part, kept=kept))
        check()
    except Exception as error:
        # The library's exceptions have no other common base.
        raise BackendError(
            f"{what}: onnxruntime cannot compile it: {first_line(error)}; check the model "
            f"with `coinfer inspect` or run it on another backend"
        ) from error
    operators = require_assigned(session, provider[0], what)
    return OnnxRuntimeSession(
        session=session,
        operators=operators,
        shares=is_part,
        note=found and f"its parts convert the values that they hand on: {found}",
        **common,
    )
