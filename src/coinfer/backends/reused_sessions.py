"""Reused sessions: compile models once for several engines that run one after the other.

For many short runs, e.g. a search over rates: compiling takes longer than a run.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from coinfer.backends.base import Backend, Placement, Session, Tensor, Tensors
from coinfer.backends.registry import find_backends
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["reused_sessions"]


@contextmanager
def reused_sessions(
    processors: Iterable[Processor], backends: Mapping[str, Backend] | None = None
) -> Iterator[dict[str, Backend]]:
    """Yield the processors' backends by name; what they load stays loaded until the end.

    An engine that is given them may close its sessions: the next one finds them compiled. Engines
    must not overlap, and must run the same model objects.

    Args:
        processors: What will be used.
        backends: By name, those that are not to be looked up.

    >>> from coinfer.testing.models import tiny_linear
    >>> model = tiny_linear().model
    >>> processor = Processor(name="p", backend="null", units=frozenset({"p"}))
    >>> with reused_sessions([processor]) as backends:
    ...     first = backends["null"].load(model, processor)
    ...     first.close()
    ...     backends["null"].load(model, processor) is first
    True
    """
    kept = {n: _Reusing(b) for n, b in find_backends(processors, backends or {}).items()}
    try:
        yield {**kept}
    finally:
        for backend in kept.values():
            backend.end()


class _Reusing:
    """A backend that remembers what it has loaded."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        # The model is kept with its session: its id is not given away meanwhile.
        self._sessions: dict[tuple[int, Hashable], tuple[Model, _Kept]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def load(self, model: Model, processor: Processor) -> Session:
        # By content: under another name it is the same model.
        key = (id(model.content), self._backend.sharing_key(processor))
        if key not in self._sessions:
            self._sessions[key] = (model, _Kept(self._backend.load(model, processor)))
        return self._sessions[key][1]

    def end(self) -> None:
        for _, session in self._sessions.values():
            session.session.close()
        self._sessions.clear()


class _Kept:
    """A session that is not closed by those who run it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        # What a session of this kind can do, without a call in between.
        self.run: Callable[[Tensors], dict[str, Tensor]] = session.run
        for name in ("run_part", "owned", "note", "device_bytes", "reload_s"):
            if hasattr(session, name):
                setattr(self, name, getattr(session, name))

    def placement(self) -> Placement:
        return self.session.placement()

    def close(self) -> None:
        pass
