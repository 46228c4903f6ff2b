"""Artefact making: let a child process prepare a model before it is loaded.

Preparing one takes up to a second in which a library may hold the interpreter's lock, and several
times the memory of its weights. In a child process neither is this process's. What was made is
opened in milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
import subprocess
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

from coinfer.artefacts import Made, MakeError, default_store
from coinfer.artefacts.child import answer_of
from coinfer.backends.base import Backend
from coinfer.backends.mapped_file import read_pages
from coinfer.backends.patience import patience_s
from coinfer.documents.digest import digest_of
from coinfer.errors import ModelError
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["prepare", "prepare_all", "read_ahead"]

_SHARE = 2.25
"""What an artefact takes of the bytes of its weights at most: those of matrix products twice."""

_PEAK = 4
"""So many times the memory of its weights a model takes while it is prepared, about."""

_CHILD_BYTES = 192 * 2**20
"""What a child takes beside that: the interpreter and an inference library."""


def prepare_all(
    wanted: Iterable[tuple[Backend, Model, Processor]], *, most: int, memory: int | None
) -> None:
    """Do what `prepare` does for several models and processors, side by side.

    Args:
        wanted: What is to be loaded next.
        most: So many children at once at most.
        memory: Bytes that this process and its children can use; no more children are there at
            once than have room in half of it, but for one. None: nobody knows.

    What has no room in the cache together is not prepared: each is by who loads it.
    """
    store, missing = default_store(), dict[str, tuple[Backend, Model, Processor]]()
    for backend, model, processor in wanted:
        parts = _parts(backend, model, processor)
        if parts is not None and not store.knows(parts):
            missing.setdefault(digest_of(parts), (backend, model, processor))
    sizes = sorted((model.weight_bytes for _, model, _ in missing.values()), reverse=True)
    if sum(sizes) * _SHARE > store.limit_bytes:  # the first would be gone when the last is there
        return
    count = min(most, _room_for(sizes, math.inf if memory is None else memory / 2))
    if count < 2:
        for each in missing.values():
            prepare(*each)
        return
    children = _Children()
    pool = ThreadPoolExecutor(count, "coinfer-preparing")
    try:
        for made in [pool.submit(prepare, *each, children) for each in missing.values()]:
            made.result()
    except BaseException:  # e.g. Ctrl-C, which is not for the other threads
        children.end()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _room_for(sizes: Iterable[int], memory: float) -> int:
    """Return how many children have room at once, whichever of so many bytes of weights they have.

    >>> _room_for([2**20] * 8, 2**30), _room_for([2**40], math.inf)
    (5, 1)
    """
    count = 0
    for size in sizes:
        memory -= _CHILD_BYTES + _PEAK * size
        if memory < 0:
            break
        count += 1
    return count


class _Children:
    """Children that are there at once, which can be ended together.

    Attributes:
        are_ended: Whether they were; none is begun any more.
    """

    def __init__(self) -> None:
        self.are_ended = False
        self._begun: list[subprocess.Popen[bytes]] = []

    def add(self, child: subprocess.Popen[bytes]) -> None:
        """Take in one that was begun."""
        self._begun.append(child)
        if self.are_ended:
            child.kill()

    def end(self) -> None:
        """End all of them; those that ended by themselves are left alone."""
        self.are_ended = True
        for child in list(self._begun):
            child.kill()


def prepare(
    backend: Backend, model: Model, processor: Processor, children: _Children | None = None
) -> None:
    """See that there is an artefact of a model where one is worth it; then `load` opens it.

    Does nothing if the backend has none: one that has some has methods `artefact_parts`, which
    returns all that one depends on, or None, and `make_artefact`, which writes one into a folder.
    What goes wrong is warned of once; then `load` compiles the model itself.

    Args:
        backend: The processor's.
        model: The model.
        processor: Where it is to run.
        children: Takes in the child that makes it; None: nobody else is to end it.
    """
    parts = _parts(backend, model, processor)
    if parts is None:
        return
    those = children or _Children()
    default_store().ensure(
        parts,
        lambda folder: _made_in_child(backend.name, model, processor, folder, those),
        model=model.name,
        expected_bytes=int(model.weight_bytes * _SHARE),
        patience_s=patience_s(),
        is_over=lambda: those.are_ended,
    )


def read_ahead(backend: Backend, model: Model, processor: Processor) -> None:
    """Have the artefact that `load` will open in the page cache, if there is one."""
    parts = _parts(backend, model, processor)
    lease = None if parts is None else default_store().open(parts)
    if lease is not None:
        try:
            read_pages(lease.files)
        finally:
            lease.close()


def _parts(backend: Backend, model: Model, processor: Processor) -> Mapping[str, object] | None:
    """Return all that an artefact of a model depends on; None if there is to be none."""
    ask: Callable[[Model, Processor], Mapping[str, object] | None] | None
    ask = getattr(backend, "artefact_parts", None)
    return None if ask is None or not default_store().limit_bytes else ask(model, processor)


def _made_in_child(
    name: str, model: Model, processor: Processor, folder: Path, children: _Children
) -> Made:
    limit_s = patience_s()
    try:
        model = dataclasses.replace(model, content=model.content.detached())
    except ModelError as error:
        raise MakeError(f"{type(error).__name__}: {error}") from error
    order = (name, model, processor, folder)
    try:
        data = answer_of("coinfer.backends.artefact_child", order, limit_s, started=children.add)
    except MakeError:
        if children.are_ended:
            raise CancelledError from None
        raise
    if data["problem"]:
        raise MakeError(data["problem"])
    return Made(data["facts"], data["refused"])
