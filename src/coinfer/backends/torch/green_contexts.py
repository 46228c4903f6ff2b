"""GreenContexts: shares of a GPU by the green contexts of `cuda.core`. Not run on a GPU yet.

A stream of a green context runs on the multiprocessors of that context, whichever context is
current to the thread that gives it work. What is recorded on it is replayed there.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coinfer.backends.torch.library import torch
from coinfer.backends.torch.shares import Multiprocessors, Part
from coinfer.errors import BackendError

__all__ = ["GreenContexts"]


@dataclass(frozen=True, slots=True)
class _GreenContext:
    """A green context; it lives as long as this, and its streams too.

    Attributes:
        multiprocessors: How many it has, as the driver says.
    """

    multiprocessors: int
    _device: int
    _context: Any
    _streams: list[Any]

    def stream(self, *, is_urgent: bool) -> Any:
        """Return a stream of torch for a new one of the context."""
        options = _core().StreamOptions(nonblocking=True, priority=-1 if is_urgent else 0)
        stream = self._context.create_stream(options)
        self._streams.append(stream)  # torch does not keep it
        return torch.cuda.ExternalStream(int(stream.handle), device=self._device)


class GreenContexts:
    """Splits GPUs. Needs cuda-core 1.0 with cuda-bindings, and a driver of CUDA 12.4."""

    def multiprocessors(self, device: int) -> Multiprocessors:
        """Ask the driver.

        Raises:
            BackendError: cuda.core is not installed, or too old.
        """
        there = _device(device).resources.sm
        return Multiprocessors(
            count=int(there.sm_count),
            least=int(there.min_partition_size),
            multiple=int(there.coscheduled_alignment),
        )

    def split(self, device: int, sizes: Sequence[int]) -> Sequence[Part]:
        """Split the whole GPU, and make a green context of each part.

        Raises:
            BackendError: cuda.core is not installed, or too old.
        """
        core, whole = _core(), _device(device)
        groups, _ = whole.resources.sm.split(core.SMResourceOptions(count=tuple(sizes)))
        return [_context(core, whole, device, group) for group in groups]


def _context(core: Any, whole: Any, device: int, group: Any) -> _GreenContext:
    context = whole.create_context(core.ContextOptions(resources=[group]))
    return _GreenContext(int(context.resources.sm.sm_count), device, context, [])


def _device(number: int) -> Any:
    """Return a device of cuda.core, with the context of torch current to the calling thread."""
    torch.cuda.init()
    device = _core().Device(number)
    device.set_current()
    return device


def _core() -> Any:
    """Import cuda.core.

    Raises:
        BackendError: it is not installed, or too old.
    """
    try:
        core = importlib.import_module("cuda.core")
    except ImportError as error:
        raise BackendError(
            f"shares of a GPU need cuda-core and cuda-bindings ({error}); pip install cuda-core "
            "cuda-bindings, of the main version of torch's CUDA"
        ) from error
    if not hasattr(core, "SMResourceOptions"):
        raise BackendError(
            f"shares of a GPU need cuda-core 1.0 or later, and {core.__version__} is installed; "
            "pip install --upgrade cuda-core"
        )
    return core
