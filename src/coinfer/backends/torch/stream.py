"""Stream: the seam between what is run on a device and the device. Imports no library.

Work that a stream is given is done in order, and need not be done before `finish` returns. Weights
come by a stream of copies, which does not wait for those that compute, nor they for it: only the
first execution that reads them does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from coinfer.backends.base import Device, DeviceUse
from coinfer.backends.device_faults import Fault

__all__ = ["Captured", "CopyStream", "Gpus", "Run", "Stream", "Upload"]

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


class Upload(Protocol):
    """Memory of a device into which something is being copied.

    Attributes:
        buffer: A tensor of bytes.
    """

    buffer: Any

    def finish(self) -> None:
        """Let the calling thread wait until all is there.

        Raises:
            Exception: what the library raises if the copy failed.
        """
        ...


class CopyStream(Protocol):
    """A queue of copies from the host to a device, beside the streams that compute there."""

    def pin(self, buffer: Any) -> Callable[[], None] | None:
        """Let memory of the host be copied from while nobody waits.

        Returns:
            What takes that back, to be called once no copy of it is under way; it keeps the memory
            until then. None: the host refuses, and copies keep the calling thread waiting.
        """
        ...

    def upload(self, buffer: Any) -> Upload:
        """Queue a copy of memory of the host into new memory of the device.

        The caller keeps the memory of the host as it is until the copy is finished.

        Raises:
            Exception: what the library raises if the device has no memory left.
        """
        ...

    def fault(self, error: BaseException) -> Fault:
        """Tell what an error means."""
        ...

    def relieve(self) -> None:
        """Give back memory of the device that is kept for later."""
        ...


class Stream(Protocol):
    """A queue of work on a device, of one processor.

    Attributes:
        lock: Held from the first piece of an execution to its end, so that few are in flight.
        device: The device, as tensors name it.
    """

    lock: threading.Lock
    device: Any

    def clock(self) -> float:
        """Return seconds, to compare ways to do the same."""
        ...

    def active(self) -> AbstractContextManager[object]:
        """Let what tensors are asked to do inside be queued here."""
        ...

    def host_empty(self, like: Any) -> Any:
        """Return memory of the host that can be copied from and to without waiting."""
        ...

    def copy(self, target: Any, source: Any) -> None:
        """Queue a copy."""
        ...

    def wait(self, upload: Upload) -> None:
        """Queue nothing before an upload is complete, and keep its memory for what is queued.

        If the memory is freed while something that was queued here still reads it, it is given to
        nobody else before that is done. The calling thread does not wait.
        """
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


class Gpus(Protocol):
    """The GPUs of this machine, by the names of their devices."""

    def devices(self) -> tuple[Device, ...]:
        """Return those that torch can use."""
        ...

    def stream(self, device: str, share: str, what: str, *, is_urgent: bool) -> tuple[Stream, int]:
        """Return a new stream, and the multiprocessors that it runs on; 0: all.

        Args:
            device: Of which GPU.
            share: Such as `1of2`, the part of it; empty: the whole one.
            what: What errors call it.
            is_urgent: Whether what it is given goes first where both could start.

        Raises:
            BackendError: the GPU has no such share.
        """
        ...

    def copies(self, device: str) -> CopyStream:
        """Return a new stream of copies to a GPU."""
        ...

    def use(self, device: str) -> DeviceUse:
        """Return what is taken of a GPU's memory."""
        ...
