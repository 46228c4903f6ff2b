"""Artefacts of ONNX Runtime: the graph as it is run, and weights in the form that kernels use.

ONNX Runtime maps such a file. So a session of one is made in milliseconds and holds no weights of
its own: all sessions and processes that run it share the pages of one file. Kernels, and so times
and answers, are those of a session made from the model itself, but for large dense layers: these
are written down as convolutions (see `dense`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coinfer.artefacts import Lease, Made, default_store
from coinfer.backends.artefact_check import differs
from coinfer.backends.onnxruntime.creation import Style, create
from coinfer.backends.onnxruntime.library import LIBRARY_ERRORS
from coinfer.backends.onnxruntime.part import OnnxRuntimePart, opened_in_blocks
from coinfer.backends.onnxruntime.providers import CPU_PROVIDER
from coinfer.backends.onnxruntime.session import OnnxRuntimeSession
from coinfer.errors import first_line
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["GRAPH", "checked", "opened"]

GRAPH = "model.onnx"
_PROVIDER = (CPU_PROVIDER, dict[str, str]())


def checked(
    session: OnnxRuntimeSession,
    model: Model,
    processor: Processor,
    folder: Path,
    common: Mapping[str, Any],
) -> Made:
    """See that what a session wrote down computes the same; say what is to be known of it.

    Args:
        session: It wrote itself down there.
        model: What it was made of.
        processor: Where it runs.
        folder: Where that is.
        common: What any session of the model is told.
    """
    facts: dict[str, Any] = {
        "operators": dict(session.operators),
        "shares": session.shares,
        "note": session.note,
    }
    if isinstance(session, OnnxRuntimePart):
        facts["takes"] = {n: form.channels for n, form in session.takes.items() if form}
        facts["gives"] = {n: form.channels for n, form in session.gives.items()}
    try:
        written = _wrapped(folder / GRAPH, facts, model, processor, common)
    except LIBRARY_ERRORS as error:
        return Made(refused=f"onnxruntime cannot read what it wrote: {first_line(error)}")
    return Made(facts, refused=differs(model, session, written))


def opened(
    lease: Lease, model: Model, processor: Processor, common: Mapping[str, Any]
) -> OnnxRuntimeSession | None:
    """Make a session of an artefact; None, and the artefact is removed, if that cannot be done."""
    try:
        session = _wrapped(
            lease.path(GRAPH), lease.artefact.facts, model, processor, {**common, "lease": lease}
        )
    except LIBRARY_ERRORS as error:
        default_store().discard(lease, first_line(error))
        return None
    except BaseException:
        lease.close()
        raise
    return session


def _wrapped(
    graph: Path,
    facts: Mapping[str, Any],
    model: Model,
    processor: Processor,
    common: Mapping[str, Any],
) -> OnnxRuntimeSession:
    style = Style(optimised=False, shared=facts["shares"])
    session = create(str(graph), processor, _PROVIDER, style)
    common = {**common, "operators": facts["operators"], "note": facts["note"]}
    if "takes" in facts:
        return opened_in_blocks(session, model, facts["takes"], facts["gives"], common)
    return OnnxRuntimeSession(session=session, shares=facts["shares"], **common)
