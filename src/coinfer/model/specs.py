"""TensorSpec: name, dtype and shape of one model input or output. Knows no graph and no backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coinfer.errors import InputError

__all__ = ["TensorSpec", "text_of_shape"]


def text_of_shape(shape: tuple[int | str | None, ...]) -> str:
    """Write a shape as people do: `?` for an unknown size."""
    return "[" + ",".join("?" if dim is None else str(dim) for dim in shape) + "]"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What an input takes, or what an output gives.

    Attributes:
        name: Name in the graph.
        dtype: Element type; strings have dtype `object`.
        shape: Per axis a size, a symbol (equal symbols are equal sizes) or None for unknown.
        rank_known: False of an output whose file says nothing of its shape, which is empty then.

    >>> str(TensorSpec(name="x", dtype=np.dtype("float32"), shape=("N", 3, None)))
    'x: float32[N,3,?]'
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]
    rank_known: bool = True

    def check(self, array: np.ndarray[Any, Any]) -> None:
        """Check one array; a symbolic or unknown axis takes any size, also none.

        Raises:
            InputError: not an array, or another dtype or shape.
        """
        if not isinstance(array, np.ndarray):
            raise InputError(
                f"input {self.name!r} takes a numpy array {self.layout} but got "
                f"{type(array).__name__}; convert it with numpy.asarray"
            )
        if not self._takes_dtype(array.dtype):
            raise InputError(
                f"input {self.name!r} takes {self.dtype_name} but got {array.dtype}; convert it "
                f"with .astype({self.dtype_name!r})"
            )
        if not self.takes_shape(array.shape):
            raise InputError(
                f"input {self.name!r} takes shape {self.shape_text} but got "
                f"{list(array.shape)}; {self._shape_remedy(array.shape)}"
            )

    @property
    def dtype_name(self) -> str:
        """Name of the element type, `str` for strings."""
        return "str" if self.dtype == object else self.dtype.name

    @property
    def shape_text(self) -> str:
        """The shape as people write it: `?` for an unknown size, `[...]` for an unknown rank."""
        if not self.rank_known:
            return "[...]"
        return text_of_shape(self.shape)

    @property
    def layout(self) -> str:
        """Element type and shape in one word, e.g. `float32[N,3,224,224]`."""
        return f"{self.dtype_name}{self.shape_text}"

    def __str__(self) -> str:
        return f"{self.name}: {self.layout}"

    def _takes_dtype(self, dtype: np.dtype[Any]) -> bool:
        return dtype == self.dtype or (self.dtype == object and dtype.kind in "US")

    def takes_shape(self, shape: tuple[int, ...]) -> bool:
        """Tell whether an array may have this shape."""
        return len(shape) == len(self.shape) and all(
            size == dim or not isinstance(dim, int)
            for size, dim in zip(shape, self.shape, strict=True)
        )

    def _shape_remedy(self, shape: tuple[int, ...]) -> str:
        if len(shape) + 1 == len(self.shape) and self.takes_shape((1, *shape)):
            return "add the batch axis with array[numpy.newaxis]"
        if len(shape) != len(self.shape):
            return f"it needs {len(self.shape)} axes and has {len(shape)}"
        wrong = next(
            axis
            for axis, (size, dim) in enumerate(zip(shape, self.shape, strict=True))
            if isinstance(dim, int) and size != dim
        )
        return f"axis {wrong} must be {self.shape[wrong]}"
