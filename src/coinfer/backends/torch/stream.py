"""Stream: the seam between what is run on a device and the device. Imports no library.

Work that a stream is given is done in order, and need not be done before `finish` returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from coinfer.backends.device_faults import Fault

__all__ = ["Captured", "Fault", "Run", "Stream"]

Run = Callable[[Sequence[Any]], list[Any]]
"""Queues what makes output tensors of input tensors on the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """Work that was recorded and can be repeated.

    Attributes:
        outputs: What it makes. Each repetition of anything that was recorded on the stream may
            overwrite it: copy it on the stream before.
        replay: Queues it once more, on what is then in the inputs that it was recorded with.
    """

    outputs: Sequence[Any]
    replay: Callable[[], None]


class Stream(Protocol):
    """A queue of work on a device, of one processor.

    Attributes:
        lock: Held from the first piece of an execution to its end, so that few are in flight.
        device: The device, as tensors name it.
    """

    lock: threading.Lock
    device: Any

    def active(self) -> AbstractContextManager[object]:
        """Let what tensors are asked to do inside be queued here."""
        ...

    def host_empty(self, like: Any) -> Any:
        """Return memory of the host that can be copied from and to without waiting."""
        ...

    def copy(self, target: Any, source: Any) -> None:
        """Queue a copy."""
        ...

    def launch(self, run: Run, inputs: Sequence[Any]) -> list[Any]:
        """Queue a run; return what it makes, which is not complete yet."""
        ...

    def capture(self, run: Run, inputs: Sequence[Any]) -> Captured:
        """Record what a run queues; it must not wait for the device. Nothing else is in flight.

        Raises:
            Exception: what the library raises if that cannot be recorded.
        """
        ...

    def finish(self) -> None:
        """Wait until all is done.

        Raises:
            Exception: what the library raises if something of it failed.
        """
        ...

    def fault(self, error: BaseException) -> Fault:
        """Tell what an error means."""
        ...

    def relieve(self) -> None:
        """Give back memory of the device that is kept for later."""
        ...
