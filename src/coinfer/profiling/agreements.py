"""Agreements: compare models on processors with the reference, and remember what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from coinfer.backends.base import Backend, Tensors, computes, reading_once
from coinfer.backends.registry import find_backends
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling.agreement import Agreement, keep, kept
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.comparison import Comparison
from coinfer.profiling.context import ProfilingContext
from coinfer.profiling.identity import identity, key_parts, output_parts
from coinfer.profiling.measure import Effort
from coinfer.profiling.reference import (
    REFERENCE,
    Reference,
    computes_alike,
    reference_backends,
)

__all__ = ["agreements"]

_MOST_SAMPLES: Final = 8
"""Samples that are compared; those that hold NaN or infinity go first."""

_RANDOM_SAMPLES: Final = 2
"""As many of random numbers, where there are no samples."""


def agreements(
    model: Model,
    processors: Iterable[Processor],
    tolerance: float,
    *,
    feeds: Sequence[Tensors] = (),
    cache: ProfileCache | None = None,
    backends: Mapping[str, Backend] | None = None,
    wide: frozenset[str] | None = None,
) -> dict[str, Agreement]:
    """Compare a model on processors with the reference, each in fp32.

    Args:
        model: A model, or a part of one.
        processors: Those that run it. One below fp32 is compared as it would be in fp32.
        tolerance: The largest relative error of floats.
        feeds: Sample inputs, of batch 1 where the batch is symbolic; random ones if there are none.
        cache: Where to look first and to keep results.
        backends: Backends by name, for those that are not to be looked up.
        wide: Of a part of a model, the integers of the whole one that pass 32 bits; None: find out.

    Returns:
        By processor; those of a backend that computes nothing are left out.

    >>> from coinfer.testing.models import tiny_linear
    >>> cpu = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core0"}))
    >>> agreements(tiny_linear().model, [cpu], 1e-3)["cpu"].error
    0.0
    """
    wanted = {each.name: dataclasses.replace(each, precision="fp32") for each in processors}
    found_backends = find_backends(wanted.values(), backends or {})
    wanted = {n: each for n, each in wanted.items() if computes(found_backends[each.backend])}
    if not wanted:
        return {}
    feeds = feeds or [model.sample_inputs(seed=seed) for seed in range(_RANDOM_SAMPLES)]
    samples = sorted(feeds, key=_is_finite)[:_MOST_SAMPLES]
    context = ProfilingContext(
        models={model.name: model},
        samples={model.name: {0: samples}},
        backends=reference_backends(found_backends),
        effort=Effort(),
        cache=cache,
    )
    asked = _Asked(
        context,
        model,
        samples,
        tolerance,
        wide,
        list(wanted.values()),
        output_parts(model, samples),
    )
    keys = {name: asked.key(each) for name, each in wanted.items()}
    twins = {identity(keys[name]): name for name in reversed(wanted)}
    found = {t: kept(asked.cache(wanted[n]), keys[n]) for t, n in twins.items()}
    missing = {t: wanted[n] for t, n in twins.items() if found[t] is None}
    fresh = dict(zip(missing, asked.compared(list(missing.values())), strict=True))
    for twin, agreement in fresh.items():
        keep(asked.cache(missing[twin]), keys[twins[twin]], agreement)
    known = {**found, **fresh}
    return {name: each for name in wanted if (each := known[identity(keys[name])]) is not None}


class _Asked(NamedTuple):
    """What is to be compared."""

    context: ProfilingContext
    model: Model
    samples: Sequence[Tensors]
    tolerance: float
    wide: frozenset[str] | None
    processors: Sequence[Processor]
    output_parts: Mapping[str, object]

    def key(self, processor: Processor) -> dict[str, object]:
        """Return all that an agreement depends on."""
        reference = self.context.backends.get(REFERENCE.backend)
        return {
            **self._parts(processor),
            **self.output_parts,
            "agreement": 2,
            "tolerance": self.tolerance,
            "wide": None if self.wide is None else sorted(self.wide),
            "bounds": self.model.integer_bounds(),
            "reference": None if reference is None else dict(reference.versions()),
            "otherwise": self._parts(self.processors[0]),
        }

    def cache(self, processor: Processor) -> ProfileCache | None:
        """Return where it is kept; a backend without versions may be anything."""
        versions = self.context.backends[processor.backend].versions()
        return self.context.cache if versions else None

    def compared(self, processors: Sequence[Processor]) -> list[Agreement]:
        """Compare on these processors."""
        if all(computes_alike(each, REFERENCE) for each in processors):
            return [Agreement(error=0.0)] * len(processors)
        opened = Reference.opened(self.context, self.model, self.processors, self.samples)
        with reading_once(self.context.backends.values()), opened as reference:
            comparison = Comparison(
                context=self.context,
                model=self.model,
                samples=self.samples,
                reference=reference,
                tolerance=self.tolerance,
                wide=self.wide,
            )
            return [comparison.agreement(each) for each in processors]

    def _parts(self, processor: Processor) -> dict[str, object]:
        backend = self.context.backends[processor.backend]
        context = self.context
        return key_parts(
            self.model.name, self.model, processor, 1, self.samples, backend, context.machine
        )


def _is_finite(sample: Tensors) -> bool:
    return all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in sample.values())
