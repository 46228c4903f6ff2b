"""Whitened factors: decompose a layer so that its outputs, not its weights, stay what they are.

The error is ||(W - W~) S^1/2|| with S the second moment of what the filters see. For matrices its
minimum is the truncated SVD of W S^1/2 (SVD-LLM, arXiv 2403.07378, section 3.1; here the mean is
taken out and put into the bias). For convolutions the input factor comes from the weight whitened
by the channels' moment; given that, the output factor and the core are the best there are
(reduced-rank regression, Izenman 1975), and both take turns (cf. arXiv 2511.04494, section 4).
Where filters are too wide for a moment of all that they see, the output factor is the principal
directions of the outputs (as of Zhang et al., arXiv 1505.06798, section 3.1). Runs nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coinfer.graph.compressing.factors import Array, Factors, split_matrix, top_vectors, tucker
from coinfer.graph.compressing.layer import Ranks
from coinfer.graph.compressing.moments import Moments
from coinfer.graph.compressing.spectrum import Spectrum

__all__ = ["Whitener"]

_TURNS = 3


class _Group(NamedTuple):
    """One group of channels.

    Attributes:
        weight: (outputs, inputs, kernel places).
        moment: (inputs x places, same), or (inputs, inputs) if places are not told apart.
        root: Cholesky factor of the channels' moment: root @ root.T.
        made: (outputs, outputs): the covariance of the outputs, as it was seen; None: it follows
            from the moment.
    """

    weight: Array
    moment: Array
    root: Array
    made: Array | None

    @classmethod
    def of(cls, weight: Array, moment: Array, made: Array | None) -> _Group:
        flat = weight.reshape(*weight.shape[:2], -1)
        _, inputs, places = flat.shape
        channels = moment
        if len(moment) != inputs:
            by_place = moment.reshape(inputs, places, inputs, places)
            channels = np.einsum("ipjp->ij", by_place) / places
        return cls(flat, moment, np.linalg.cholesky(channels), made)

    def seen(self, weight: Array) -> Array:
        """Multiply a weight by the moment, (outputs, inputs, places)."""
        if len(self.moment) == weight.shape[1]:
            seen: Array = np.einsum("oip,ij->ojp", weight, self.moment, optimize=True)
            return seen
        flat: Array = weight.reshape(len(weight), -1) @ self.moment
        return flat.reshape(weight.shape)

    def squared(self, weight: Array) -> float:
        """Return the mean square of what a weight makes, summed over its outputs."""
        return float((self.seen(weight) * weight).sum())


class Whitener:
    """Decomposes one layer by what its inputs are like.

    Args:
        weight: (groups, outputs, inputs, *kernel).
        moments: Of its inputs.
        shifts: Whether the bias can take up the mean.
    """

    def __init__(self, weight: Array, moments: Moments, *, shifts: bool) -> None:
        self._weight = weight
        self._shifts = shifts
        self._mean = moments.mean
        self._groups = [
            _Group.of(each, moments.covariance(at, centred=shifts), _made(moments, at))
            for at, each in enumerate(weight)
        ]

    def factors(self, ranks: Ranks) -> Factors:
        """Decompose at these ranks."""
        is_matrix = ranks.outputs is None and np.prod(self._weight.shape[3:]) == 1
        decompose = _matrix if is_matrix else _tensor
        inputs, cores, outputs = zip(
            *(decompose(group, ranks) for group in self._groups), strict=True
        )
        kernel = self._weight.shape[3:]
        found = Factors(
            inputs=None if inputs[0] is None else np.stack(inputs),
            core=np.stack([core.reshape(*core.shape[:2], *kernel) for core in cores]),
            outputs=None if outputs[0] is None else np.stack(outputs),
        )
        if not self._shifts:
            return found
        lost = (self._weight - found.weight).reshape(*self._weight.shape[:3], -1)
        return found._replace(shift=np.einsum("goip,gip->go", lost, self._mean).reshape(-1))

    @property
    def spectrum(self) -> Spectrum:
        """The spectrum of the weight as its inputs see it."""
        weights = [
            np.einsum("oip,ij->ojp", group.weight, group.root, optimize=True)
            for group in self._groups
        ]
        found = Spectrum.of(np.stack(weights))
        made = [group.made for group in self._groups if group.made is not None]
        if len(made) < len(self._groups):
            return found
        values = np.linalg.eigvalsh(np.stack(made))[:, ::-1].clip(0.0).sum(axis=0)
        return found._replace(outputs=values * found.inputs.sum() / values.sum())


def _made(moments: Moments, group: int) -> Array | None:
    return None if moments.made is None else moments.made.covariance(group)


def _principal(covariance: Array, rank: int) -> Array:
    """Return the directions in which most of it lies, (outputs, rank)."""
    return np.asarray(np.linalg.eigh(covariance)[1][:, ::-1][:, :rank])


def _matrix(group: _Group, ranks: Ranks) -> tuple[Array | None, Array, Array | None]:
    if ranks.inputs is None:
        return None, group.weight, None
    left = top_vectors(group.weight[:, :, 0] @ group.root, ranks.inputs)
    first, core = split_matrix(group.weight, left)
    return first, core, None


def _tensor(group: _Group, ranks: Ranks) -> tuple[Array | None, Array, Array | None]:
    if ranks.inputs is None:
        core, outputs = _regressed(group, None, ranks.outputs)
        return None, core, outputs
    whitened = np.einsum("oip,ij->ojp", group.weight, group.root, optimize=True)
    right, _, _ = tucker(whitened, ranks)
    best: tuple[float, Array, Array, Array | None] | None = None
    for _ in range(_TURNS):
        assert right is not None
        inputs = np.linalg.solve(group.root.T, right)
        core, outputs = _regressed(group, inputs, ranks.outputs)
        made = core if outputs is None else np.einsum("ot,trp->orp", outputs, core)
        lost = group.weight - np.einsum("orp,ir->oip", made, inputs, optimize=True)
        error = group.squared(lost)
        if best is None or error < best[0]:
            best = (error, inputs, core, outputs)
        # What the outputs that are left need of the inputs.
        kept = whitened if outputs is None else np.einsum("ot,ojp->tjp", outputs, whitened)
        unfolded = np.moveaxis(kept, 1, 0).reshape(kept.shape[1], -1)
        right = top_vectors(unfolded, ranks.inputs)
        if outputs is None:
            break
    assert best is not None
    return best[1], best[2], best[3]


def _regressed(group: _Group, inputs: Array | None, rank: int | None) -> tuple[Array, Array | None]:
    """Fit the core, and the output factor if it has a rank, to the layer's outputs.

    Args:
        group: The group.
        inputs: (inputs, rank): its input factor; None: there is none.
        rank: Of the outputs.

    Returns:
        The core, (outputs or rank, inputs or rank, places), and the output factor or None.
    """
    outputs, channels, places = group.weight.shape
    basis = np.eye(channels) if inputs is None else inputs
    inner = basis.shape[1]
    is_full = len(group.moment) != channels or places == 1
    cross = np.einsum("oip,ir->orp", group.seen(group.weight), basis, optimize=True)
    if is_full:
        by_place = group.moment.reshape(channels, places, channels, places)
        half = np.einsum("ipjq,jr->iprq", by_place, basis, optimize=True)
        moment = np.einsum("iprq,is->sprq", half, basis, optimize=True)
        moment = moment.reshape(inner * places, inner * places)
        target = cross.reshape(outputs, -1)
    else:  # the same moment at each place
        moment = basis.T @ group.moment @ basis
        target = np.moveaxis(cross, 1, 2).reshape(outputs * places, inner)
    root = np.linalg.cholesky(moment + 1e-9 * np.trace(moment) / len(moment) * np.eye(len(moment)))
    rotated = np.linalg.solve(root, target.T).T  # the fit in coordinates that are not correlated
    fitted = np.linalg.solve(root.T, rotated.T).T
    if not is_full:
        rotated = rotated.reshape(outputs, places * inner)
        fitted = np.moveaxis(fitted.reshape(outputs, places, inner), 1, 2).reshape(outputs, -1)
    if rank is None:
        return fitted.reshape(outputs, inner, places), None
    left = top_vectors(rotated, rank) if group.made is None else _principal(group.made, rank)
    return (left.T @ fitted).reshape(rank, inner, places), left
