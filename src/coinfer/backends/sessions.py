"""Session store: which compiled model serves which processor. Creation is serialised.

Creating sessions concurrently races in the inference libraries, and it holds the interpreter lock;
so one lock serves the whole process, and nothing on the way of a request takes it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping

from coinfer.backends.base import Backend, Session
from coinfer.errors import BackendError
from coinfer.model import Model
from coinfer.processor import Processor

__all__ = ["CREATION_LOCK", "SessionStore"]

CREATION_LOCK = threading.Lock()
"""Held while any session of the process is created."""

_Key = tuple[str, str, Hashable]


class SessionStore:
    """Sessions by (model, processor); processors that can share a session do."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = backends
        self._shared: dict[_Key, Session] = {}
        self._by_processor: dict[tuple[str, str], Session] = {}

    def load(self, name: str, model: Model, processors: Iterable[Processor]) -> dict[str, str]:
        """Create what is missing of a model's sessions; on failure nothing of it is left.

        A processor with several threads is only an alternative to those with one, and the pool
        threads of a process are limited. So if it cannot take the model, it is left out.

        Returns:
            Why a processor was left out, by its name; usually empty.

        Raises:
            BackendError: a backend cannot compile the model for a processor.
        """
        left_out: dict[str, str] = {}
        try:
            for processor in sorted(processors, key=lambda p: p.threads):
                try:
                    self._load_one(name, model, processor)
                except BackendError as error:
                    if processor.threads == 1 or not self.items(name):
                        raise
                    left_out[processor.name] = str(error)
        except BaseException:
            self.unload(name)
            raise
        return left_out

    def get(self, name: str, processor: str) -> Session:
        """Return the session of a model on a processor."""
        return self._by_processor[name, processor]

    def items(self, name: str) -> list[tuple[str, Session]]:
        """Return (processor, session) of a model."""
        # A list first, in one step: another thread may be loading.
        return [(p, s) for (m, p), s in list(self._by_processor.items()) if m == name]

    def unload(self, name: str, *, close: bool = True) -> None:
        """Forget a model's sessions, and close them unless something may still run on them."""
        self._by_processor = {k: s for k, s in self._by_processor.items() if k[0] != name}
        for key in [key for key in self._shared if key[0] == name]:
            session = self._shared.pop(key)
            if close:
                session.close()

    def close(self) -> None:
        """Close all sessions."""
        for name in {key[0] for key in self._shared}:
            self.unload(name)

    def _load_one(self, name: str, model: Model, processor: Processor) -> None:
        backend = self._backends[processor.backend]
        key = (name, processor.backend, backend.sharing_key(processor))
        if key not in self._shared:
            with CREATION_LOCK:
                self._shared[key] = backend.load(model, processor)
        self._by_processor[name, processor.name] = self._shared[key]
