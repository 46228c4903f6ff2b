"""Layer: a convolution or dense layer that can be decomposed, and what it costs at which ranks.

Knows sizes; reads no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import NamedTuple

from coinfer.errors import ConfigurationError

__all__ = ["WAS", "Kind", "Layer", "Ranks", "check_ranks", "clipped"]


class Kind(Enum):
    """What becomes of a layer: Tucker-2 of a convolution, or the SVD of a matrix."""

    CONVOLUTION = "convolution"
    POINTWISE = "1x1 convolution"
    DENSE = "dense layer"


class Ranks(NamedTuple):
    """How many channels are left between the parts of a decomposed layer, in each group.

    Attributes:
        inputs: Behind the first part, a 1x1 convolution; None: there is no such part.
        outputs: In front of the last part, a 1x1 convolution; None: there is no such part.

    A matrix has one rank: `Ranks(inputs=8)` makes two layers of it.
    """

    inputs: int | None = None
    outputs: int | None = None

    def __str__(self) -> str:
        """Write both, `-` for a part that there is not."""
        return " ".join("-" if rank is None else str(rank) for rank in self)


WAS = Ranks()
"""No ranks: the layer as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Sizes of one layer.

    Attributes:
        key: The first value that it makes; identifies it in its graph.
        name: What messages call it.
        kind: How it is decomposed.
        groups: Groups of channels, each decomposed by itself.
        inputs: Input channels of a group.
        outputs: Output channels of a group.
        kernel: Sizes of the kernel; none of a dense layer.
        in_places: Positions that it reads (height x width x batch); None if a shape is open.
        out_places: Positions that it writes; None if a shape is open.

    >>> layer = Layer(key="y", name="y", kind=Kind.CONVOLUTION, groups=1, inputs=64, outputs=128,
    ...               kernel=(3, 3), in_places=100, out_places=25)
    >>> layer.parameters(), layer.parameters(Ranks(16, 32))
    (73728, 9728)
    >>> layer.macs(), layer.macs(Ranks(16, 32))
    (1843200, 320000)
    """

    key: str
    name: str
    kind: Kind
    groups: int
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    in_places: int | None
    out_places: int | None

    @property
    def is_matrix(self) -> bool:
        """Whether it has one rank."""
        return self.kind is not Kind.CONVOLUTION

    @property
    def full_ranks(self) -> tuple[int, int]:
        """The ranks at which nothing is lost, of the inputs and of the outputs."""
        places = prod(self.kernel)
        return min(self.inputs, self.outputs * places), min(self.outputs, self.inputs * places)

    def parameters(self, ranks: Ranks = WAS) -> int:
        """Count the elements of its weights, without the bias; without ranks as it is."""
        return sum(self.parts(ranks))

    def macs(self, ranks: Ranks = WAS) -> int | None:
        """Count multiply-accumulate operations; None if a shape is open."""
        if self.in_places is None or self.out_places is None:
            return None
        first, core, last = self.parts(ranks)
        # A strided 1x1 convolution strides in its first part: what it skips nobody needs.
        before = self.out_places if self.is_matrix else self.in_places
        return before * first + self.out_places * (core + last)

    def parts(self, ranks: Ranks) -> tuple[int, int, int]:
        """Count the weights of the first part, of the core and of the last part."""
        inputs = self.inputs if ranks.inputs is None else ranks.inputs
        outputs = self.outputs if ranks.outputs is None else ranks.outputs
        first = 0 if ranks.inputs is None else self.inputs * inputs
        last = 0 if ranks.outputs is None else self.outputs * outputs
        core = prod(self.kernel) * inputs * outputs
        return self.groups * first, self.groups * core, self.groups * last


def clipped(layer: Layer, ranks: Ranks) -> Ranks:
    """Bring ranks into a layer's range: from 1 to what adds nothing any more.

    The core's unfoldings have full rank at most: an input rank is no larger than the output rank
    times the places of the kernel, and the other way round. A matrix has one rank, the smaller.
    """
    most_inputs, most_outputs = layer.full_ranks
    if layer.is_matrix:
        found = [rank for rank in ranks if rank is not None]
        return Ranks(max(1, min(*found, most_inputs)) if found else None)
    places = prod(layer.kernel)
    inputs = None if ranks.inputs is None else max(1, min(ranks.inputs, most_inputs))
    outputs = None if ranks.outputs is None else max(1, min(ranks.outputs, most_outputs))
    if inputs is not None and outputs is not None:
        outputs = min(outputs, inputs * places)
        inputs = min(inputs, outputs * places)
    return Ranks(inputs, outputs)


def check_ranks(layer: Layer, ranks: Ranks) -> None:
    """Refuse ranks that a layer cannot have.

    Raises:
        ConfigurationError: a rank is below 1, or so high that it adds nothing, or a matrix has two.
    """
    if layer.is_matrix and ranks.outputs is not None:
        raise ConfigurationError(
            f"layer {layer.name!r} is a {layer.kind.value} and has one rank; give no output rank"
        )
    within = clipped(layer, ranks)
    sides = zip(("input", "output"), ranks, within, layer.full_ranks, strict=True)
    for side, rank, most, full in sides:
        if rank is not None and rank != most:
            raise ConfigurationError(
                f"layer {layer.name!r}: its {side} rank {rank} is out of range; give 1 to "
                f"{full if rank < 1 else most}"
            )
