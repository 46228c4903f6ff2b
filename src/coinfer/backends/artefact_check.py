"""Artefact check: whether what a library wrote down computes what it was written from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from coinfer.backends.base import Session, Tensor, Tensors
from coinfer.errors import CoinferError
from coinfer.model import Model
from coinfer.model.size_guess import guessed_sizes

__all__ = ["differs", "is_near"]

_SEEDS = (1, 2)

_NEAR = 1e-5
"""What sums of some 25,000 products in fp32 differ by, relative to all of an output, if they are
added in another order: the square root of their number times the rounding of one, 6e-8."""


def differs(model: Model, direct: Session, written: Session) -> str:
    """Run both on the same inputs and compare every bit.

    Inputs are random and of sizes that are guessed where the model leaves them open. If it cannot
    be run with any, e.g. because it takes strings, nothing is compared.

    Returns:
        How they differ; empty if they do not.
    """
    for inputs in _inputs(model):
        expected, got = direct.run(inputs), written.run(inputs)
        for name, value in expected.items():
            same = value.dtype == got[name].dtype and value.shape == got[name].shape
            if not (same and value.tobytes() == got[name].tobytes()):
                return f"output {name!r} differs once it is written down and read again"
    return ""


def is_near(model: Model, direct: Session, other: Session) -> bool:
    """Tell whether two compute the same but for rounding, on the inputs that `differs` takes."""
    for inputs in _inputs(model):
        expected, got = direct.run(inputs), other.run(inputs)
        if not all(_near(value, got[name]) for name, value in expected.items()):
            return False
    return True


def _near(expected: Tensor, got: Tensor) -> bool:
    if expected.dtype.kind != "f" or expected.dtype != got.dtype or expected.shape != got.shape:
        return expected.dtype == got.dtype and np.array_equal(expected, got)
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], got[~finite], equal_nan=True):
        return False
    one, two = (each[finite].astype(np.float64) for each in (expected, got))
    return bool(np.linalg.norm(two - one) <= _NEAR * np.linalg.norm(one))


def _inputs(model: Model) -> Iterator[Tensors]:
    """Yield what the model can be run with; the first sizes that it takes."""
    for sizes in guessed_sizes(model, {}):
        try:
            yield from [model.sample_inputs(seed=seed, dims=sizes) for seed in _SEEDS]
        except CoinferError:
            continue
        return
