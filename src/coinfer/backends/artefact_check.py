"""Artefact check: whether what a library wrote down computes what it was written from."""

from __future__ import annotations

from collections.abc import Iterator

from coinfer.backends.base import Session, Tensors
from coinfer.errors import CoinferError
from coinfer.model import Model
from coinfer.model.size_guess import guessed_sizes

__all__ = ["differs"]

_SEEDS = (1, 2)


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


def _inputs(model: Model) -> Iterator[Tensors]:
    """Yield what the model can be run with; the first sizes that it takes."""
    for sizes in guessed_sizes(model, {}):
        try:
            yield from [model.sample_inputs(seed=seed, dims=sizes) for seed in _SEEDS]
        except CoinferError:
            continue
        return
