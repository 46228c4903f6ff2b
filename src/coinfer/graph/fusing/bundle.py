"""Bundle: the M values of M models that correspond, and what is known of them. A value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from coinfer.graph.fusing.layout import AXIS, Layout
from coinfer.model.validation import dimension

__all__ = ["Bundle"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """Values that correspond, one of each model.

    Attributes:
        values: The values in their graphs.
        is_stored: Whether they are weights or other constants that are stored.
        is_shared: Whether they are the same for all models, whatever the inputs: the fused graph
            needs one.
        is_uniform: Whether they have equal shapes, whatever the inputs.
    """

    values: tuple[ir.Value, ...]
    is_stored: bool
    is_shared: bool
    is_uniform: bool

    @property
    def name(self) -> str:
        """The name in the first model."""
        return self.values[0].name or ""

    @cached_property
    def dims(self) -> tuple[int | str | None, ...] | None:
        """Sizes of one of them: numbers, symbols, None where unknown; None without known rank."""
        value = self.values[0]
        if value.const_value is not None and self.is_stored:
            return tuple(int(size) for size in value.const_value.shape.numpy())
        return None if value.shape is None else tuple(dimension(dim) for dim in value.shape)

    @property
    def rank(self) -> int:
        """Number of axes of one of them. Ask only where `dims` is known."""
        assert self.dims is not None
        return len(self.dims)

    @property
    def is_tensor(self) -> bool:
        """Whether they can be put side by side: of a known rank, no strings, and not empty."""
        value = self.values[0]
        if self.dims is None or 0 in self.dims:
            return False
        if value.const_value is not None and self.is_stored:
            return value.const_value.dtype != ir.DataType.STRING
        return isinstance(value.type, ir.TensorType) and value.dtype != ir.DataType.STRING

    @property
    def channels(self) -> int | None:
        """Size of axis 1, if it is there and known."""
        size = self.dims[1] if self.dims is not None and len(self.dims) > 1 else None
        return size if isinstance(size, int) else None

    def size(self, axis: int) -> int | None:
        """Size of an axis, None if it is open."""
        assert self.dims is not None
        found = self.dims[axis]
        return found if isinstance(found, int) else None

    def fits(self, layout: Layout) -> bool:
        """Whether it can be kept in a layout."""
        if layout is Layout.BRANCHES:
            return True
        return self.is_tensor and (layout is Layout.STACKED or self.channels is not None)

    @property
    def arrays(self) -> list[np.ndarray[Any, Any]]:
        """What is stored, one array of each model. Ask only where `is_stored`."""
        tensors = [value.const_value for value in self.values]
        return [tensor.numpy() for tensor in tensors if tensor is not None]

    def explicit_dims(self, layout: Layout, models: int) -> tuple[int | str | None, ...]:
        """Sizes of the view with an axis of its own for the models."""
        assert self.dims is not None
        at = AXIS[layout]
        return (*self.dims[:at], models, *self.dims[at:])
