"""Compression for users: a smaller network from a model, with what that gains and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.registry import find_backends
from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.rank_rule import LATENCY, RankRule
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.processor import Processor, named, ordinary
from coinfer.model import Model
from coinfer.planner.compressing.calibration import Samples, split
from coinfer.planner.compressing.compression import CompressedModel, Compression
from coinfer.planner.compressing.quantisation import Quantisation
from coinfer.planner.compressing.report import CompressionReport
from coinfer.planner.compressing.wish import CompressionWish
from coinfer.planner.given_samples import SampleSource, read_samples
from coinfer.planner.model_source import resolve_model
from coinfer.planner.samples import settled_sizes
from coinfer.profiling import Profiler, default_cache
from coinfer.profiling.reference import REFERENCE

__all__ = ["choose_ranks", "compress"]

_RANDOM_SAMPLES = 12


def compress(
    model: Model | str | Path,
    *,
    ranks: str | RankRule = LATENCY,
    max_error: float | None = None,
    samples: SampleSource | None = None,
    svd: bool = False,
    int8: bool = False,
    data_aware: bool | None = None,
    processors: Sequence[Processor] | Sequence[str] | None = None,
    backends: Mapping[str, Backend] = MappingProxyType({}),
    dims: Mapping[str, int] = MappingProxyType({}),
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> CompressedModel:
    """Decompose the layers of a model into smaller ones, so that it computes less.

    A convolution becomes three (Tucker-2: Kim et al., ICLR 2016, arXiv 1511.06530), with `svd` a
    1x1 convolution or a dense layer becomes two.

    By `latency` ranks are chosen by measured time. What is returned is faster than the original on
    each of `processors`, by paired rounds whose 95 % interval is above 1, and its outputs are off
    by `max_error` at most on held-out samples; else it is the original. These samples shape neither
    factors nor ranks; where a choice is further off on them, less is aimed at, which the report
    counts. Other rules promise nothing of time, and warn.

    Args:
        model: What `load_model` returns, a path, or `zoo:NAME`.
        ranks: `latency`, `ratio:R` (of the channels), `energy:E` (of the squared weights on each
            side), `evbmf` (what stands out of the noise), `macs:F` (of all operations): the share
            that is kept, above 0, 1 at most.
        max_error: The most that outputs may be off, ||out - ref|| / ||ref||, on each held-out
            sample; None: 0.02 by latency, else any; `math.inf`: errors do not steer the choice.
        samples: Inputs, at least 2: arrays by input name, several of these, an .npz file or a
            folder of pictures. A third of them judges. None: random ones, which say little of a
            trained network.
        svd: Decompose 1x1 convolutions and dense layers too.
        int8: Quantise instead, by onnxruntime's quantiser, with the same promise. Ranges come from
            the samples; no layer is decomposed.
        data_aware: Whether layers keep their outputs on the samples rather than their weights;
            None: if samples are given.
        processors: Where times are measured, or their names; None: one of each kind with one
            thread. An empty list measures no times.
        backends: Backends by name, for those that are not to be looked up.
        dims: Sizes of open dimensions by name, for a model without samples.
        seed: Decides which samples judge and all that is drawn, random samples too; from 0 on.
        progress: Is told what is measured next.

    Raises:
        ConfigurationError: there is nothing to decompose, the error that is allowed cannot be kept,
            the rule is none, `tensorly` is not installed, or there is no such processor.
        InputError: the samples cannot be read, do not fit, or are too few.
        ModelError: the model's file cannot be used.
        BackendError: the model does not run on a processor.

    >>> import coinfer
    >>> found = coinfer.compress("zoo:tiny_cnn", ranks="ratio:0.5", processors=[])
    >>> [str(layer.ranks) for layer in found.report.decomposed]
    ['2 4', '4 8']
    >>> found.report.macs
    (516256, 252064)
    """
    rule = RankRule.parse(ranks) if isinstance(ranks, str) else ranks
    if int8 and (not rule.is_measured or svd or data_aware is not None):
        raise ConfigurationError(
            "int8 decomposes nothing, so it takes no ranks, svd or data_aware (--ranks, --svd, "
            "--plain); decompose first, and quantise the file that this gives"
        )
    wish = CompressionWish(rule=rule, max_error=max_error, svd=svd, seed=seed)
    setting = _Setting.of(model, samples, processors, backends, dims, seed)
    made = setting.quantisation(wish) if int8 else setting.compression(wish, data_aware)
    made.tell = progress
    return made.done()


def choose_ranks(
    model: Model | str | Path,
    *,
    ranks: str | RankRule,
    svd: bool = False,
    dims: Mapping[str, int] = MappingProxyType({}),
) -> CompressionReport:
    """Choose ranks by weights alone, and say what operations and parameters would be left.

    Nothing is decomposed and nothing measured. Arguments and errors as of `compress`.

    >>> choose_ranks("zoo:tiny_cnn", ranks="ratio:0.5").macs
    (516256, 252064)
    """
    rule = RankRule.parse(ranks) if isinstance(ranks, str) else ranks
    wish = CompressionWish(rule=rule, svd=svd)
    return _Setting.of(model, None, (), {}, dims, 0).compression(wish, False).chosen()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
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
    ) -> _Setting:
        """Read the arguments of `compress`; it raises what that raises."""
        model = source if isinstance(source, Model) else resolve_model(str(source))
        chosen = _processors(processors)
        feeds, warnings = _feeds(model, samples, dims, seed, (*chosen, REFERENCE), backends)
        return cls(
            model=model,
            samples=split(feeds, model.name, seed=seed),
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
        feeds = [model.sample_inputs(seed=each, dims=sizes) for each in seeds]
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
