"""Loading: compile models one at a time, and no longer than patience lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from coinfer.backends.base import Backend, Session
from coinfer.backends.filled_session import FilledSession
from coinfer.backends.patience import patiently
from coinfer.fork_locks import free_after_fork
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["ask_support", "keep_ready", "load", "timed_load"]

_CREATION_LOCK = free_after_fork(threading.Lock())
"""Held while any session of the process is created. Creating sessions concurrently races in the
inference libraries. No request waits for this one. A library that hangs gives it back: others go
on, at the risk of that race."""


def load(
    backend: Backend,
    model: Model,
    processor: Processor,
    *,
    begin: Callable[[], None] | None = None,
) -> Session:
    """Compile a model for a processor; arguments and errors as of `timed_load`."""
    return timed_load(backend, model, processor, begin=begin)[0]


def timed_load(
    backend: Backend,
    model: Model,
    processor: Processor,
    *,
    begin: Callable[[], None] | None = None,
) -> tuple[Session, float]:
    """Compile a model for a processor; return the session with the seconds that it took.

    Args:
        backend: The processor's.
        model: The model. One of a fixed batch that is filled up takes any number of samples.
        processor: Where it shall run.
        begin: Called first by the thread that compiles: a pool that the library makes inherits
            from it.

    Raises:
        BackendError: it cannot be compiled.
        HangError: the library hangs. A session that it makes later is closed.
    """

    def create() -> Session:
        if begin is not None:
            begin()
        session = backend.load(model.filed, processor)
        return FilledSession(session, model) if model.filling else session

    with _CREATION_LOCK:
        started = time.perf_counter()
        session = patiently(create, f"loading {_named(model, processor)}", late=_close)
        return session, time.perf_counter() - started


def keep_ready(backend: Backend, model: Model, processor: Processor) -> None:
    """Let what a model needs to be loaded wait where it is got fast, while its content is used.

    For models that are loaded and evicted. A backend that can do it has a method
    `keep_ready(model, processor)`; with any other nothing is done.

    Raises:
        BackendError: the model cannot be loaded there.
        HangError: the library hangs.
    """
    prepare: Callable[[Model, Processor], None] | None = getattr(backend, "keep_ready", None)
    if prepare is not None:
        ready = partial(prepare, model.filed, processor)
        with _CREATION_LOCK:
            patiently(ready, f"preparing {_named(model, processor)}")


def ask_support(backend: Backend, model: Model, processor: Processor) -> frozenset[str] | None:
    """Return what `Backend.supported` says.

    Raises:
        BackendError: the backend has no such device.
        HangError: the library hangs.
    """
    what = f"asking what runs of {_named(model, processor)}"
    with _CREATION_LOCK:
        return patiently(lambda: backend.supported(model.filed, processor), what)


def _close(session: Session) -> None:
    session.close()


def _named(model: Model, processor: Processor) -> str:
    return f"model {model.name!r} on processor {processor.name!r}"
