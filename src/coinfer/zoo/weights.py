"""Random weights that are a function of (network, seed, tensor name) and drawn on first use.

Drawing late makes a network's structure, parameter count and cost available in milliseconds.
Knows nothing of operators or of how large weights should be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["Array", "SeededWeights"]

Array = npt.NDArray[np.float32]


class SeededWeights:
    """Draws the tensors of one network.

    Each tensor has its own generator, so its values do not depend on which others were drawn
    before it, and equal seeds give equal bits.
    """

    def __init__(self, network: str, seed: int) -> None:
        self.network = network
        self.seed = seed

    def generator(self, tensor: str) -> np.random.Generator:
        """Give the generator of one tensor, always in its initial state."""
        key = f"{self.network}/{self.seed}/{tensor}".encode()
        digest = hashlib.blake2b(key, digest_size=16).digest()
        return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))

    def lazy(
        self, name: str, shape: Sequence[int], draw: Callable[[np.random.Generator], Array]
    ) -> ir.LazyTensor:
        """Make a float32 tensor whose values come from `draw` when somebody asks for them."""

        def evaluate() -> ir.Tensor[Any]:
            return ir.Tensor(draw(self.generator(name)), name=name)

        return ir.LazyTensor(
            evaluate, dtype=ir.DataType.FLOAT, shape=ir.Shape(shape), cache=True, name=name
        )

    def normal(
        self,
        name: str,
        shape: Sequence[int],
        *,
        mean: float = 0.0,
        deviation: float,
        centred: bool = False,
    ) -> ir.LazyTensor:
        """Make a tensor of independent Gaussian values.

        Args:
            name: Name of the tensor.
            shape: Its shape; of filters `(filters, ...)`.
            mean: Mean of one value.
            deviation: Standard deviation of one value.
            centred: Make each filter sum to zero, so that the mean that all channels of a
                rectified input share does not pass. Without it the part of the signal that
                is the same for every input grows with depth until outputs hardly depend on inputs.
        """

        def draw(generator: np.random.Generator) -> Array:
            values = generator.standard_normal(shape, dtype=np.float32)
            if centred:
                values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
            values *= np.float32(deviation)
            values += np.float32(mean)
            return values

        return self.lazy(name, shape, draw)
