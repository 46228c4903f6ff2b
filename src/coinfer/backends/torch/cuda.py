"""CudaStream: streams and graphs of an NVIDIA GPU through torch. Not measured on a GPU yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from coinfer.backends.device_faults import Fault, fault_of
from coinfer.backends.torch.library import torch
from coinfer.backends.torch.stream import Captured, Run, Upload

__all__ = ["CudaStream"]

_CAPTURING = threading.Lock()
"""Held while something is recorded: torch waits for the whole GPU before it begins."""


class CudaStream:
    """A stream of a GPU, of one processor.

    Args:
        device: The `torch.device`.
        is_urgent: Whether what it is given goes first where both could start.
        stream: The stream of torch that it is; a new one if None.
    """

    def __init__(self, device: Any, *, is_urgent: bool = False, stream: Any = None) -> None:
        _compute_exactly()
        self.lock = threading.Lock()
        self.device = device
        self._stream = stream or torch.cuda.Stream(device, priority=-1 if is_urgent else 0)
        # What is recorded here never runs at the same time, so it may share its memory.
        self._pool = torch.cuda.graph_pool_handle()
        self._done = torch.cuda.Event()

    def clock(self) -> float:
        """Return seconds."""
        return time.perf_counter()

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

    def wait(self, upload: Upload) -> None:
        """Queue a wait for an upload's event; torch keeps the memory for what is queued."""
        self._stream.wait_event(upload.event)  # type: ignore[attr-defined]  # a `CudaUpload`
        upload.buffer.record_stream(self._stream)

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


def _compute_exactly() -> None:
    """Turn off TensorFloat-32, of which torch's convolutions make use unless told otherwise."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
