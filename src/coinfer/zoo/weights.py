"""Random weights that are a function of (network, seed, tensor name) and drawn on first use.

Drawing late makes a network's structure, parameter count and cost available in milliseconds.
Knows nothing of operators or of how large weights should be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["Array", "Draw", "seeded_tensor"]

Array = npt.NDArray[np.float32]

Draw: TypeAlias = Callable[[np.random.Generator], Array]
"""Draws the values of one tensor."""


def seeded_tensor(
    network: str, seed: int, name: str, shape: Sequence[int], draw: Draw
) -> ir.LazyTensor:
    """Make a float32 tensor of a network, whose values are drawn when somebody asks for them.

    Each tensor has its own generator, so its values do not depend on which others were drawn
    before it, and equal seeds give equal bits.
    """

    def evaluate() -> ir.Tensor[Any]:
        digest = hashlib.blake2b(f"{network}/{seed}/{name}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))
        return ir.Tensor(draw(generator), name=name)

    return ir.LazyTensor(
        evaluate, dtype=ir.DataType.FLOAT, shape=ir.Shape(shape), cache=True, name=name
    )
