"""ChannelBlocks: convert activations into ONNX Runtime's blocks of channels and back.

The caller must hold the lock under which sessions are created.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from coinfer.backends.base import Tensor
from coinfer.backends.onnxruntime.arena import one_operator
from coinfer.backends.onnxruntime.blocks import DOMAIN
from coinfer.backends.onnxruntime.creation import Style, create
from coinfer.backends.onnxruntime.library import LIBRARY_ERRORS
from coinfer.backends.onnxruntime.providers import CPU_PROVIDER
from coinfer.backends.packed import Packed
from coinfer.machine.processor import Processor

__all__ = ["ChannelBlocks", "block_size", "channel_blocks"]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelBlocks:
    """A number of channels in blocks, the last one filled up with zeros.

    Attributes:
        channels: The true number.
    """

    channels: int
    _into: Any = field(repr=False)
    _back: Any = field(repr=False)

    @property
    def owner(self) -> str:
        """Name of the backend."""
        return "onnxruntime"

    def pack(self, array: Tensor) -> Packed:
        """Bring an array of [batch, channels, height, width] into blocks."""
        return Packed(self._into.run(["y"], {"x": array})[0], self)

    def unpack(self, array: Tensor) -> Tensor:
        """Return an array in the plain order."""
        plain: Tensor = self._back.run(["y"], {"x": array})[0]
        return plain


@cache
def channel_blocks(channels: int) -> ChannelBlocks:
    """Return the one object for this number of channels.

    Raises:
        Exception: what the library raises if it has no such operators.
    """
    return ChannelBlocks(channels, _into_blocks(), _reorder("ReorderOutput", channels=channels))


@cache
def block_size() -> int:
    """Return how many channels a block has; 0 if the library has none on this machine."""
    try:
        found = _into_blocks().run(["y"], {"x": np.zeros((1, 4, 1, 1), np.float32)})[0]
    except LIBRARY_ERRORS:
        return 0
    return int(found.shape[1])


@cache
def _into_blocks() -> Any:
    return _reorder("ReorderInput")


def _reorder(op_type: str, **attributes: int) -> Any:
    data = one_operator(op_type, ["n", "c", "h", "w"], DOMAIN, **attributes)
    anywhere = Processor(name="any", backend="onnxruntime", units=frozenset({"any"}))
    return create(data, anywhere, (CPU_PROVIDER, {}), Style(optimised=False, shared=True))
