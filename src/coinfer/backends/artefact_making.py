"""Artefact making: let a child process prepare a model before it is loaded.

Preparing one takes up to a second in which a library may hold the interpreter's lock, and several
times the memory of its weights. In a child process neither is this process's. What was made is
opened in milliseconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from coinfer.artefacts import Made, MakeError, default_store
from coinfer.artefacts.child import answer_of
from coinfer.backends.base import Backend
from coinfer.backends.patience import patience_s
from coinfer.errors import ModelError
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["prepare"]

_SHARE = 2.25
"""What an artefact takes of the bytes of its weights at most: those of matrix products twice."""


def prepare(backend: Backend, model: Model, processor: Processor) -> None:
    """See that there is an artefact of a model where one is worth it; then `load` opens it.

    Does nothing if the backend has none: one that has some has methods `artefact_parts`, which
    returns all that one depends on, or None, and `make_artefact`, which writes one into a folder.
    What goes wrong is warned of once; then `load` compiles the model itself.
    """
    ask: Callable[[Model, Processor], Mapping[str, object] | None] | None
    ask = getattr(backend, "artefact_parts", None)
    if ask is None:
        return
    store = default_store()
    parts = ask(model, processor) if store.limit_bytes else None
    if parts is None:
        return
    store.ensure(
        parts,
        lambda folder: _made_in_child(backend.name, model, processor, folder),
        model=model.name,
        expected_bytes=int(model.weight_bytes * _SHARE),
        patience_s=patience_s(),
    )


def _made_in_child(name: str, model: Model, processor: Processor, folder: Path) -> Made:
    limit_s = patience_s()
    try:
        model = dataclasses.replace(model, content=model.content.detached())
    except ModelError as error:
        raise MakeError(f"{type(error).__name__}: {error}") from error
    order = (name, model, processor, folder)
    data = answer_of("coinfer.backends.artefact_child", order, limit_s)
    if data["problem"]:
        raise MakeError(data["problem"])
    return Made(data["facts"], data["refused"])
