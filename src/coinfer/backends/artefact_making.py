"""Artefact making: let a child process prepare a model before it is loaded.

Preparing one takes up to a second in which a library may hold the interpreter's lock, and several
times the memory of its weights. In a child process neither is this process's. What was made is
opened in milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coinfer.artefacts import Made, MakeError, default_store
from coinfer.artefacts.child import answer_of
from coinfer.backends.base import Backend
from coinfer.backends.patience import patience_s
from coinfer.documents.digest import digest_of
from coinfer.errors import ModelError
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["prepare", "prepare_all"]

_SHARE = 2.25
"""What an artefact takes of the bytes of its weights at most: those of matrix products twice."""

_PEAK = 4
"""So many times the memory of its weights a model takes while it is prepared, about."""


def prepare_all(
    wanted: Iterable[tuple[Backend, Model, Processor]], *, most: int, memory: int | None
) -> None:
    """Do what `prepare` does for several models and processors, side by side.

    Args:
        wanted: What is to be loaded next.
        most: So many children at once at most.
        memory: Bytes that this process and its children can use; where half of it is too little
            for all, they are prepared one after the other. None: nobody knows.
    """
    store, missing = default_store(), dict[str, tuple[Backend, Model, Processor]]()
    for backend, model, processor in wanted:
        parts = _parts(backend, model, processor)
        if parts is not None and not store.knows(parts):
            missing.setdefault(digest_of(parts), (backend, model, processor))
    needed = _PEAK * sum(model.weight_bytes for _, model, _ in missing.values())
    count = min(len(missing), most) if needed <= (memory or math.inf) / 2 else 1
    if count < 2:
        for each in missing.values():
            prepare(*each)
        return
    pool = ThreadPoolExecutor(count, "coinfer-preparing")
    try:
        for made in [pool.submit(prepare, *each) for each in missing.values()]:
            made.result()
    finally:
        pool.shutdown(cancel_futures=True)


def prepare(backend: Backend, model: Model, processor: Processor) -> None:
    """See that there is an artefact of a model where one is worth it; then `load` opens it.

    Does nothing if the backend has none: one that has some has methods `artefact_parts`, which
    returns all that one depends on, or None, and `make_artefact`, which writes one into a folder.
    What goes wrong is warned of once; then `load` compiles the model itself.
    """
    parts = _parts(backend, model, processor)
    if parts is None:
        return
    default_store().ensure(
        parts,
        lambda folder: _made_in_child(backend.name, model, processor, folder),
        model=model.name,
        expected_bytes=int(model.weight_bytes * _SHARE),
        patience_s=patience_s(),
    )


def _parts(backend: Backend, model: Model, processor: Processor) -> Mapping[str, object] | None:
    """Return all that an artefact of a model depends on; None if there is to be none."""
    ask: Callable[[Model, Processor], Mapping[str, object] | None] | None
    ask = getattr(backend, "artefact_parts", None)
    return None if ask is None or not default_store().limit_bytes else ask(model, processor)


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
