"""Packed: a value in a library's own order in memory, which converts wherever arrays leave it.

A library may keep activations in an order of its own. Knows no library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np

from coinfer.backends.base import Tensor
from coinfer.backends.values import Value

__all__ = ["Packed", "Packing"]


class Packing(Protocol):
    """A form of a library's own. Both ways keep the first axis, so batches can be joined."""

    @property
    def owner(self) -> str:
        """Name of the backend."""
        ...

    def pack(self, array: Tensor) -> Packed:
        """Bring an array into the form."""
        ...

    def unpack(self, array: Tensor) -> Tensor:
        """Return what a packed array says, C-contiguous."""
        ...


class Packed(NamedTuple):
    """A tensor in a form of a library's own, a value that its backend owns.

    Attributes:
        array: What the library gave; its first axis is that of the tensor.
        packing: The form. Equal forms are one object.
    """

    array: Tensor
    packing: Packing

    @property
    def owner(self) -> str:
        """Name of the backend that can use it as it is."""
        return self.packing.owner

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
