"""Setting: what is made smaller, with which samples, and where that is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.registry import find_backends
from coinfer.errors import ConfigurationError
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.processor import Processor, named, ordinary
from coinfer.model import Model
from coinfer.model.inputs import sample_bytes
from coinfer.planner.compressing.calibration import Samples, split
from coinfer.planner.compressing.compression import Compression
from coinfer.planner.compressing.quantisation import Quantisation
from coinfer.planner.compressing.wish import CompressionWish
from coinfer.planner.given_samples import SampleSource, read_samples
from coinfer.planner.model_source import resolve_model
from coinfer.planner.samples import settled_sizes
from coinfer.profiling import Profiler, default_cache
from coinfer.profiling.reference import REFERENCE

__all__ = ["CompressionSetting"]

_FEW_JUDGES = 8
"""Fewer held-out samples say little of others: the largest error of few is no bound."""

_RANDOM_SAMPLES = 12
_FEWEST_SAMPLES = 2
_RANDOM_BYTES = 2**28
"""Of random samples, unless the fewest take more: some come to a gigabyte each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionSetting:
    """What is made smaller, what that is tried with, and where it is measured.

    Attributes:
        model: The original.
        samples: What is chosen with, and what judges.
        is_given: Whether the samples are the user's.
        processors: Where times are measured.
        backends: By name, with that of the reference.
        warnings: What there is to say of the samples.
    """

    model: Model
    samples: Samples
    is_given: bool
    processors: Sequence[Processor]
    backends: Mapping[str, Backend]
    warnings: Sequence[str]

    @classmethod
    def of(
        cls,
        source: Model | str | Path,
        samples: SampleSource | None,
        processors: Sequence[Processor] | Sequence[str] | None,
        backends: Mapping[str, Backend],
        dims: Mapping[str, int],
        seed: int,
    ) -> CompressionSetting:
        """Read the arguments of `compress`; it raises what that raises."""
        model = source if isinstance(source, Model) else resolve_model(str(source))
        chosen = _processors(processors)
        feeds, warnings = _feeds(model, samples, dims, seed, (*chosen, REFERENCE), backends)
        parted = split(feeds, model.name, seed=seed)
        judges = len(parted.held_out)
        if samples is not None and judges < _FEW_JUDGES:
            warnings.append(
                f"{model.name}: {judges} {'sample judges' if judges == 1 else 'samples judge'}; "
                f"the error says little of others; give {3 * _FEW_JUDGES} or more"
            )
        return cls(
            model=model,
            samples=parted,
            is_given=samples is not None,
            processors=chosen,
            backends=find_backends((*chosen, REFERENCE), backends),
            warnings=warnings,
        )

    def compression(self, wish: CompressionWish, data_aware: bool | None) -> Compression:
        """Return what decomposes it."""
        if wish.by_latency and not self.processors:
            raise ConfigurationError("ranks by latency need a processor to measure on; name one")
        compression = Compression(
            model=self.model,
            wish=wish,
            samples=self.samples,
            is_data_aware=self.is_given if data_aware is None else data_aware,
            processors=self.processors,
            backends=self.backends,
            is_given=self.is_given,
        )
        compression.warnings += self.warnings
        return compression

    def quantisation(self, wish: CompressionWish) -> Quantisation:
        """Return what quantises it."""
        quantisation = Quantisation(
            model=self.model,
            limit=wish.limit,
            samples=self.samples,
            processors=self.processors,
            backends=self.backends,
        )
        quantisation.warnings += self.warnings
        return quantisation


def _feeds(
    model: Model,
    samples: SampleSource | None,
    dims: Mapping[str, int],
    seed: int,
    processors: Sequence[Processor],
    backends: Mapping[str, Backend],
) -> tuple[list[Tensors], list[str]]:
    """Return samples, of batch 1 where that is open, and what there is to say of them."""
    if samples is not None:
        feeds, warnings = read_samples(model, samples), []
    else:
        profiler = Profiler(cache=default_cache(), backends=backends)
        sizes, guessed = settled_sizes(model, dims, processors, profiler)
        seeds = range(seed * _RANDOM_SAMPLES, (seed + 1) * _RANDOM_SAMPLES)
        each_bytes = sample_bytes(model.input_check, batch=1, dims=sizes)
        count = min(_RANDOM_SAMPLES, max(_FEWEST_SAMPLES, _RANDOM_BYTES // max(each_bytes, 1)))
        feeds = [model.sample_inputs(seed=each, dims=sizes) for each in seeds[:count]]
        warnings = [
            f"{model.name}: no samples were given, so errors are those on random inputs; give real "
            "ones (--inputs)"
        ]
        if guessed:
            text = ", ".join(f"{name}={size}" for name, size in guessed.items())
            warnings.append(f"{model.name}: sizes of open dimensions were guessed: {text}")
    return [model.input_check.filled(feed) for feed in feeds], warnings


def _processors(
    wanted: Sequence[Processor] | Sequence[str] | None,
) -> list[Processor]:
    """Return processors by name, or one of each kind with one thread."""
    given = [each for each in wanted or () if isinstance(each, Processor)]
    names = [each for each in wanted or () if isinstance(each, str)]
    if wanted is not None and not names:
        return given
    found = ordinary(default_processors())
    if names:
        return [*given, *(named(name, found) for name in names)]
    kinds = {(p.backend, p.device): p for p in reversed(found) if p.threads == 1}
    return list(reversed(kinds.values()))
