"""Moments: mean and second moment of what a layer's filters see of its inputs, from samples.

Knows arrays; runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coinfer.errors import InputError
from coinfer.graph.compressing.layer import Kind, Layer

__all__ = ["MOST_ELEMENTS", "Moments", "OutputMoments", "Window"]

MOST_ELEMENTS: Final = 2**25
"""A second moment may have so many numbers (128 MiB); of wider filters only channels are looked at,
and of channels that are too many nothing."""


_NOTHING: Final = 1e-30
"""A mean square below this is none: float32 holds no square of less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Where a layer looks.

    Attributes:
        kernel: Sizes of the kernel; none of a dense layer.
        strides: Steps between places.
        dilations: Steps inside of a place.
        pads: Zeros before and after each axis.
        is_transposed: Whether a dense layer's channels are the last axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, node: ir.Node, layer: Layer, size: Sequence[int]) -> Window:
        """Read it of an operator whose input has these spatial sizes."""
        if layer.kind is Kind.DENSE:
            return cls(kernel=())
        rank = len(layer.kernel)
        strides = tuple(node.attributes.get_ints("strides", [1] * rank))
        dilations = tuple(node.attributes.get_ints("dilations", [1] * rank))
        pads = node.attributes.get_ints("pads", [0] * (2 * rank))
        kind = node.attributes.get_string("auto_pad", "NOTSET")
        pairs = tuple(zip(pads[:rank], pads[rank:], strict=True))
        if kind == "VALID":
            pairs = ((0, 0),) * rank
        elif kind != "NOTSET":
            wide = zip(size, layer.kernel, strides, dilations, strict=True)
            pairs = tuple(_same(*each, upper=kind == "SAME_UPPER") for each in wide)
        return cls(kernel=layer.kernel, strides=strides, dilations=dilations, pads=pairs)

    def patches(
        self, values: npt.NDArray[Any], groups: int, most: int, rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Return what filters see at some places, (groups, places, inputs, *kernel).

        Args:
            values: The layer's input, (batch, channels, *sizes), or (..., channels) of a dense one.
            groups: Of the channels.
            most: How many places; drawn without return if there are more.
            rng: Draws them.
        """
        if not self.kernel:
            rows = values.reshape(1, -1, values.shape[-1])
            return rows[:, _drawn(rows.shape[1], most, rng)].astype(np.float32)
        batch, channels = values.shape[:2]
        padded = np.pad(values, ((0, 0), (0, 0), *self.pads))
        wide = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        axes = tuple(range(2, values.ndim))
        view = np.lib.stride_tricks.sliding_window_view(padded, wide, axis=axes)
        view = view[(slice(None), slice(None), *(slice(None, None, s) for s in self.strides))]
        places_first = (slice(None),) * values.ndim
        view = view[(*places_first, *(slice(None, None, d) for d in self.dilations))]
        places = view.shape[2 : 2 + len(axes)]
        chosen = _drawn(batch * prod(places), most, rng)
        index = np.unravel_index(chosen, (batch, *places))
        # Each place has the channels first now, and then the kernel.
        found = np.moveaxis(view, 1, len(axes) + 1)[index].astype(np.float32)
        found = found.reshape(len(chosen), groups, channels // groups, *self.kernel)
        return np.moveaxis(found, 1, 0)


@dataclass(slots=True)
class OutputMoments:
    """Sums over what a layer makes.

    Of filters too wide for a second moment of their inputs, they tell which outputs go together.

    Attributes:
        groups: Of the channels.
        outputs: Channels of a group.
        count: Places.
        total: (groups, outputs): the sum.
        second: (groups, outputs, outputs): the sum of products.
    """

    groups: int
    outputs: int
    count: int = field(default=0, init=False)
    total: npt.NDArray[np.float64] = field(init=False)
    second: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        self.total = np.zeros((self.groups, self.outputs))
        self.second = np.zeros((self.groups, self.outputs, self.outputs))

    def add(self, values: npt.NDArray[Any], most: int) -> None:
        """Take in what a convolution made, (batch, channels, *sizes), at so many places at most."""
        rows = np.moveaxis(values, 1, -1).reshape(-1, self.groups, self.outputs)
        evenly = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)
        rows = np.moveaxis(rows[evenly].astype(np.float64), 1, 0)
        self.count += len(evenly)
        self.total += rows.sum(axis=1)
        self.second += rows.transpose(0, 2, 1) @ rows

    def covariance(self, group: int) -> npt.NDArray[np.float64] | None:
        """Return the covariance of a group, (outputs, outputs); None: nothing was seen to vary."""
        mean = self.total[group] / max(1, self.count)
        found: npt.NDArray[np.float64] = self.second[group] / max(1, self.count)
        found = found - np.outer(mean, mean)
        is_known = np.isfinite(found).all() and float(np.trace(found)) > _NOTHING
        return found if is_known else None


@dataclass(slots=True)
class Moments:
    """Sums over all places that were seen.

    Products are summed of what is left about the first mean: about zero, what varies little beside
    a large mean would be lost in the rounding.

    Attributes:
        layer: The layer.
        is_full: Whether places inside of the kernel are told apart; else only channels are.
        count: Places.
        total: (groups, inputs, kernel places): the sum.
        origin: (groups, n): the mean of what was added first; n is inputs x kernel places, or
            inputs.
        second: (groups, n, n): the sum of products about the origin.
        made: What the layer makes, where places are not told apart; else it follows from the rest.
    """

    layer: Layer
    is_full: bool = field(init=False)
    count: int = field(default=0, init=False)
    total: npt.NDArray[np.float64] = field(init=False)
    origin: npt.NDArray[np.float32] = field(init=False)
    second: npt.NDArray[np.float32] = field(init=False)
    made: OutputMoments | None = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        layer, places = self.layer, prod(self.layer.kernel)
        wide = layer.inputs * places
        self.is_full = layer.groups * wide**2 <= MOST_ELEMENTS
        size = wide if self.is_full else layer.inputs
        self.total = np.zeros((layer.groups, layer.inputs, places))
        self.origin = np.zeros((layer.groups, size), np.float32)
        self.second = np.zeros((layer.groups, size, size), np.float32)
        self.made = None if self.is_full else OutputMoments(layer.groups, layer.outputs)

    @staticmethod
    def can_be_of(layer: Layer) -> bool:
        """Whether a layer's channels are few enough."""
        return layer.groups * layer.inputs**2 <= MOST_ELEMENTS

    def add(self, patches: npt.NDArray[np.float32]) -> None:
        """Take places in, (groups, places, inputs, *kernel).

        Raises:
            InputError: what the layer sees is no finite number.
        """
        groups, count, inputs = patches.shape[:3]
        flat = patches.reshape(groups, count, inputs, -1)
        with np.errstate(over="ignore", invalid="ignore"):  # said below
            self.total += flat.sum(axis=1, dtype=np.float64)
            if not self.is_full:
                # Each place inside of the kernel counts as a place of its own.
                flat = np.moveaxis(flat, 3, 2)
            rows = flat.reshape(groups, -1, self.second.shape[1])
            if not self.count and count:
                self.origin = rows.mean(axis=1, dtype=np.float64).astype(np.float32)
            self.count += count
            rows = rows - self.origin[:, np.newaxis]
            self.second += rows.transpose(0, 2, 1) @ rows
        if not np.isfinite(np.einsum("gii->", self.second)):
            raise InputError(
                f"layer {self.layer.name!r} sees values on the samples that are not finite, or so "
                "large that their squares are not; give other samples, or decompose by the "
                "weights alone (--plain)"
            )

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """The mean, (groups, inputs, kernel places)."""
        return self.total / max(1, self.count)

    def covariance(self, group: int, *, centred: bool) -> npt.NDArray[Any]:
        """Return the second moment of a group, about the mean or about zero, made invertible.

        It is in the mean square of all groups: factors do not depend on that scale, and in float16
        they could not hold it. Few places do not span all directions. What they do not show is
        taken to vary a little, equally in all directions, the less the more places there are. Where
        nothing varies at all, all directions are alike.
        """
        size = self.second.shape[1]
        scale = float(np.mean([self._squares(each, centred) for each in range(len(self.second))]))
        if scale < _NOTHING:
            return np.eye(size)
        mean, origin = self._means(group)
        found: npt.NDArray[Any] = self.second[group].astype(np.float64) / self._places
        found -= np.outer(mean - origin, mean - origin)
        if not centred:
            found += np.outer(mean, mean)
        found /= scale
        level = max(float(np.trace(found)) / size, 1e-6)
        # In float32 a sum of many products is exact to about 1e-6 of its size.
        few = 0.02 * size / self._places
        shrink = 1e-5 + min(0.5, few)
        found *= 1 - shrink
        found[np.diag_indices(size)] += shrink * level
        return found

    @property
    def _places(self) -> int:
        return max(1, self.count * (1 if self.is_full else prod(self.layer.kernel)))

    def _means(self, group: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the mean of what products were summed of, and their origin."""
        mean = self.mean[group]
        mean = mean.reshape(-1) if self.is_full else mean.mean(axis=1)
        return mean, self.origin[group].astype(np.float64)

    def _squares(self, group: int, centred: bool) -> float:
        """Return the mean square of a group, about the mean or about zero."""
        mean, origin = self._means(group)
        found = np.diagonal(self.second[group]).astype(np.float64) / self._places
        found = np.maximum(found - (mean - origin) ** 2, 0.0)
        return float((found if centred else found + mean**2).mean())


def _drawn(count: int, most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    if count <= most:
        return np.arange(count)
    return np.sort(rng.choice(count, most, replace=False))


def _same(size: int, kernel: int, stride: int, dilation: int, *, upper: bool) -> tuple[int, int]:
    needed = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size
    less, more = max(0, needed) // 2, max(0, needed) - max(0, needed) // 2
    return (less, more) if upper else (more, less)
