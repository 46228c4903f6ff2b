"""Error: how far a model's outputs are off those of its original, wherever they are furthest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.loading import load
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling.error import gaps
from coinfer.profiling.reference import REFERENCE

__all__ = ["largest_error", "worst_error"]


def largest_error(outputs: Sequence[Tensors], originals: Sequence[Tensors]) -> float:
    """Return the largest ||out - ref|| / ||ref|| over outputs and samples.

    Infinite if whole numbers or texts, such as the number of a class, are not equal, if an output
    has another shape, or is not finite where that of the original is.

    >>> import numpy as np
    >>> largest_error([{"class": np.array([998])}], [{"class": np.array([999])}])
    inf
    """
    return max(gaps(outputs, originals).values(), default=0.0)


def worst_error(
    model: Model,
    feeds: Sequence[Tensors],
    originals: Sequence[Tensors],
    processors: Sequence[Processor],
    backends: Mapping[str, Backend],
) -> float:
    """Return the largest ||out - ref|| / ||ref|| over outputs, samples and kinds of processors.

    Args:
        model: What is judged.
        feeds: Samples.
        originals: The outputs of the original on these, as the reference computes them in fp32.
        processors: Where the model is run beside the reference, once per kind.
        backends: By name, with that of the reference.

    Raises:
        BackendError: the model does not run on one of them.
    """
    kinds = {(each.backend, each.device, each.precision): each for each in (*processors, REFERENCE)}
    errors = []
    for processor in kinds.values():
        with closing(load(backends[processor.backend], model, processor)) as session:
            made = [dict(session.run(feed)) for feed in feeds]
        errors.append(largest_error(made, originals))
    return max(errors)
