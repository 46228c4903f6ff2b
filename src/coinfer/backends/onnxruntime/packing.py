"""Packing: activations in ONNX Runtime's blocks of channels, and the way there and back.

The caller must hold the lock under which sessions are created.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np

from coinfer.backends.base import Tensor
from coinfer.backends.onnxruntime.arena import one_operator
from coinfer.backends.onnxruntime.creation import Style, create
from coinfer.backends.onnxruntime.library import LIBRARY_ERRORS
from coinfer.backends.onnxruntime.providers import CPU_PROVIDER
from coinfer.backends.values import Value
from coinfer.machine.processor import Processor

__all__ = ["ChannelBlocks", "Packed", "block_size", "channel_blocks"]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelBlocks:
    """A number of channels in blocks, the last one filled up with zeros.

    Both ways keep the first axis, so batches can be joined.

    Attributes:
        channels: The true number.
    """

    channels: int
    _into: Any = field(repr=False)
    _back: Any = field(repr=False)

    def pack(self, array: Tensor) -> Packed:
        """Bring an array of [batch, channels, height, width] into blocks."""
        return Packed(self._into.run(["y"], {"x": array})[0], self)

    def unpack(self, array: Tensor) -> Tensor:
        """Return an array in the plain order."""
        plain: Tensor = self._back.run(["y"], {"x": array})[0]
        return plain


class Packed(NamedTuple):
    """A tensor in blocks of channels: a value that this backend owns.

    Attributes:
        array: What the library gave; its first axis is that of the tensor.
        packing: Its form. Equal forms are one object.
    """

    array: Tensor
    packing: ChannelBlocks

    def to_host(self) -> Tensor:
        """Return the tensor as an array that anybody can read."""
        return self.packing.unpack(self.array)

    def copy(self) -> Self:
        """Return one that shares no memory with it."""
        return self._replace(array=self.array.copy())

    def join(self, others: Sequence[Value]) -> Self | None:
        """Put others behind it along the first axis; None if they are not of its form."""
        packing = self.packing
        alike = [v.array for v in others if isinstance(v, Packed) and v.packing is packing]
        if len(alike) < len(others):
            return None
        return self._replace(array=np.concatenate([self.array, *alike]))

    def part(self, cuts: Sequence[int]) -> list[Self]:
        """Cut it along the first axis before these positions."""
        return [self._replace(array=array) for array in np.split(self.array, cuts)]


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
    from coinfer.backends.onnxruntime.blocks import DOMAIN  # needs the heavy libraries

    data = one_operator(op_type, ["n", "c", "h", "w"], DOMAIN, **attributes)
    anywhere = Processor(name="any", backend="onnxruntime", units=frozenset({"any"}))
    return create(data, anywhere, (CPU_PROVIDER, {}), Style(optimised=False, shared=True))
