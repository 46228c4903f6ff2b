"""Compression for users: a smaller network from a model, with what that gains and costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.registry import find_backends
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.graph.compressing.rank_rule import RankRule
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.processor import Processor, ordinary
from coinfer.model import Model
from coinfer.planner.compressing.calibration import split
from coinfer.planner.compressing.compression import CompressedModel, Compression
from coinfer.planner.compressing.quantisation import Quantisation
from coinfer.planner.compressing.report import CompressionReport
from coinfer.planner.compressing.wish import CompressionWish
from coinfer.planner.given_samples import SampleSource, read_samples
from coinfer.planner.model_source import resolve_model
from coinfer.planner.samples import settled_sizes
from coinfer.profiling.reference import REFERENCE

__all__ = ["choose_ranks", "compress"]

_RANDOM_SAMPLES = 12


def compress(
    model: Model | str | Path,
    *,
    ranks: str | RankRule = "latency",
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
    by `max_error` at most on samples that nothing was chosen with; else it is the original. Other
    rules promise nothing of time, and warn.

    Args:
        model: What `load_model` returns, a path, or `zoo:NAME`.
        ranks: `latency`, `ratio:R` (of the channels), `energy:E` (of the squared weights on each
            side), `evbmf` (what stands out of the noise), `macs:F` (of all operations): the share
            that is kept, above 0, 1 at most.
        max_error: The most that outputs may be off, ||out - ref|| / ||ref||, on each held-out
            sample; None: 0.02 by latency, else any; `math.inf`: errors are not looked at.
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
        seed: Decides which samples judge and all that is drawn.
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
    if int8:
        if str(ranks) != "latency" or svd or data_aware is not None:
            raise ConfigurationError(
                "int8 decomposes nothing, so it takes no ranks, svd or data_aware (--ranks, --svd, "
                "--plain); decompose first, and quantise the file that this gives"
            )
        return _quantisation(
            model, max_error, samples, processors, backends, dims, seed, progress
        ).done()
    compression = _compression(
        model, ranks, max_error, samples, svd, data_aware, processors, backends, dims, seed
    )
    compression.tell = progress
    return compression.done()


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
    return _compression(model, ranks, None, None, svd, False, (), {}, dims, 0).chosen()


def _compression(
    source: Model | str | Path,
    ranks: str | RankRule,
    max_error: float | None,
    samples: SampleSource | None,
    svd: bool,
    data_aware: bool | None,
    processors: Sequence[Processor] | Sequence[str] | None,
    backends: Mapping[str, Backend],
    dims: Mapping[str, int],
    seed: int,
) -> Compression:
    rule = RankRule.parse(ranks) if isinstance(ranks, str) else ranks
    wish = CompressionWish(rule=rule, max_error=max_error, svd=svd, seed=seed)
    model = source if isinstance(source, Model) else resolve_model(str(source))
    feeds, warnings = _feeds(model, samples, dims)
    chosen = _processors(processors)
    if wish.by_latency and not chosen:
        raise ConfigurationError("ranks by latency need a processor to measure on; name one")
    compression = Compression(
        model=model,
        wish=wish,
        samples=split(feeds, model.name, seed=seed),
        is_data_aware=samples is not None if data_aware is None else data_aware,
        processors=chosen,
        backends=find_backends((*chosen, REFERENCE), backends),
    )
    compression.warnings += [] if wish.max_error == math.inf else warnings
    return compression


def _quantisation(
    source: Model | str | Path,
    max_error: float | None,
    samples: SampleSource | None,
    processors: Sequence[Processor] | Sequence[str] | None,
    backends: Mapping[str, Backend],
    dims: Mapping[str, int],
    seed: int,
    progress: Callable[[str], None],
) -> Quantisation:
    wish = CompressionWish(max_error=max_error, seed=seed)
    model = source if isinstance(source, Model) else resolve_model(str(source))
    feeds, warnings = _feeds(model, samples, dims)
    chosen = _processors(processors)
    quantisation = Quantisation(
        model=model,
        limit=wish.limit,
        samples=split(feeds, model.name, seed=seed),
        processors=chosen,
        backends=find_backends((*chosen, REFERENCE), backends),
        tell=progress,
    )
    quantisation.warnings += warnings
    return quantisation


def _feeds(
    model: Model, samples: SampleSource | None, dims: Mapping[str, int]
) -> tuple[list[Tensors], list[str]]:
    """Return samples, of batch 1 where that is open, and what there is to say of them."""
    if samples is not None:
        feeds, warnings = read_samples(model, samples), []
    else:
        sizes, guessed = settled_sizes(model, dims)
        feeds = [model.sample_inputs(seed=seed, dims=sizes) for seed in range(_RANDOM_SAMPLES)]
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
        known = {processor.name: processor for processor in found}
        for name in names:
            if name not in known:
                raise UnknownNameError.of("processor", name, known)
        return [*given, *(known[name] for name in names)]
    kinds = {(p.backend, p.device): p for p in reversed(found) if p.threads == 1}
    return list(reversed(kinds.values()))
