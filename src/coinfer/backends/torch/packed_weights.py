"""PackedWeights: constants of a program one behind the other in one piece of memory.

So they are copied to a device as one, and their memory is given back as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coinfer.backends.torch.library import torch

__all__ = ["PackedWeights"]

_ALIGNMENT = 512
"""Where torch lets tensors of a GPU begin; kernels for aligned data may be chosen by that."""


class _Place(NamedTuple):
    """Where a tensor is, in bytes."""

    offset: int
    nbytes: int
    dtype: Any
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedWeights:
    """Tensors in one piece of the host's memory.

    Attributes:
        buffer: The bytes.

    >>> packed = PackedWeights.of([torch.ones(2, 3), torch.tensor(7)])
    >>> [tuple(each.shape) for each in packed.views(packed.buffer)], packed.nbytes
    ([(2, 3), ()], 520)
    """

    buffer: Any = field(repr=False)
    _places: tuple[_Place, ...]

    @classmethod
    def of(cls, tensors: Sequence[Any]) -> PackedWeights:
        """Copy tensors of the host."""
        places, end = [], 0
        for each in tensors:
            offset = -(-end // _ALIGNMENT) * _ALIGNMENT
            places.append(_Place(offset, each.nbytes, each.dtype, tuple(each.shape)))
            end = offset + each.nbytes
        packed = cls(buffer=torch.empty(end, dtype=torch.uint8), _places=tuple(places))
        for target, source in zip(packed.views(packed.buffer), tensors, strict=True):
            target.copy_(source)
        return packed

    @property
    def nbytes(self) -> int:
        """Bytes of it, with the gaps."""
        return int(self.buffer.nbytes)

    def views(self, buffer: Any) -> list[Any]:
        """Return the tensors, as parts of a buffer of these bytes on any device."""
        return [
            buffer[place.offset : place.offset + place.nbytes]
            .view(place.dtype)
            .reshape(place.shape)
            for place in self._places
        ]
