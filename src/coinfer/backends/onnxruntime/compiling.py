"""Compile a model, or a part of one, with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coinfer.backends.onnxruntime.assignment import fallen_back, require_assigned
from coinfer.backends.onnxruntime.creation import Style, create
from coinfer.backends.onnxruntime.packing import block_size
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
    *,
    blocked: bool = False,
    kind: type[OnnxRuntimeSession] = OnnxRuntimeSession,
) -> OnnxRuntimeSession:
    """Compile a model.

    Args:
        model: A model or a part of one.
        processor: Where it is to run.
        provider: What runs it there.
        common: What any session of it is told.
        kept: Write down there what is compiled, in the form in which it is run.
        blocked: Of what is written down, let dense layers be convolutions in blocks of channels,
            which use weights as they are: see `dense`.
        kind: What wraps the library's session.

    Raises:
        BackendError: ONNX Runtime refuses the graph, the provider took nothing of it, or no dense
            layer is to be one.
    """
    what = common["what"]
    is_part = bool(model.borders) and provider[0] == CPU_PROVIDER
    found = compiled_in_blocks(model, processor, common, kept, blocked=blocked) if is_part else ""
    if not isinstance(found, str):
        return found
    try:
        source, check = source_of(model)
        style = Style(shared=is_part, kept=kept)
        if blocked:
            session, operators = _blocked(source, processor, provider, style, what)
        else:
            session = create(source, processor, provider, style)
            operators = require_assigned(session, provider[0], what)
        check()
    except BackendError:
        raise
    except Exception as error:
        # The library's exceptions have no other common base.
        raise BackendError(
            f"{what}: onnxruntime cannot compile it: {first_line(error)}; check the model "
            f"with `coinfer inspect` or run it on another backend"
        ) from error
    note = found and f"its parts convert the values that they hand on: {found}"
    return kind(
        session=session,
        operators=operators,
        shares=is_part,
        is_cpu=provider[0] == CPU_PROVIDER,
        note=note or fallen_back(session, provider[0]),
        **common,
    )


def _blocked(
    source: bytes | str, processor: Processor, provider: Provider, style: Style, what: str
) -> tuple[Any, dict[str, int]]:
    """Create a session of what the library makes of a graph, with dense layers in blocks.

    Returns:
        The session, and the operators that providers got of the graph as it came.
    """
    import onnx_ir as ir  # slow to import, and only a child process comes here

    from coinfer.backends.onnxruntime.dense import dense_to_convolutions

    assert style.kept is not None
    with TemporaryDirectory(dir=style.kept.parent, ignore_cleanup_errors=True) as folder:
        file = Path(folder) / style.kept.name
        rewritten = create(source, processor, provider, Style(kept=file, bare=True))
        operators = require_assigned(rewritten, provider[0], what)
        del rewritten
        graph = ir.load(file)
        if not dense_to_convolutions(graph, block_size()):
            raise BackendError(f"{what}: it has no dense layer that is to be a convolution")
        # Beside the graph: a message of protobuf holds no more than 2 GiB.
        ir.save(graph, file.with_stem("blocked"), external_data="blocked.bin")
        del graph
        session = create(
            str(file.with_stem("blocked")), processor, provider, style._replace(optimised=False)
        )
    return session, operators
