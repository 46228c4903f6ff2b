"""Batch axis: find out whether a model's open first axis really counts samples.

Rule: it does if two samples together give what they give apart. Sequences, lists of boxes or
points have an open first axis, too, and what is computed of one entry depends on the others. It is
found out once per model and library, and kept: by how much the answers differ. Inputs without the
batch, such as a threshold, are the same for both samples. A first axis that the file fixes is tried
with as many different samples as it has room for: each must get, at its place among the others,
what a run full of its copies gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing

import numpy as np

from coinfer.backends.base import Backend, Session, Tensors
from coinfer.backends.loading import load
from coinfer.backends.patience import HangError
from coinfer.errors import CoinferError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement
from coinfer.model import Model
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.error import relative_error
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.profiling.patient_sessions import PatientSession, running

__all__ = ["Pairs", "company_error", "counts_samples"]

Pairs = Callable[[], Iterable[Sequence[Tensors]]]
"""Makes pairs of samples of equal sizes; the first that runs tells."""

_LARGEST = 1e9
"""A larger difference is kept as infinite: JSON has no number for that."""

_TOLERANCE = 0.05
"""Together may be computed in another order; what is no batch differs by far more."""


def counts_samples(
    model: Model,
    processors: Sequence[Processor],
    backends: Mapping[str, Backend],
    pairs: Pairs,
    cache: ProfileCache | None = None,
) -> bool:
    """Tell whether the open first axis of a model is the batch.

    Args:
        model: A model with a `batch_symbol`.
        processors: Where it may be run to find out: in fp32, on the first that can.
        backends: By name.
        pairs: Two different samples of batch 1; more pairs, of other sizes, are tried where
            the first does not run.
        cache: Where to look first and to keep the answer.

    Returns:
        True also if no processor can run a pair apart: then nothing is known. Of a fixed batch
        that is to be filled up, False.
    """
    error = company_error(model, processors, backends, pairs, cache)
    return not model.filling if error is None else error <= _TOLERANCE


def company_error(
    model: Model,
    processors: Sequence[Processor],
    backends: Mapping[str, Backend],
    pairs: Pairs,
    cache: ProfileCache | None = None,
) -> float | None:
    """Return by how much two samples together differ from what they give apart.

    Arguments are those of `counts_samples`.

    Returns:
        The largest ||together - apart|| / ||apart|| over outputs and samples; of other types than
        floats the share of values that differ. Infinite where that cannot even be compared. None
        if no processor can run a pair apart.
    """
    first = next(iter(pairs()), None)
    if first is None:
        return None
    shared = [name for name in sorted(first[0]) if name not in model.input_check.batched]
    for processor in processors:
        backend = backends[processor.backend]
        versions = dict(backend.versions())
        # What states no versions cannot be told from another one of the name: nothing can be kept.
        if processor.precision != "fp32" or not versions:
            continue
        parts = {
            "company": fingerprint_of(model, cache).full,
            "shapes": [list(sample[n].shape) for sample in first for n in sorted(sample)],
            "versions": {processor.backend: versions},
            **({"shared": shared} if shared else {}),
            **({"filling": model.filling} if model.filling else {}),
        }
        known = None if cache is None else cache.get(parts)
        if known is not None:
            return math.inf if known.seconds[0] > _LARGEST else known.seconds[0]
        found = _found_out(model, backend, processor, pairs())
        if found is None:
            continue
        if cache is not None:
            cache.put(parts, Measurement(seconds=(min(found, 2 * _LARGEST),)))
        return found
    return None


def _found_out(
    model: Model, backend: Backend, processor: Processor, pairs: Iterable[Sequence[Tensors]]
) -> float | None:
    """Run the first pair that can be run, apart and together; None if there is none."""
    try:
        session = PatientSession(load(backend, model, processor), running(model, processor))
    except CoinferError:
        return None
    with closing(session):
        for pair in pairs:
            samples = _sharing(model, pair)
            try:
                apart = [session.run(sample) for sample in samples]
            except HangError:
                return None
            except Exception:  # noqa: BLE001 - a session is foreign code
                continue
            try:
                return _difference(session, model, samples, apart)
            except HangError:
                return None
    return None


def _sharing(model: Model, pair: Sequence[Tensors]) -> Sequence[Tensors]:
    """Give all samples those inputs of the first that do not have the batch in front."""
    own = model.input_check.batched
    return [{n: one[n] if n in own else value for n, value in pair[0].items()} for one in pair]


def _difference(
    session: Session, model: Model, samples: Sequence[Tensors], apart: Sequence[Tensors]
) -> float:
    batched = model.input_check.batched
    stacked = {
        name: np.concatenate([sample[name] for sample in samples]) if name in batched else value
        for name, value in samples[0].items()
    }
    outputs = [{name: np.asarray(value) for name, value in one.items()} for one in apart]
    if not any(np.any(value) for one in outputs for value in one.values()):
        # Zeros tell nothing: an open first axis is then believed to be the batch, a fixed one not.
        return math.inf if model.filling else 0.0
    try:
        together = session.run(stacked)
    except HangError:
        raise
    except Exception:  # noqa: BLE001 - it takes one at a time only
        return math.inf
    worst = 0.0
    for name, value in outputs[0].items():
        if value.ndim == 0 or any(one[name].shape[1:] != value.shape[1:] for one in outputs):
            return math.inf
        found, first = np.asarray(together[name]), 0
        if found.shape[:1] != (sum(len(one[name]) for one in outputs),):
            return math.inf
        for one in outputs:
            own = found[first : first + len(one[name])]
            worst = max(worst, _error(own, one[name]))
            first += len(one[name])
    return worst


def _error(
    found: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    expected: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
) -> float:
    if found.shape != expected.shape:
        return math.inf
    if expected.dtype.kind not in "fV":
        return float(np.mean(found != expected)) if expected.size else 0.0
    return relative_error([{"": found}], [{"": expected}])
