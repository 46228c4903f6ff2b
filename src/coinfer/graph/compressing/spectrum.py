"""Spectrum: how much of a weight lies in its first channels, after rotation, on either side.

Squared singular values of the unfoldings along inputs and outputs. Reads weights, changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coinfer.graph.compressing.evbmf import evbmf_rank
from coinfer.graph.compressing.factors import Array
from coinfer.graph.compressing.layer import Ranks

__all__ = ["Spectrum"]


class Spectrum(NamedTuple):
    """Squared singular values, descending, summed over the groups.

    Attributes:
        inputs: Of the unfolding along the inputs.
        outputs: Of that along the outputs.
        sizes: Rows and columns of the unfoldings of a group, inputs first.
    """

    inputs: Array
    outputs: Array
    sizes: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def of(cls, weight: Array) -> Spectrum:
        """Compute it of a weight (groups, outputs, inputs, *kernel)."""
        _, outputs, inputs = weight.shape[:3]
        by_input = np.moveaxis(weight, 2, 1).reshape(len(weight), inputs, -1)
        by_output = weight.reshape(len(weight), outputs, -1)
        return cls(
            inputs=_squares(by_input),
            outputs=_squares(by_output),
            sizes=(by_input.shape[1:], by_output.shape[1:]),
        )

    def lost(self, ranks: Ranks) -> float:
        """Bound the share of the squared weight that is lost at these ranks.

        The truncated Tucker decomposition loses at most the sum of what its sides lose (De
        Lathauwer et al. 2000, property 10).
        """
        total = float(self.inputs.sum())
        if total <= 0:
            return 0.0
        sides = ((self.inputs, ranks.inputs), (self.outputs, ranks.outputs))
        lost = sum(float(values[rank:].sum()) for values, rank in sides if rank is not None)
        return min(1.0, lost / total)

    def with_energy(self, energy: float) -> Ranks:
        """Return the smallest ranks that keep so much of the squares on each side."""
        return Ranks(_enough(self.inputs, energy), _enough(self.outputs, energy))

    def by_evbmf(self) -> Ranks:
        """Return the ranks above the noise, see `evbmf`."""
        return Ranks(
            evbmf_rank(np.sqrt(self.inputs), *self.sizes[0]),
            evbmf_rank(np.sqrt(self.outputs), *self.sizes[1]),
        )


def _squares(unfoldings: Array) -> Array:
    grams = unfoldings @ unfoldings.transpose(0, 2, 1)
    values = np.linalg.eigvalsh(grams)[:, ::-1].clip(0.0)
    return np.asarray(values.sum(axis=0))


def _enough(squares: Array, energy: float) -> int:
    total = squares.sum()
    if total <= 0:
        return 1
    # Rounding must not ask for one more than there are.
    return int(np.searchsorted(np.cumsum(squares) / total, energy - 1e-12) + 1)
