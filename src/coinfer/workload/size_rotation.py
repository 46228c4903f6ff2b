"""Size rotation: which sizes the open dimensions of each request have. Knows no model's graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from coinfer.workload.dims_spec import MOST_CHOICES, Dims
from coinfer.workload.input_spec import RandomInputs
from coinfer.workload.scenario import ModelSpec
from coinfer.workload.seeds import Purpose, generator

__all__ = ["rotation_of", "size_rotation"]

_LENGTH = MOST_CHOICES
"""A power of two, so that indices with an odd step between them run through all of it."""


def size_rotation(spec: ModelSpec, name: str, seed: int) -> tuple[Mapping[str, int], ...]:
    """Return the sizes of a model's requests: the k-th has `sizes[k % len(sizes)]`.

    Args:
        spec: The model, as the scenario states it.
        name: Its name; picks its own random numbers.
        seed: The scenario's seed.

    Returns:
        Sizes by dimension: one entry if all are the same, else 1,024, in random order. Each choice
        is among them as often as its weight says, and at least once. Empty if the scenario names no
        sizes.

    >>> spec = ModelSpec.model_validate({"source": "x.onnx", "dims": {"width": {48: 3, 96: 1}}})
    >>> sizes = size_rotation(spec, "rec", seed=0)
    >>> len(sizes), sum(one["width"] == 48 for one in sizes)
    (1024, 768)
    """
    inputs = spec.inputs
    return rotation_of(inputs.dims, name, seed) if isinstance(inputs, RandomInputs) else ()


def rotation_of(dims: Dims, name: str, seed: int) -> tuple[Mapping[str, int], ...]:
    """Return the same of the sizes that are stated."""
    if len(dims) < 2:
        return tuple(choice.sizes for choice in dims)
    seats = _seats([choice.weight for choice in dims])
    order = [c.sizes for c, n in zip(dims, seats, strict=True) for _ in range(n)]
    shuffled = generator(seed, Purpose.SIZES, name).permutation(_LENGTH)
    return tuple(order[at] for at in shuffled)


def _seats(weights: Sequence[Fraction]) -> list[int]:
    """Share the entries out in proportion to the weights, by largest remainders.

    Whoever would get less than one gets one, and the others share what is left: a size that is
    named occurs.
    """
    shares = _shares(dict(enumerate(weights)), _LENGTH)
    while rare := {at for at, share in shares.items() if share < 1}:
        left = {at: weights[at] for at in shares if at not in rare}
        shares = _shares(left, _LENGTH - len(weights) + len(left))
    seats = [int(shares.get(at, 1)) for at in range(len(weights))]
    by_remainder = sorted(shares, key=lambda at: int(shares[at]) - shares[at])
    for at in by_remainder[: _LENGTH - sum(seats)]:
        seats[at] += 1
    return seats


def _shares(weights: Mapping[int, Fraction], entries: int) -> dict[int, Fraction]:
    total = sum(weights.values())
    return {at: entries * weight / total for at, weight in weights.items()}
