"""Make a model's inputs before the run, so that decoding is off the hot path. Knows no backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any, TypeAlias, assert_never

import numpy as np
import numpy.typing as npt

from coinfer.errors import InputError
from coinfer.model import Model
from coinfer.model.inputs import MOST_BYTES, sample_bytes
from coinfer.units import format_bytes
from coinfer.workload.images import read_images
from coinfer.workload.input_spec import (
    MOST_SAMPLES,
    ArrayInputs,
    ImageInputs,
    InputSpec,
    RandomInputs,
)
from coinfer.workload.npz_file import read_npz
from coinfer.workload.seeds import Purpose, generator
from coinfer.workload.size_rotation import rotation_of

__all__ = ["Feed", "prepare_feeds"]

Feed: TypeAlias = dict[str, npt.NDArray[Any]]
"""Arrays by input name: what one request is submitted with."""


def prepare_feeds(source: InputSpec, model: Model, *, batch: int, seed: int) -> list[Feed]:
    """Prepare a small pool of feeds; the k-th request of a model takes `feeds[k % len(feeds)]`.

    Feeds run through the samples in order, `batch` at a time, until every sample was used equally
    often. Random ones have the sizes of `size_rotation`.

    Args:
        source: Where inputs come from.
        model: What they are for; its name also picks its own random numbers.
        batch: Samples in each feed.
        seed: The scenario's seed.

    Raises:
        InputError: the source cannot be read or does not fit the model.
        ConfigurationError: Pillow is needed and not installed.
    """
    try:
        feeds = _feeds(source, model, batch, seed)
    except InputError as error:
        prefix = f"model {model.name!r}: "
        raise InputError(prefix + str(error).removeprefix(prefix)) from error
    for feed in feeds:
        model.check_inputs(feed)
    feeds = [model.input_check.filled(feed) for feed in feeds]
    if batch > 1 and model.batch_symbol is None:
        _check_fixed_batch(model, batch)
    return feeds


def _feeds(source: InputSpec, model: Model, batch: int, seed: int) -> list[Feed]:
    match source:
        case RandomInputs():
            return _noise(source, model, batch, seed)
        case ImageInputs():
            required = [spec for spec in model.inputs if spec.name not in model.defaults]
            if len(required) != 1:
                raise InputError(
                    f"pictures feed models with one input, this one has {len(required)}; "
                    "use an .npz file"
                )
            [tensor] = required
            return _batches({tensor.name: read_images(source, tensor)}, model, batch)
        case ArrayInputs():
            return _batches(read_npz(source.file), model, batch)
        case _:
            assert_never(source)


def _noise(source: RandomInputs, model: Model, batch: int, seed: int) -> list[Feed]:
    """Make feeds in the sizes of the rotation; equal ones are the same dictionary."""
    rng = generator(seed, Purpose.INPUTS, model.name)
    seeds = [int(one) for one in rng.integers(2**63, size=source.samples)]
    rotation = rotation_of(source.dims, model.name, seed) or ({},)
    if len(rotation) == 1:
        rotation *= len(seeds)
    _check_noise(rotation, model, batch, source.samples)
    feeds: list[Feed] = []
    n_before: Counter[tuple[int, ...]] = Counter()
    made: dict[tuple[int, ...], Feed] = {}
    for dims in rotation:
        sizes = tuple(dims.values())
        sample = n_before[sizes] % len(seeds)
        n_before[sizes] += 1
        if (*sizes, sample) not in made:
            feed = model.sample_inputs(batch=batch, seed=seeds[sample], dims=dims)
            made[*sizes, sample] = feed
        feeds.append(made[*sizes, sample])
    return feeds


def _check_noise(
    rotation: Sequence[Mapping[str, int]], model: Model, batch: int, samples: int
) -> None:
    """Refuse more noise than there may be, before any is made."""
    counts = Counter(tuple(dims.items()) for dims in rotation)
    needed = sum(
        min(count, samples) * sample_bytes(model.input_check, batch=batch, dims=dict(dims))
        for dims, count in counts.items()
    )
    if needed > MOST_BYTES:
        raise InputError(
            f"all random inputs together take more than {format_bytes(MOST_BYTES)}, the most that "
            f"is made for a model; ask for fewer samples, as in `random: 1`, or for smaller sizes"
        )


def _check_fixed_batch(model: Model, batch: int) -> None:
    for spec in model.inputs:
        if not spec.shape or spec.shape[0] != batch:
            raise InputError(
                f"model {model.name!r}: input {spec} does not take batches of {batch}; set "
                "`batch` to what it takes, or export the model with an open first axis"
            )


def _batches(samples: Feed, model: Model, batch: int) -> list[Feed]:
    """Cut samples into feeds; names that the model does not have are left for the check."""
    ranks = {spec.name: len(spec.shape) for spec in model.inputs}
    if model.has_batch is False and all(ranks.get(n) == a.ndim for n, a in samples.items()):
        return [samples]  # the first axis is one of the model's own: this is one sample
    count = _sample_count(samples)
    feeds = count // gcd(count, batch)
    _check_copies(samples, count, batch)
    starts = [number * batch % count for number in range(feeds)]
    return [
        {
            name: _cut(array, start, batch, own_axis=array.ndim == ranks.get(name, 0) + 1)
            for name, array in samples.items()
        }
        for start in starts
    ]


def _check_copies(samples: Feed, count: int, batch: int) -> None:
    """Refuse more samples, or more copies of them in batches that go round, than there may be."""
    if count > MOST_SAMPLES:
        raise InputError(f"there are {count} samples; at most {MOST_SAMPLES} are used, give fewer")
    feeds = count // gcd(count, batch)
    n_around = sum(number * batch % count + batch > count for number in range(feeds))
    each = sum(array.nbytes for array in samples.values() if array.ndim) / count
    if n_around * batch * each > MOST_BYTES:
        raise InputError(
            f"batches of {batch} from {count} samples, which go round, take more than "
            f"{format_bytes(MOST_BYTES)}; let the number of samples be a multiple of the batch"
        )


def _sample_count(samples: Mapping[str, npt.NDArray[Any]]) -> int:
    counts = {name: len(array) for name, array in samples.items() if array.ndim}
    if samples and not counts:
        return 1  # a number is the same in all samples
    if len(set(counts.values())) != 1 or 0 in counts.values():
        listed = ", ".join(f"{name}: {number}" for name, number in counts.items()) or "none"
        raise InputError(
            f"the first axis counts the samples and must be equal for all arrays and not 0; "
            f"it is {listed}"
        )
    return next(iter(counts.values()))


def _cut(array: npt.NDArray[Any], start: int, batch: int, *, own_axis: bool) -> npt.NDArray[Any]:
    """Take `batch` samples from `start` on, round and round; a view where that is possible."""
    if array.ndim == 0:
        return array
    if own_axis and batch == 1:
        # The array has an axis for samples that the model's input does not have.
        return np.asarray(array[start], order="C")  # `ascontiguousarray` gives a number an axis
    if start + batch <= len(array):
        return np.ascontiguousarray(array[start : start + batch])
    return np.take(array, range(start, start + batch), axis=0, mode="wrap")
