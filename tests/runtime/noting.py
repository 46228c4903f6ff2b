"""Builders for tests of who performs a run: the null backend notes by which thread it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from coinfer import Engine, Processor, Profile
from coinfer.backends.null import NullBackend
from coinfer.machine.processor import WAKE_S
from coinfer.testing.models import tiny_linear

MODEL = tiny_linear().model
FEED = MODEL.sample_inputs()
BRIEF_S, LONG_S = WAKE_S, 3 * WAKE_S


class Noting(NullBackend):
    """Notes by which thread each run is done, and does something in it."""

    def __init__(self, act: Callable[[], object] = lambda: None, **options: Any) -> None:
        super().__init__(**options)
        self.act = act
        self.threads: list[str] = []
        self.open: list[str] = []

    def load(self, model: Any, processor: Processor) -> Any:
        session = super().load(model, processor)
        run, close = session.run, session.close
        self.open.append(processor.name)

        def noted(inputs: Any) -> Any:
            self.threads.append(threading.current_thread().name)
            self.act()
            return run(inputs)

        def closed() -> None:
            self.open.remove(processor.name)
            close()

        session.run, session.close = noted, closed  # type: ignore[method-assign]
        return session


def noting_engine(
    backend: NullBackend,
    seconds: float = BRIEF_S,
    *,
    names: tuple[str, ...] = ("p0",),
    wake_s: float = WAKE_S,
    threads: int = 1,
    models: tuple[str, ...] = ("m",),
    **options: Any,
) -> Engine:
    processors = [
        Processor(
            name=name, backend="null", units=frozenset({name}), wake_s=wake_s, threads=threads
        )
        for name in names
    ]
    return Engine(
        dict.fromkeys(models, MODEL),
        processors=processors,
        profile=Profile.from_seconds({model: dict.fromkeys(names, seconds) for model in models}),
        backends={"null": backend},
        pin=False,
        **options,
    )
