"""Session store: keeps the session that each processor uses for each span, and creates them.

Creating sessions concurrently races in the inference libraries, and it holds the interpreter lock;
so one lock serialises creation in the whole process. No request waits for that lock.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Hashable, Iterable, Mapping
from functools import partial

from coinfer.backends import heap
from coinfer.backends.base import Backend, Session, note_of, reading_once
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span, completes
from coinfer.model import Model
from coinfer.threads.priority import call_lowered

__all__ = ["CREATION_LOCK", "SessionStore"]

CREATION_LOCK = threading.Lock()
"""Held while any session of the process is created."""

_Key = tuple[str, Span, str, Hashable]


class SessionStore:
    """Sessions by (model, span, processor); processors that can share a session do.

    Args:
        backends: By name.
        yielding: Names of the processors that must yield: the thread pools of their sessions do.
    """

    def __init__(self, backends: Mapping[str, Backend], yielding: Container[str]) -> None:
        self._backends = backends
        self._yielding = yielding
        self._shared: dict[_Key, Session] = {}
        self._by_processor: dict[tuple[str, Span, str], Session] = {}

    def load(
        self,
        name: str,
        pieces: Mapping[Span, Model],
        wanted: Mapping[Span, Iterable[Processor]],
    ) -> dict[str, str]:
        """Create what is missing of a model's sessions; on failure nothing of it is left.

        A processor with several threads is only an alternative to those with one, and the pool
        threads of a process are limited. So if it cannot take a span, it is left out, and the
        others must be able to run the whole model.

        Args:
            name: What the model is called.
            pieces: The model of each span; a model that is not cut is its one span.
            wanted: Which processors shall run which span.

        Returns:
            Why a processor was left out, by its name; usually empty.

        Raises:
            BackendError: a backend cannot compile a span for a processor.
        """
        left_out: dict[str, str] = {}
        units = 1 + max(span.last for span in wanted)
        pairs = [(span, p) for span, processors in wanted.items() for p in processors]
        try:
            with reading_once(self._backends.values()):
                for span, processor in sorted(pairs, key=lambda pair: pair[1].threads):
                    if processor.name in left_out:
                        continue
                    try:
                        self._load_one(name, span, pieces[span], processor)
                    except BackendError as error:
                        others = [s for s, p in pairs if p.name not in (*left_out, processor.name)]
                        if processor.threads == 1 or not completes(others, units):
                            raise
                        left_out[processor.name] = str(error)
                        self._forget(name, processor.name)
        except BaseException:
            self.unload(name)
            raise
        return left_out

    def get(self, name: str, span: Span, processor: str) -> Session:
        """Return the session of a span of a model on a processor."""
        return self._by_processor[name, span, processor]

    def notes(self, name: str) -> tuple[str, ...]:
        """Return what the sessions of a model say of how they were compiled, each once."""
        return tuple(dict.fromkeys(n for *_, s in self.items(name) if (n := note_of(s))))

    def items(self, name: str) -> list[tuple[Span, str, Session]]:
        """Return (span, processor, session) of a model."""
        # A list first, in one step: another thread may be loading.
        return [(i, p, s) for (m, i, p), s in list(self._by_processor.items()) if m == name]

    def unload(self, *names: str, close: bool = True) -> None:
        """Forget the sessions of models, and close them unless something may still run on them.

        The memory of those that are closed goes back to the system.
        """
        self._by_processor = {k: s for k, s in self._by_processor.items() if k[0] not in names}
        found = [self._shared.pop(key) for key in list(self._shared) if key[0] in names]
        if close and found:
            while found:
                found.pop().close()
            heap.trim()

    def close(self) -> None:
        """Close all sessions."""
        self.unload(*{key[0] for key in self._shared})

    def _load_one(self, name: str, span: Span, piece: Model, processor: Processor) -> None:
        backend = self._backends[processor.backend]
        key = (name, span, processor.backend, backend.sharing_key(processor))
        if key not in self._shared:
            with CREATION_LOCK:
                load = partial(backend.load, piece, processor)
                yields = processor.name in self._yielding
                self._shared[key] = call_lowered(load) if yields else load()
        self._by_processor[name, span, processor.name] = self._shared[key]

    def _forget(self, name: str, processor: str) -> None:
        """Close a processor's sessions of a model, but for those that others share."""
        kept = {k: s for k, s in self._by_processor.items() if (k[0], k[2]) != (name, processor)}
        self._by_processor = kept
        used = {id(session) for session in kept.values()}
        for key in [k for k, s in self._shared.items() if k[0] == name and id(s) not in used]:
            self._shared.pop(key).close()
