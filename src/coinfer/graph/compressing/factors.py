"""Factors: a weight as the product of small ones: Tucker-2 of convolutions, SVD of matrices.

Tucker-2 is that of Kim et al., ICLR 2016 (arXiv 1511.06530), section 3.1, by `tensorly`. All arrays
have the groups of channels as their first axis. Knows no graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.layer import Ranks

__all__ = [
    "Array",
    "Factors",
    "Part",
    "convolution_parts",
    "plain_factors",
    "relative_gap",
    "split_matrix",
    "top_vectors",
    "tucker",
]

Array = npt.NDArray[Any]
"""Of float64, unless it says otherwise."""

_MOST_TURNS = 2
"""Of the alternating least squares. The start, from SVDs, is near the optimum already."""


class Factors(NamedTuple):
    """The parts of a decomposed weight.

    Attributes:
        inputs: (groups, inputs, rank), or None if there is no first part.
        core: (groups, rank or outputs, rank or inputs, *kernel).
        outputs: (groups, outputs, rank), or None if there is no last part.
        shift: (groups * outputs), to be added to the bias; None: nothing.
    """

    inputs: Array | None
    core: Array
    outputs: Array | None
    shift: Array | None = None

    @property
    def weight(self) -> Array:
        """Their product, (groups, outputs, inputs, *kernel): what the layer computes with."""
        weight = self.core
        if self.outputs is not None:
            weight = np.einsum("got,gt...->go...", self.outputs, weight, optimize=True)
        if self.inputs is not None:
            weight = np.einsum("gir,gor...->goi...", self.inputs, weight, optimize=True)
        return weight


class Part(NamedTuple):
    """One of the convolutions that a convolution becomes.

    Attributes:
        name: `first`, `core` or `last`.
        weight: (all outputs, inputs of a group, *kernel).
        is_placed: Whether it has the strides, pads and dilations.
    """

    name: str
    weight: Array
    is_placed: bool


def convolution_parts(factors: Factors) -> list[Part]:
    """Return the convolutions, of as many groups as before, in their order; the last has the bias.

    >>> factors = Factors(np.ones((1, 8, 2)), np.ones((1, 4, 2, 3, 3)), np.ones((1, 6, 4)))
    >>> [(part.name, part.weight.shape, part.is_placed) for part in convolution_parts(factors)]
    [('first', (2, 8, 1, 1), False), ('core', (4, 2, 3, 3), True), ('last', (6, 4, 1, 1), False)]
    """
    ones = (1,) * (factors.core.ndim - 3)
    arrays: list[tuple[str, Array]] = []
    if factors.inputs is not None:
        first = factors.inputs.transpose(0, 2, 1)
        arrays.append(("first", first.reshape(*first.shape, *ones)))
    arrays.append(("core", factors.core))
    if factors.outputs is not None:
        arrays.append(("last", factors.outputs.reshape(*factors.outputs.shape, *ones)))
    # Of a matrix the first part strides, see `Layer.macs`.
    is_matrix = all(size == 1 for size in factors.core.shape[3:])
    placed_at = 0 if is_matrix or factors.inputs is None else 1
    return [
        Part(name, array.reshape(-1, *array.shape[2:]), at == placed_at)
        for at, (name, array) in enumerate(arrays)
    ]


def relative_gap(weight: Array, other: Array) -> float:
    """Return ||other - weight|| / ||weight||; for a weight of zeros ||other||."""
    size = float(np.linalg.norm(weight))
    gap = float(np.linalg.norm(other - weight))
    return gap / size if size > 0 else gap


def plain_factors(weight: Array, ranks: Ranks) -> Factors:
    """Decompose a weight so that it is as near to itself as can be; inputs are not looked at.

    Args:
        weight: (groups, outputs, inputs, *kernel).
        ranks: Those wanted.

    Raises:
        ConfigurationError: `tensorly` is not installed.
    """
    each = [_group_factors(group, ranks) for group in weight]
    inputs, cores, outputs = zip(*each, strict=True)
    return Factors(
        inputs=None if inputs[0] is None else np.stack(inputs),
        core=np.stack(cores),
        outputs=None if outputs[0] is None else np.stack(outputs),
    )


def _group_factors(weight: Array, ranks: Ranks) -> tuple[Array | None, Array, Array | None]:
    if np.prod(weight.shape[2:]) > 1 or ranks.outputs is not None:
        return tucker(weight, ranks)
    assert ranks.inputs is not None
    left = top_vectors(weight.reshape(len(weight), -1), ranks.inputs)
    first, core = split_matrix(weight, left)
    return first, core, None


def split_matrix(weight: Array, left: Array) -> tuple[Array, Array]:
    """Project a matrix onto orthonormal columns; return the first part and the core.

    Args:
        weight: (outputs, inputs, *ones).
        left: (outputs, rank).
    """
    first = weight.reshape(len(weight), -1).T @ left
    ones = (1,) * (weight.ndim - 2)
    return first, left.reshape(*left.shape, *ones)


def top_vectors(matrix: Array, rank: int) -> Array:
    """Return the left singular vectors of the largest singular values, (rows, rank)."""
    rows, columns = matrix.shape
    if rows <= columns:
        return np.asarray(np.linalg.eigh(matrix @ matrix.T)[1][:, ::-1][:, :rank])
    values, right = np.linalg.eigh(matrix.T @ matrix)
    # Rotated columns are orthogonal, but small ones are not exactly so: make them.
    rotated = matrix @ right[:, ::-1][:, : min(rank, len(values))]
    return np.asarray(np.linalg.qr(rotated)[0])


def tucker(weight: Array, ranks: Ranks) -> tuple[Array | None, Array, Array | None]:
    """Decompose one group; return the factor of the inputs, the core, and that of the outputs.

    The factors have orthonormal columns.
    """
    wanted = {0: ranks.outputs, 1: ranks.inputs}
    modes = [mode for mode, rank in wanted.items() if rank is not None]
    if not modes:
        return None, weight, None
    (core, factors), _ = _partial_tucker()(
        np.ascontiguousarray(weight),
        rank=[wanted[mode] for mode in modes],
        modes=modes,
        n_iter_max=_MOST_TURNS,
        svd=_left_svd,
    )
    by_mode = dict(zip(modes, factors, strict=True))
    return by_mode.get(1), core, by_mode.get(0)


def _left_svd(matrix: Array, n_eigenvecs: int, **_: object) -> tuple[Array, Array, Array]:
    """Return a truncated SVD by the smaller Gram matrix, for `tensorly`, which needs U alone.

    Of unfoldings, which are wide, that takes a tenth of the time of an SVD.
    """
    left = top_vectors(matrix, n_eigenvecs)
    right = left.T @ matrix
    sizes: Array = np.linalg.norm(right, axis=1)
    return left, sizes, right / np.maximum(sizes, np.finfo(float).tiny)[:, np.newaxis]


@cache
def _partial_tucker() -> Callable[..., Any]:
    try:
        from tensorly.decomposition import partial_tucker
    except ImportError as error:
        raise ConfigurationError(
            "decomposing layers needs tensorly, which cannot be imported "
            f"({error}); install it: pip install 'coinfer[compress]'"
        ) from error
    found: Callable[..., Any] = partial_tucker
    return found
