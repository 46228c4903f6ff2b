"""Padding: which open axes requests may be padded along, so that those of unequal sizes share runs.

Only along axes that the user names, and only where a padded request was found to get what it gets
alone: a short and a long sample are run alone, and together, as the engine runs them. Of a sequence
that takes a mask, ids may be padded with anything and the mask with 0; one that averages over its
length must not be padded at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np

from coinfer.backends.base import Backend, Session, Tensors
from coinfer.backends.loading import load
from coinfer.errors import CoinferError, ConfigurationError, UnknownNameError
from coinfer.graph.cut_model import CutModel
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile
from coinfer.machine.span import Span
from coinfer.model import Model, TensorSpec
from coinfer.model.inputs import open_axes
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.error import relative_error
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.profiling.patient_sessions import PatientSession, running
from coinfer.runtime.span_io import span_ios_of
from coinfer.runtime.span_run import run_span
from coinfer.workload.batch_spec import BatchSpec

__all__ = ["padding_error", "settled_padding"]

_LARGEST = 1e9
"""A larger difference is kept as infinite."""


def settled_padding(model: Model, spec: BatchSpec) -> dict[str, dict[str, float]]:
    """Return by open dimension what each input is padded with along it.

    Args:
        model: The model.
        spec: Names dimensions, or inputs with one open axis beside the batch.

    Raises:
        UnknownNameError: it has no such open dimension, or no such input has it.
        ConfigurationError: an input cannot hold what it is to be padded with.
    """
    having: dict[str, list[str]] = {name: [] for name in model.open_dims}
    for each in model.inputs:
        for _, symbol in open_axes(each):
            if symbol in having:
                having[symbol].append(each.name)
    found: dict[str, dict[str, float]] = {}
    for name, fills in spec.pad.items():
        dim, values = name, dict(fills)
        if name not in having:
            dims = [each for each, inputs in having.items() if name in inputs]
            if len(dims) != 1:
                raise UnknownNameError.of(f"open dimension of {model.name!r}", name, having)
            dim, values = dims[0], {name: fills.get("", 0.0)}
        other = values.pop("", 0.0)
        for of in values:
            if of not in having[dim]:
                raise UnknownNameError.of(
                    f"input of {model.name!r} with the dimension {dim!r}", of, having[dim]
                )
        row = found.setdefault(dim, {})
        for of in having[dim]:
            row[of] = values.get(of, row.get(of, other))
    specs = {spec.name: spec for spec in model.inputs}
    for row in found.values():
        for of, fill in row.items():
            _check_fill(model.name, specs[of], fill)
    return found


def _check_fill(model: str, spec: TensorSpec, fill: float) -> None:
    """Refuse what an input cannot hold: it would be padded with something else.

    Raises:
        ConfigurationError: it says so.
    """
    held = math.nan
    if spec.dtype != object:
        with np.errstate(all="ignore"):
            held = float(np.asarray(fill).astype(spec.dtype))
    if held != fill if spec.dtype.kind in "iub" else not math.isfinite(held):
        raise ConfigurationError(
            f"{model}: input {spec.name!r} of {spec.dtype} cannot be padded with {fill:g}; under "
            "`batch: {pad: ...}`, give a value that it can hold"
        )


def padding_error(
    model: Model,
    processor: Processor,
    backend: Backend,
    sample: Tensors,
    cache: ProfileCache | None = None,
) -> float | None:
    """Return by how much answers differ of samples that are padded to share a run.

    Args:
        model: The model, with its padding.
        processor: Where it is run, in fp32.
        backend: The processor's.
        sample: A sample of batch 1. It is padded to share a run with a random one twice as long.
        cache: Where to look first and to keep the answer.

    Returns:
        The largest ||padded - alone|| / ||alone||. Infinite if they have other shapes. None if the
        samples cannot be made or run alone.
    """
    versions = dict(backend.versions())
    parts = {
        "padding": fingerprint_of(model, cache).full,
        "along": {dim: dict(sorted(row.items())) for dim, row in sorted(model.padding.items())},
        "shapes": [list(sample[name].shape) for name in sorted(sample)],
        "versions": {processor.backend: versions},
    }
    known = None if cache is None or not versions else cache.get(parts)
    if known is not None:
        return math.inf if known.seconds[0] > _LARGEST else known.seconds[0]
    found = _found_out(model, processor, backend, sample)
    if cache is not None and versions and found is not None:
        cache.put(parts, Measurement(seconds=(min(found, 2 * _LARGEST),)))
    return found


def _found_out(
    model: Model, processor: Processor, backend: Backend, sample: Tensors
) -> float | None:
    sizes = model.input_check.sizes_of(sample)
    longer = {dim: 2 * size + 1 if dim in model.padding else size for dim, size in sizes.items()}
    try:
        pair = [sample, model.sample_inputs(seed=1, dims=longer)]
        session = PatientSession(load(backend, model, processor), running(model, processor))
    except CoinferError:
        return None
    with closing(session):
        try:
            alone = [session.run(each) for each in pair]
        except Exception:  # noqa: BLE001 - a session is foreign code
            return None
        return _difference(model, session, pair, alone)


def _difference(
    model: Model, session: Session, pair: Sequence[Tensors], alone: Sequence[Tensors]
) -> float:
    span_io = span_ios_of(CutModel.uncut(model, Profile()))[Span()]
    try:
        together = run_span(session, span_io, pair, [1] * len(pair))
    except Exception:  # noqa: BLE001 - a session is foreign code
        return math.inf
    return max(map(_worst, together, alone))


def _worst(found: Mapping[str, object], expected: Tensors) -> float:
    worst = 0.0
    for name, value in expected.items():
        own = np.asarray(found[name])
        if own.shape != value.shape:
            return math.inf
        if value.dtype.kind in "fV":
            worst = max(worst, relative_error([{"": own}], [{"": np.asarray(value)}]))
        elif value.size:
            worst = max(worst, float(np.mean(own != value)))
    return worst if worst == worst else math.inf
