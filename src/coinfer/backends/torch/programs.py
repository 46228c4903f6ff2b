"""Programs: what was translated of models, once per device and precision, whoever runs it.

A program goes with the last who uses it, and so do its weights on a device. Those that are kept
wait on the host as long as somebody has the content of their model.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from coinfer.backends.torch.library import torch
from coinfer.backends.torch.program import Program
from coinfer.backends.torch.stream import CopyStream
from coinfer.backends.torch.waiting_program import LoadedProgram, WaitingProgram
from coinfer.errors import BackendError, ModelError
from coinfer.model import Model
from coinfer.model.content import Content

__all__ = ["Programs"]

_COMPUTE = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class _OfContent:
    """What there is of one content, by all else that programs depend on."""

    def __init__(self) -> None:
        self.waiting: dict[Hashable, WaitingProgram] = {}
        self.on_host = weakref.WeakValueDictionary[Hashable, Program]()
        self.on_device = weakref.WeakValueDictionary[Hashable, LoadedProgram]()


class Programs:
    """All programs of a backend."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known = weakref.WeakKeyDictionary[Content, _OfContent]()

    def on_host(self, model: Model, precision: str, what: str) -> Program:
        """Return a program of the CPU.

        Raises:
            BackendError: torch cannot run the model.
        """
        key = _key(model, "cpu", precision)
        with self._lock:
            known = self._of(model)
            program = known.on_host.get(key)
            if program is None:
                program = _translated(model, torch.device("cpu"), precision, what)
                known.on_host[key] = program
        return program

    def on_device(
        self, model: Model, precision: str, device: Any, copies: CopyStream, what: str
    ) -> tuple[LoadedProgram, float]:
        """Return a program whose weights are on a device, with the seconds that copying them took.

        The calling thread waits for them. They are not copied if they are there for another stream.

        Raises:
            BackendError: torch cannot run the model.
            Exception: what the library raises if they cannot be copied.
        """
        key = _key(model, str(device), precision)
        with self._lock:
            known = self._of(model)
            loaded = known.on_device.get(key)
            waiting = known.waiting.get(key)  # held here until its weights are copied
            started_s = time.perf_counter()
            if loaded is None:
                waiting = waiting or _waiting(model, device, precision, what)
                started_s = time.perf_counter()
                loaded = waiting.load(copies)
                known.on_device[key] = loaded
        # Not on the stream of a processor, where others would wait as well.
        loaded.upload.finish()
        return loaded, time.perf_counter() - started_s

    def keep(
        self, model: Model, precision: str, device: Any, copies: CopyStream, what: str
    ) -> None:
        """Let a program wait on the host, in pinned memory, as long as the content is used.

        Raises:
            BackendError: torch cannot run the model.
        """
        key = _key(model, str(device), precision)
        with self._lock:
            known = self._of(model)
            if key not in known.waiting:
                known.waiting[key] = waiting = _waiting(model, device, precision, what)
                waiting.pin(copies)

    def choices(
        self, model: Model, precision: str, device: Any, processor: Hashable
    ) -> dict[Hashable, bool]:
        """Return what a processor's launchers found out of a program before, if it is kept."""
        with self._lock:
            waiting = self._of(model).waiting.get(_key(model, str(device), precision))
            return {} if waiting is None else waiting.choices.setdefault(processor, {})

    def _of(self, model: Model) -> _OfContent:
        return self._known.setdefault(model.content, _OfContent())


def _key(model: Model, device: str, precision: str) -> Hashable:
    return (model.inputs, model.outputs, device, precision)


def _waiting(model: Model, device: Any, precision: str, what: str) -> WaitingProgram:
    return WaitingProgram.of(_translated(model, device, precision, what, apart=True))


def _translated(
    model: Model, device: Any, precision: str, what: str, *, apart: bool = False
) -> Program:
    make: Callable[..., Program] = Program.of
    try:
        return make(model, compute=_COMPUTE[precision], device=device, what=what, apart=apart)
    except (BackendError, ModelError):
        raise
    except Exception as error:
        # What torch raises while it computes constants cannot be listed.
        raise BackendError(f"{what}: torch cannot prepare it: {error}") from error
