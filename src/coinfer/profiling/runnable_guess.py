"""Runnable guess: which of several inputs a model runs with, by trying one after the other.

Rule: operators tell only part of what sizes a model takes. So where sizes are guessed, the guesses
are tried on one processor of each library, in their order, until one runs. It is kept which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.loading import load
from coinfer.backends.patience import HangError
from coinfer.errors import CoinferError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement
from coinfer.model import Model
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.profiling.patient_sessions import PatientSession, running

__all__ = ["first_that_runs"]


def first_that_runs(
    model: Model,
    processors: Sequence[Processor],
    backends: Mapping[str, Backend],
    known: Mapping[str, int],
    feeds: Callable[[], Iterable[Tensors]],
    cache: ProfileCache | None = None,
) -> int | None:
    """Return the number of the first inputs that a model runs with; None if it runs with none.

    Args:
        model: A model whose open dimensions are guessed.
        processors: Where it may be run to find out.
        backends: By name.
        known: Sizes of those open dimensions that are not guessed.
        feeds: Makes the inputs anew, one after the other.
        cache: Where to look first and to keep the answer.
    """
    tried: set[str] = set()
    for processor in processors:
        backend = backends[processor.backend]
        versions = dict(backend.versions())
        if processor.precision != "fp32" or processor.backend in tried or not versions:
            continue
        tried.add(processor.backend)
        parts = {
            "runnable guess": fingerprint_of(model, cache).full,
            "known": dict(known),
            "versions": {processor.backend: versions},
        }
        kept = None if cache is None else cache.get(parts)
        if kept is not None and kept.seconds[0] >= 1:  # else the file is damaged
            return round(kept.seconds[0]) - 1
        found = _tried(model, backend, processor, feeds())
        if found is not None:
            if cache is not None:  # a cache keeps seconds, which are larger than 0
                cache.put(parts, Measurement(seconds=(found + 1.0,)))
            return found
    return None


def _tried(
    model: Model, backend: Backend, processor: Processor, feeds: Iterable[Tensors]
) -> int | None:
    try:
        session = PatientSession(load(backend, model, processor), running(model, processor))
    except CoinferError:
        return None
    with closing(session):
        for number, feed in enumerate(feeds):
            try:
                session.run(feed)
            except HangError:
                return None
            except Exception:  # noqa: BLE001 - a session is foreign code
                continue
            return number
    return None
