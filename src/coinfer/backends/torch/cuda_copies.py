"""CudaCopies: copies to an NVIDIA GPU beside what it computes. Not measured on a GPU yet."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from coinfer.backends.device_faults import Fault, fault_of
from coinfer.backends.torch.library import torch
from coinfer.units import format_bytes

__all__ = ["CudaCopies", "CudaUpload", "PinnedRoom"]

_log = logging.getLogger(__name__)

_PIECE_BYTES = 8 * 2**20
"""A GPU copies one piece at a time in a direction: inputs of requests wait for one at most."""


_ALL_CONTEXTS = 1
"""`cudaHostRegisterPortable`."""


class PinnedRoom:
    """How much of the host's memory may be pinned by this process.

    Args:
        most_bytes: The limit.

    >>> room = PinnedRoom(100)
    >>> room.take(60), room.take(60), room.give_back(60), room.take(60)
    (True, False, None, True)
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._taken_bytes = 0
        self._has_refused = False
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take some bytes, if they are there."""
        with self._lock:
            fits = self._taken_bytes + size <= self._most_bytes
            self._taken_bytes += size if fits else 0
        return fits

    def give_back(self, size: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._taken_bytes -= size

    def refused(self, why: str) -> None:
        """Warn once that weights wait in memory that is not pinned."""
        if not self._has_refused:
            self._has_refused = True
            _log.warning(
                "weights wait in memory that is not pinned, and take longer to load: %s", why
            )


@dataclass(slots=True)
class CudaUpload:
    """A copy that is under way.

    Attributes:
        buffer: Where it goes.
        event: Happens when all of it is there.
    """

    buffer: Any
    event: Any

    def finish(self) -> None:
        """Let the calling thread wait."""
        self.event.synchronize()


class CudaCopies:
    """A stream of a GPU for copies from the host.

    Args:
        device: The `torch.device`.
        room: What may be pinned.
    """

    def __init__(self, device: Any, room: PinnedRoom) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._room = room

    def pin(self, buffer: Any) -> Callable[[], None] | None:
        """Pin the pages of memory where it is: torch's pinned memory comes in powers of two."""
        size = int(buffer.nbytes)
        if not self._room.take(size):
            self._room.refused("more of the host's memory is not pinned; memory is short")
            return None
        code = int(torch.cuda.cudart().cudaHostRegister(buffer.data_ptr(), size, _ALL_CONTEXTS))
        if code:
            with suppress(Exception):  # CUDA tells the next launch of this thread, too
                torch.zeros(1, device=self._device)
            self._room.give_back(size)
            self._room.refused(
                f"the system refuses to pin {format_bytes(size)} (CUDA error {code}); raise the "
                "limit of locked memory (ulimit -l)"
            )
            return None
        return partial(self._unpin, buffer, size)

    def upload(self, buffer: Any) -> CudaUpload:
        """Queue a copy, piece by piece."""
        with torch.cuda.stream(self._stream):
            target = torch.empty_like(buffer, device=self._device)
            for first in range(0, len(buffer), _PIECE_BYTES):
                piece = slice(first, first + _PIECE_BYTES)
                target[piece].copy_(buffer[piece], non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._stream)
        return CudaUpload(target, event)

    def fault(self, error: BaseException) -> Fault:
        """Tell what an error means."""
        return fault_of(error)

    def relieve(self) -> None:
        """Give back what torch keeps for later."""
        torch.cuda.empty_cache()

    def _unpin(self, buffer: Any, size: int) -> None:
        torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr())
        self._room.give_back(size)
