"""Compression for users: a smaller network from a model, with what that gains and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from coinfer.backends.base import Backend
from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.rank_rule import LATENCY, RankRule
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.planner.compressing.compression import CompressedModel
from coinfer.planner.compressing.report import CompressionReport
from coinfer.planner.compressing.setting import CompressionSetting
from coinfer.planner.compressing.wish import CompressionWish
from coinfer.planner.given_samples import SampleSource

__all__ = ["choose_ranks", "compress"]


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
    setting = CompressionSetting.of(model, samples, processors, backends, dims, seed)
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
    return CompressionSetting.of(model, None, (), {}, dims, 0).compression(wish, False).chosen()
