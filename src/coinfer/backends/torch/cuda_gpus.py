"""CudaGpus: the NVIDIA GPUs that torch can use here. Not measured on a GPU yet."""

from __future__ import annotations

import psutil

from coinfer.backends.base import Device, DeviceUse
from coinfer.backends.torch.cuda import CudaStream
from coinfer.backends.torch.cuda_copies import CudaCopies, PinnedRoom
from coinfer.backends.torch.green_contexts import GreenContexts
from coinfer.backends.torch.library import torch
from coinfer.backends.torch.shares import Share, Shares
from coinfer.backends.torch.stream import CopyStream, Stream

__all__ = ["CudaGpus"]

_BF16_SINCE = (8, 0)
"""Compute capability from which bfloat16 is computed and not emulated."""

_PINNED_SHARE = 0.5
"""Of the host's memory, what may be pinned: the system cannot take these pages away."""


class CudaGpus:
    """The GPUs, of which each is split into shares once at most."""

    def __init__(self) -> None:
        self._pinned = PinnedRoom(int(_PINNED_SHARE * psutil.virtual_memory().total))
        self._shares = Shares(GreenContexts())

    def devices(self) -> tuple[Device, ...]:
        """Return the GPUs; none if torch was built without CUDA."""
        if not torch.cuda.is_available():
            return ()
        return tuple(_device(number) for number in range(torch.cuda.device_count()))

    def stream(self, device: str, share: str, what: str, *, is_urgent: bool) -> tuple[Stream, int]:
        """Return a stream of the GPU, or of a share of it.

        Raises:
            BackendError: it has no such share.
        """
        found = torch.device(device.lower())
        if not share:
            return CudaStream(found, is_urgent=is_urgent), 0
        part = self._shares.part(found.index, Share.parse(share, what), what)
        return CudaStream(found, stream=part.stream(is_urgent=is_urgent)), part.multiprocessors

    def copies(self, device: str) -> CopyStream:
        """Return a stream of copies."""
        return CudaCopies(torch.device(device.lower()), self._pinned)

    def use(self, device: str) -> DeviceUse:
        """Return what is taken of the memory: by torch's own count, and by the driver's."""
        number = torch.device(device.lower()).index
        free, total = torch.cuda.mem_get_info(number)
        stats = torch.cuda.memory_stats(number)
        return DeviceUse(
            held_bytes=int(stats.get("allocated_bytes.all.current", 0)),
            kept_bytes=int(stats.get("reserved_bytes.all.current", 0)),
            free_bytes=int(free),
            total_bytes=int(total),
        )


def _device(number: int) -> Device:
    has_bf16 = torch.cuda.get_device_capability(number) >= _BF16_SINCE
    return Device(
        name=f"CUDA:{number}",
        kind="gpu",
        precisions=("fp32", "fp16", "bf16") if has_bf16 else ("fp32", "fp16"),
        description=str(torch.cuda.get_device_name(number)),
    )
