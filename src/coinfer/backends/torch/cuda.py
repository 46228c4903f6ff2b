"""CudaStream: streams and graphs of an NVIDIA GPU through torch. Not measured on a GPU yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from coinfer.backends.base import Device
from coinfer.backends.device_faults import Fault, fault_of
from coinfer.backends.torch.library import torch
from coinfer.backends.torch.stream import Captured, Run

__all__ = ["CudaStream", "cuda_devices"]

_CAPTURING = threading.Lock()
"""Held while something is recorded: torch waits for the whole GPU before it begins."""

_BF16_SINCE = (8, 0)
"""Compute capability from which bfloat16 is computed and not emulated."""


class CudaStream:
    """A stream of a GPU, of one processor.

    Args:
        device: The `torch.device`.
        is_urgent: Whether what it is given goes first where both could start.
    """

    def __init__(self, device: Any, *, is_urgent: bool = False) -> None:
        _compute_exactly()
        self.lock = threading.Lock()
        self.device = device
        self._stream = torch.cuda.Stream(device, priority=-1 if is_urgent else 0)
        # What is recorded here never runs at the same time, so it may share its memory.
        self._pool = torch.cuda.graph_pool_handle()
        self._done = torch.cuda.Event()

    def active(self) -> AbstractContextManager[object]:
        """Let what tensors are asked to do inside be queued here."""
        context: AbstractContextManager[object] = torch.cuda.stream(self._stream)
        return context

    def host_empty(self, like: Any) -> Any:
        """Return pinned memory; torch keeps what is freed and gives it again."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def copy(self, target: Any, source: Any) -> None:
        """Queue a copy."""
        target.copy_(source, non_blocking=True)

    def launch(self, run: Run, inputs: Sequence[Any]) -> list[Any]:
        """Queue a run: inside of `active`, torch's functions are."""
        return run(inputs)

    def capture(self, run: Run, inputs: Sequence[Any]) -> Captured:
        """Record a CUDA graph. Other threads may use the GPU meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with (
            _CAPTURING,
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            outputs = run(inputs)
        return Captured(outputs=outputs, replay=graph.replay)

    def finish(self) -> None:
        """Wait until all is done."""
        self._done.record(self._stream)
        self._done.synchronize()

    def fault(self, error: BaseException) -> Fault:
        """Tell what an error means."""
        return fault_of(error)

    def relieve(self) -> None:
        """Give back what torch keeps for later."""
        torch.cuda.empty_cache()


def cuda_devices() -> tuple[Device, ...]:
    """Return the GPUs that torch can use here; none if it was built without CUDA."""
    if not torch.cuda.is_available():
        return ()
    return tuple(_device(number) for number in range(torch.cuda.device_count()))


def _device(number: int) -> Device:
    has_bf16 = torch.cuda.get_device_capability(number) >= _BF16_SINCE
    return Device(
        name=f"CUDA:{number}",
        kind="gpu",
        precisions=("fp32", "fp16", "bf16") if has_bf16 else ("fp32", "fp16"),
        description=str(torch.cuda.get_device_name(number)),
    )


def _compute_exactly() -> None:
    """Turn off TensorFloat-32, of which torch's convolutions make use unless told otherwise."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
