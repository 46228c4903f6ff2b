"""Samples: the inputs that models are measured with, of the sizes that will come.

Rule: samples that were given go first, then sizes that were named, then a guess. A guess is stated
once, with all open dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import NamedTuple

from coinfer.backends.base import Tensors
from coinfer.backends.registry import find_backends
from coinfer.errors import CoinferError, UnknownNameError
from coinfer.machine.processor import Processor, ordinary
from coinfer.model import Model
from coinfer.model.inputs import batch_symbol, fixed_first_axis
from coinfer.model.size_guess import guessed_sizes
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.work import Work
from coinfer.profiling import Profiler
from coinfer.profiling.batch_axis import counts_samples
from coinfer.profiling.runnable_guess import first_that_runs

__all__ = [
    "Measurable",
    "Samples",
    "guess_warning",
    "measurable",
    "samples_of",
    "settled_sizes",
    "several_samples",
    "single_samples",
    "two_samples",
    "with_batch_found_out",
    "with_work",
    "work_at",
]

MOST_FILLED = 64
"""A larger fixed first axis is not tried for a batch: it is one of points, boxes or words."""

_SEEDS = 4
"""Random samples of each model."""

_MOST_GIVEN = 16
"""Among so many samples that were given two of equal sizes are looked for."""


class Samples(NamedTuple):
    """The samples of one model.

    Attributes:
        feeds: Inputs, of batch 1 where that is open.
        guessed: Those open dimensions whose sizes were guessed.
    """

    feeds: Sequence[Tensors]
    guessed: Mapping[str, int]


class Measurable(NamedTuple):
    """Models of which it is settled what they are measured with.

    Attributes:
        models: By name, with what is known of their first axes.
        samples: By model.
        warnings: What was found out or guessed.
    """

    models: Mapping[str, Model]
    samples: Mapping[str, Samples]
    warnings: Sequence[str]


def measurable(
    models: Mapping[str, Model],
    processors: Sequence[Processor],
    dims: Mapping[str, int],
    profiler: Profiler,
    given: Mapping[str, Sequence[Tensors]],
    *,
    filled: Collection[str] = (),
) -> Measurable:
    """Settle what models are measured with.

    Args:
        models: By name.
        processors: Where they may be run to find out what their first axes are.
        dims: Sizes of open dimensions by name, for models without samples.
        profiler: Has the cache and the backends.
        given: Samples of the user by model, of batch 1 where that is open.
        filled: Models whose runs may be filled up, where their batch is fixed.

    Raises:
        UnknownNameError: no model has a dimension that is named.
        InputError: a sample does not fit its model.
        ModelError: a model takes strings, and no samples were given.
    """
    named = dict.fromkeys(models, dims)
    settled = with_batch_found_out(models, processors, named, profiler, given, filled=filled)
    given = {
        name: single_samples(settled[name], feeds) if settled[name].filling else feeds
        for name, feeds in given.items()
        if name in settled
    }
    _check_dims(settled.values(), dims)
    samples = {
        name: samples_of(each, given.get(name), dims, processors, profiler)
        for name, each in settled.items()
    }
    warnings = [
        warning
        for name, model in settled.items()
        for warning in (_no_batch_warning(model), guess_warning(name, samples[name].guessed))
        if warning is not None
    ]
    return Measurable(settled, samples, warnings)


def guess_warning(name: str, guessed: Mapping[str, int]) -> str | None:
    """Say that sizes of a model were guessed; None if none were."""
    if not guessed:
        return None
    sizes = ", ".join(f"{dim}={size}" for dim, size in guessed.items())
    written = ", ".join(f"{dim}: {size}" for dim, size in guessed.items())
    options = " ".join(f"--dim {dim}={size}" for dim, size in guessed.items())
    return (
        f"{name}: nobody said how large its open dimensions are, so it is measured at a guess: "
        f"{sizes}; say it with `dims: {{{written}}}` in a scenario, {options} on the command line, "
        f"or an input of the right sizes in Python: Engine(..., samples={{{name!r}: INPUTS}})"
    )


def _check_dims(models: Iterable[Model], dims: Mapping[str, int]) -> None:
    """Refuse a size of a dimension that no model leaves open.

    Raises:
        UnknownNameError: there is no such dimension.
    """
    known = {name for model in models for name in model.open_dims}
    for name in dims:
        if name not in known:
            raise UnknownNameError.of("open dimension", name, sorted(known))


def settled_sizes(
    model: Model, named: Mapping[str, int], processors: Sequence[Processor], profiler: Profiler
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the sizes of all open dimensions, and which of them are guessed.

    Of the guesses it is the first that runs, or the likeliest where none does.

    Args:
        model: A model.
        named: Sizes by name, perhaps also of dimensions of other models.
        processors: Where it may be run to find out.
        profiler: Has the cache and the backends.

    Raises:
        ModelError: it takes strings: nobody can make them up.
    """
    own = {name: size for name, size in named.items() if name in model.open_dims}
    if len(own) == len(model.open_dims):
        return own, {}
    processors = ordinary(processors)
    backends = find_backends(processors, profiler.backends)
    feeds = partial(_guessed_feeds, model, own)
    found = first_that_runs(model, processors, backends, own, feeds, profiler.cache)
    guesses = list(guessed_sizes(model, own))
    guessed = guesses[found if found is not None and found < len(guesses) else 0]
    return {**own, **guessed}, guessed


def _guessed_feeds(model: Model, own: Mapping[str, int]) -> Iterator[Tensors]:
    for guess in guessed_sizes(model, own):
        yield model.sample_inputs(seed=0, dims={**own, **guess})


def samples_of(
    model: Model,
    given: Sequence[Tensors] | None,
    named: Mapping[str, int],
    processors: Sequence[Processor],
    profiler: Profiler,
) -> Samples:
    """Return what a model is measured with.

    Args:
        model: The model.
        given: Samples of the user, of batch 1 where that is open; None or none: made at random.
        named: Sizes of open dimensions by name.
        processors: Where the model may be run to find out which guess of its sizes it takes.
        profiler: Has the cache and the backends.

    Raises:
        InputError: a sample does not fit the model.
        ModelError: it takes strings, and no samples were given.
    """
    if given:
        for feed in given:
            model.check_inputs(feed)
        return Samples(given, {})
    sizes, guessed = settled_sizes(model, named, processors, profiler)
    feeds = [model.sample_inputs(seed=seed, dims=sizes) for seed in range(_SEEDS)]
    return Samples(feeds, guessed)


def with_batch_found_out(
    models: Mapping[str, Model],
    processors: Sequence[Processor],
    named: Mapping[str, Mapping[str, int]],
    profiler: Profiler,
    given: Mapping[str, Sequence[Tensors]],
    *,
    filled: Collection[str] = (),
) -> dict[str, Model]:
    """Let an open first axis be the batch only of those models where it is, and open fixed ones.

    Args:
        models: By name.
        processors: Where they may be run to find out.
        named: Sizes of open dimensions that were named, by model.
        profiler: Has the cache and the backends.
        given: Samples of the user, by model.
        filled: Models of which a fixed first axis is opened where it is the batch.
    """
    processors = ordinary(processors)
    backends = find_backends(processors, profiler.backends)
    found = dict(models)
    for name, model in models.items():
        if model.batch_symbol is None and name in filled and not model.filling:
            size = fixed_first_axis(model.inputs, model.outputs)
            if 1 < size <= MOST_FILLED and _names_no_batch(model):
                opened = model.with_filling(size)
                pairs = partial(
                    several_samples, opened, given.get(name, ()), named.get(name, {}), size
                )
                if counts_samples(opened, processors, backends, pairs, profiler.cache):
                    found[name] = opened
            continue
        if model.batch_symbol is None or model.has_batch is not None:
            continue
        pairs = partial(two_samples, model, given.get(name, ()), named.get(name, {}))
        is_batch = counts_samples(model, processors, backends, pairs, profiler.cache)
        found[name] = model.with_batch(is_batch)
    return found


def _names_no_batch(model: Model) -> bool:
    """Tell whether the axis of an opened batch can have its name."""
    return all("batch" not in spec.shape for spec in (*model.inputs, *model.outputs))


def single_samples(model: Model, feeds: Sequence[Tensors]) -> list[Tensors]:
    """Cut feeds of several samples into those of one each.

    >>> from coinfer.testing.models import fixed_batch
    >>> model = fixed_batch().model.with_filling(2)
    >>> [each["x"].shape for each in single_samples(model, [model.sample_inputs(batch=2)])]
    [(1, 3), (1, 3)]
    """
    own = model.input_check.batched
    return [
        {name: value[at : at + 1] if name in own else value for name, value in feed.items()}
        for feed in feeds
        for at in range(model.check_inputs(feed))
    ]


def several_samples(
    model: Model, given: Sequence[Tensors], named: Mapping[str, int], count: int
) -> Iterator[Sequence[Tensors]]:
    """Yield so many different samples of equal sizes; none if nobody can make them.

    Args:
        model: A model that takes any number of samples.
        given: Samples of the user; where they are too few, or of other sizes, random ones follow.
        named: Sizes by name, perhaps also of dimensions of other models.
        count: How many.
    """
    try:
        if given:
            ones = single_samples(model, given[:count])[:count]
            sizes = model.input_check.sizes_of(ones[0])
            alike = [one for one in ones if model.input_check.sizes_of(one) == sizes]
            seeds = range(1, 1 + count - len(alike))
            yield [*alike, *(model.sample_inputs(seed=seed, dims=sizes) for seed in seeds)]
            return
        own = {name: size for name, size in named.items() if name in model.open_dims}
        for guess in guessed_sizes(model, own):
            sizes = {**own, **guess}
            yield [model.sample_inputs(seed=seed, dims=sizes) for seed in range(1, 1 + count)]
    except CoinferError:  # the same is said where the samples to measure with are made
        return


def _no_batch_warning(model: Model) -> str | None:
    """Say that the open first axis of a model is not the batch; None if it is, or is not open."""
    symbol = batch_symbol(model.inputs)
    if model.has_batch is not False or symbol is None:
        return None
    return (
        f"{model.name}: its open first axis {symbol!r} is not taken for a batch: two samples "
        "together do not give what they give apart"
    )


def two_samples(
    model: Model, given: Sequence[Tensors], named: Mapping[str, int]
) -> Iterator[Sequence[Tensors]]:
    """Yield pairs of samples of equal sizes, the likeliest first; none if there are none.

    They are of the sizes of samples that are given, of those that are named, or else guesses.

    Args:
        model: A model.
        given: Samples of the user. A lone one is joined by a random one, or by itself.
        named: Sizes by name, perhaps also of dimensions of other models.
    """
    if given:
        try:
            yield _given_pair(model, given)
        except CoinferError:  # the same is said where the samples to measure with are made
            return
    else:
        yield from several_samples(model, (), named, 2)


def _given_pair(model: Model, given: Sequence[Tensors]) -> Sequence[Tensors]:
    for one, other in combinations(given[:_MOST_GIVEN], 2):
        if all(one[name].shape == value.shape for name, value in other.items()):
            return one, other
    first = given[0]
    try:
        return first, model.sample_inputs(seed=1, dims=model.input_check.sizes_of(first))
    except CoinferError:  # such as of strings
        return first, first


def with_work(planned: ModelPlan, model: Model, feeds: Sequence[Tensors]) -> ModelPlan:
    """Add the sizes of the samples to a model's plan, and how its work grows with them."""
    work = work_at(model, feeds)
    if work is None:
        return planned
    distinct = _distinct_sizes(model, feeds)
    distinct.sort(key=work.at)
    return dataclasses.replace(planned, sizes=tuple(distinct), work=work)


def work_at(model: Model, feeds: Sequence[Tensors]) -> Work | None:
    """Return how the work grows from that of the smallest sample on; None if nothing is open."""
    if not model.open_dims or not feeds:
        return None
    from coinfer.graph.work_fit import fit_work  # needs the heavy libraries

    return fit_work(model, _distinct_sizes(model, feeds))


def _distinct_sizes(model: Model, feeds: Sequence[Tensors]) -> list[dict[str, int]]:
    sizes = [model.input_check.sizes_of(feed) for feed in feeds]
    return [dict(each) for each in dict.fromkeys(tuple(each.items()) for each in sizes)]
