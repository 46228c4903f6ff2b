"""GpuValue: a tensor that stays in a GPU's memory between two parts of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from coinfer.backends.base import Tensor
from coinfer.backends.onnxruntime.gpu import Gpu
from coinfer.backends.onnxruntime.library import ort
from coinfer.backends.values import Value

__all__ = ["GpuValue", "on_gpu"]

_CUDA = "cuda"
"""What onnxruntime's Python calls the memory of NVIDIA GPUs."""

_DTYPES = {
    "float": "float32",
    "float16": "float16",
    "double": "float64",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""numpy's name of what onnxruntime calls `tensor(NAME)`."""


def on_gpu(array: Tensor, gpu: Gpu) -> Any:
    """Return the library's value of an array in a GPU's memory."""
    whole = np.require(array, requirements="C")
    return ort.OrtValue.ortvalue_from_numpy(whole, _CUDA, gpu.number)


class GpuValue(NamedTuple):
    """A tensor on a GPU.

    Attributes:
        stored: The library's value; it is complete.
        gpu: Where.
        shape: Its shape.
        dtype: Its type.
    """

    stored: Any
    gpu: Gpu
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, stored: Any, gpu: Gpu) -> Self:
        """Wrap the library's value.

        Raises:
            KeyError: it is of a type that numpy does not have.
        """
        name = stored.data_type().removeprefix("tensor(").removesuffix(")")
        return cls(stored, gpu, tuple(stored.shape()), np.dtype(_DTYPES[name]))

    def array(self) -> Tensor:
        """Return it as an array that shares no memory with it; the GPU is kept from recording."""
        return np.array(self.stored.numpy(), order="C")

    def copy_to(self, buffer: Any) -> None:
        """Copy it to another value of the library on the same GPU."""
        try:
            buffer.update_inplace(self.stored)
        except TypeError:  # an older onnxruntime takes arrays only
            ort.copy_tensors([self.stored], [buffer])

    def copy_inside(self) -> Self:
        """Return a copy; the GPU is kept from recording."""
        copied = self._replace(stored=on_gpu(np.empty(self.shape, self.dtype), self.gpu))
        self.copy_to(copied.stored)
        return copied

    def to_host(self) -> Tensor:
        """Return it as an array."""
        with self.gpu.running():
            return self.array()

    def copy(self) -> Self:
        """Return one that shares no memory with it."""
        with self.gpu.running():
            return self.copy_inside()

    def join(self, others: Sequence[Value]) -> Self | None:  # noqa: ARG002  # the protocol's
        """Put nothing behind it: onnxruntime's Python has no function for that."""
        return None

    def part(self, cuts: Sequence[int]) -> list[Self]:
        """Cut it along the first axis before these positions."""
        with self.gpu.running():
            pieces = np.split(self.array(), cuts)
            return [
                self._replace(stored=on_gpu(each, self.gpu), shape=each.shape) for each in pieces
            ]
