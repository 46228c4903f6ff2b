"""Error: how far a model's outputs are off those of its original, wherever they are furthest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.loading import load
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling.error import relative_error
from coinfer.profiling.reference import REFERENCE

__all__ = ["worst_error"]


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
        errors.append(relative_error(made, originals))
    return max(errors)
