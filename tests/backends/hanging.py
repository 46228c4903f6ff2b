"""A backend that hangs where a test wants it to, until the test ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from coinfer.backends.base import Device, Session, Tensors
from coinfer.backends.null import NullBackend
from coinfer.machine.processor import Processor
from coinfer.model import Model


class Hanging(NullBackend):
    """Null, but hangs in some places on one processor.

    Attributes:
        at: `load`, `run` (the first ones) or `devices`.
        closed: Processors whose sessions were closed.
    """

    def __init__(self, at: str, processor: str = "npu", runs: int = 0) -> None:
        super().__init__()
        self.at, self.processor, self.runs_before = at, processor, runs
        self.go_on = threading.Event()
        self.hangs = threading.Event()
        self.closed: list[str] = []

    def versions(self) -> Mapping[str, str]:
        return {}

    def hang(self) -> None:
        self.hangs.set()
        assert self.go_on.wait(60.0)

    def devices(self) -> tuple[Device, ...]:
        if self.at == "devices":
            self.hang()
        return super().devices()

    def load(self, model: Model, processor: Processor) -> Session:
        if self.at == "load" and processor.name == self.processor and model.name != "tiny_mlp":
            self.hang()
        return _Session(super().load(model, processor), self, model, processor.name)


class _Session:
    def __init__(self, session: Session, backend: Hanging, model: Model, processor: str) -> None:
        self._session, self._backend, self._model = session, backend, model.name
        self._processor, self._left = processor, backend.runs_before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, inputs: Tensors) -> Any:
        backend = self._backend
        if backend.at == "run" and self._processor == backend.processor != "":
            if self._model != "tiny_mlp" and not self._left:
                backend.hang()
            self._left -= 1
        return self._session.run(inputs)

    def close(self) -> None:
        if self._model != "tiny_mlp":
            self._backend.closed.append(self._processor)
        self._session.close()
