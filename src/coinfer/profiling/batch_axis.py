"""Batch axis: find out whether a model's open first axis really counts samples.

Rule: it does if two samples together give what they give apart. Sequences, lists of boxes or
points have an open first axis, too, and what is computed of one entry depends on the others. It is
found out once per model and library, and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np

from coinfer.backends.base import Backend, Session, Tensors
from coinfer.backends.loading import load
from coinfer.errors import CoinferError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement
from coinfer.model import Model
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.error import relative_error
from coinfer.profiling.fingerprints import fingerprint_of

__all__ = ["counts_samples"]

_TOLERANCE = 0.05
"""Together may be computed in another order; what is no batch differs by far more."""


def counts_samples(
    model: Model,
    processors: Sequence[Processor],
    backends: Mapping[str, Backend],
    samples: Sequence[Tensors],
    cache: ProfileCache | None = None,
) -> bool:
    """Tell whether the open first axis of a model is the batch.

    Args:
        model: A model with a `batch_symbol`.
        processors: Where it may be run to find out: in fp32, on the first that can.
        backends: By name.
        samples: Two different ones of batch 1.
        cache: Where to look first and to keep the answer.

    Returns:
        True also if no processor can run one of the samples alone: then nothing is known.
    """
    for processor in processors:
        backend = backends[processor.backend]
        versions = dict(backend.versions())
        # What states no versions cannot be told from another one of the name: nothing can be kept.
        if processor.precision != "fp32" or not versions:
            continue
        parts = {
            "batch_axis": fingerprint_of(model, cache).full,
            "shapes": [list(sample[n].shape) for sample in samples for n in sorted(sample)],
            "versions": {processor.backend: versions},
        }
        known = None if cache is None else cache.get(parts)
        if known is not None:
            return known.seconds[0] > 0
        found = _found_out(model, backend, processor, samples)
        if found is None:
            continue
        if cache is not None:
            cache.put(parts, Measurement(seconds=(float(found),)))
        return found
    return True


def _found_out(
    model: Model, backend: Backend, processor: Processor, samples: Sequence[Tensors]
) -> bool | None:
    """Run two samples apart and together; None if not even one of them runs."""
    try:
        session = load(backend, model, processor)
    except CoinferError:
        return None
    with closing(session):
        try:
            apart = [session.run(sample) for sample in samples]
        except Exception:  # noqa: BLE001 - a session is foreign code
            return None
        return _agree(session, model, samples, apart)


def _agree(
    session: Session, model: Model, samples: Sequence[Tensors], apart: Sequence[Tensors]
) -> bool:
    batched = model.input_check.batched
    stacked = {
        name: np.concatenate([sample[name] for sample in samples]) if name in batched else value
        for name, value in samples[0].items()
    }
    outputs = [{name: np.asarray(value) for name, value in one.items()} for one in apart]
    if not any(np.any(value) for one in outputs for value in one.values()):
        return True  # zeros tell nothing
    try:
        together = session.run(stacked)
    except Exception:  # noqa: BLE001 - it takes one at a time only
        return False
    expected = {}
    for name, value in outputs[0].items():
        if value.ndim == 0 or any(one[name].shape[1:] != value.shape[1:] for one in outputs):
            return False
        expected[name] = np.concatenate([one[name] for one in outputs])
    found = {name: np.asarray(value) for name, value in together.items()}
    return all(_is_near(found[name], value) for name, value in expected.items())


def _is_near(
    found: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    expected: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
) -> bool:
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind not in "fV":
        return bool(np.mean(found == expected) > 1 - _TOLERANCE) if expected.size else True
    return relative_error([{"": found}], [{"": expected}]) <= _TOLERANCE
