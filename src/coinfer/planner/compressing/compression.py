"""Compression: decompose the layers of a model, measure what came of it, and keep the promise.

By latency, what is returned is never slower than the original on the processors that it was
measured on, and never further off than was allowed on held-out samples. These shape no factors and
no ranks, but decide whether less is aimed at. If nothing is to be gained, it is the original.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from coinfer.backends.base import Backend, Tensors, channel_block
from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.alone import geometry
from coinfer.graph.compressing.decompose import decomposed
from coinfer.graph.compressing.factor_maker import FactorMaker
from coinfer.graph.compressing.layers import Layers
from coinfer.graph.compressing.rank_rule import candidates
from coinfer.graph.compressing.search import Choice, Found, search
from coinfer.graph.cost import ModelCost, operator_costs, total
from coinfer.graph.saving import save_graph
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.planner.compressing.against_original import processor_reports
from coinfer.planner.compressing.calibration import (
    Samples,
    bound_to,
    moments_of,
    outputs_of,
    with_shapes,
)
from coinfer.planner.compressing.error import largest_error
from coinfer.planner.compressing.gauge import MeasuringGauge
from coinfer.planner.compressing.renormalising import renormalised
from coinfer.planner.compressing.report import CompressionReport, ProcessorReport
from coinfer.planner.compressing.reporting import layer_reports
from coinfer.planner.compressing.wish import CompressionWish
from coinfer.profiling.reference import REFERENCE

__all__ = ["CompressedModel", "Compression"]

_ATTEMPTS = 6
"""How often less error is aimed at, if held-out samples are further off than the others."""

_AIM = 0.9

_SMALLEST = 0.003
"""Layers with a smaller share of the operations are left: all measuring costs time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedModel:
    """A compressed model with its report.

    Attributes:
        model: It has the name, the inputs and the outputs of the original.
        report: What was done, gained and lost.
    """

    model: Model
    report: CompressionReport

    def save(self, path: str | Path) -> None:
        """Write the model as an ONNX file, which is replaced in one step.

        Weights of more than 1.5 GiB in all go to `PATH.data`.

        Raises:
            OSError: the file cannot be written.
        """
        save_graph(self.model.graph, Path(path))


@dataclass(slots=True, kw_only=True)
class Compression:
    """Compresses one model.

    Attributes:
        model: The original.
        wish: What is wanted of it.
        samples: What is chosen with, and what judges.
        is_data_aware: Whether the former shape the factors.
        processors: Where it is measured; none: times are not measured.
        backends: By name, with that of the reference.
        is_given: Whether the samples are the user's.
        tell: Is told what is done next.
        cost: What the original costs on the samples' sizes.
        n_judged: How many choices the held-out samples judged.
    """

    model: Model
    wish: CompressionWish
    samples: Samples
    is_data_aware: bool
    processors: Sequence[Processor]
    backends: Mapping[str, Backend]
    is_given: bool = True
    tell: Callable[[str], None] = lambda _: None
    warnings: list[str] = field(default_factory=list, init=False)
    layers: Layers = field(init=False)
    maker: FactorMaker = field(init=False)
    bound: ir.Model = field(init=False)
    cost: ModelCost = field(init=False)
    n_judged: int = field(default=0, init=False)
    _shaping: Sequence[Tensors] = field(init=False)
    _originals: list[Tensors] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Find the layers.

        Raises:
            ConfigurationError: there are none.
        """
        graph, feed = self.model.graph, self.samples.calibration[0]
        self._shaping = self.samples.calibration
        if self.wish.by_latency:
            self._shaping = self.samples.shaping
        self.bound = with_shapes(self.model, bound_to(self.model, feed), feed, self._reference)
        self.cost = total(operator_costs(self.bound))
        self.layers = Layers.of(graph, svd=self.wish.svd, bound=self.bound)
        if not self.layers.items:
            raise ConfigurationError(_nothing(self.model.name, self.layers))
        moments = {}
        if self.is_data_aware:
            self.tell("what layers see of the samples")
            moments = moments_of(
                self.model, self.layers, self._shaping, self._reference, seed=self.wish.seed
            )
        self.maker = FactorMaker(graph, self.layers, moments)

    def chosen(self) -> CompressionReport:
        """Choose ranks by weights alone, and decompose nothing.

        Raises:
            ConfigurationError: the rule needs measurements, or leaves all layers as they are.
        """
        return self._report(self._by_weights(), None)

    def done(self) -> CompressedModel:
        """Choose ranks, decompose, and measure.

        Raises:
            ConfigurationError: the error that is allowed cannot be kept, or the rule leaves all
                layers as they are.
            BackendError: the model cannot be run.
        """
        self.tell("the original's outputs")
        with MeasuringGauge(
            self.model,
            self.bound,
            self.layers.items,
            self.maker,
            self.samples.calibration,
            self.processors,
            self.backends,
            heeds_error=math.isfinite(self.wish.limit),
            tell=self.tell,
        ) as gauge:
            if self.wish.by_latency:
                return self._by_latency(gauge)
            return self._by_rule(gauge)

    @property
    def _reference(self) -> Backend:
        return self.backends[REFERENCE.backend]

    def _by_weights(self) -> Choice:
        rule, known = self.wish.rule, {}
        if rule.needs_weights:
            known = {layer.key: self.maker.spectrum(layer.key) for layer in self.layers}
        macs = [layer.macs() for layer in self.layers]
        before = self.cost.macs
        other = None if before is None or None in macs else before - sum(m or 0 for m in macs)
        choice = rule.ranks(self.layers, known, other)
        if not choice:
            raise ConfigurationError(
                f"model {self.model.name!r}: {rule} leaves every layer as it is, because the "
                "parts would have as many weights; give a smaller share or another rule"
            )
        return choice

    def _by_rule(self, gauge: MeasuringGauge) -> CompressedModel:
        choice = self._by_weights()
        self.tell(f"{len(choice)} layers")
        model = self._built(choice)
        error = self._error(model)
        if error > self.wish.limit:
            raise ConfigurationError(
                f"model {self.model.name!r}: {self.wish.rule} puts its outputs off by {error:.3g}, "
                f"more than --max-error {self.wish.limit:g}; keep more, or choose by latency"
            )
        rows = self._rows(gauge, model)
        self.warnings += [
            f"{self.model.name} is not faster on {row.name}: {row.ratio}; choose ranks by latency"
            for row in rows
            if not row.ratio.is_better
        ]
        report = self._report(choice, None, model, error=error, rows=rows)
        return CompressedModel(model=model, report=report)

    def _by_latency(self, gauge: MeasuringGauge) -> CompressedModel:
        step = max(channel_block(self.backends[each.backend]) for each in self.processors)
        least = _SMALLEST * (self.cost.known_macs or 1)
        ranks = {
            layer.key: candidates(layer, self.maker.spectrum(layer.key), step=step, most=8)
            if (layer.macs() or 0) >= least
            else []
            for layer in self.layers
        }
        kinds = {layer.key: geometry(self.bound, layer) for layer in self.layers}
        aim = self.wish.limit
        for _ in range(_ATTEMPTS):
            found = search(self.layers.items, ranks, kinds, gauge, aim)
            if not found.choice:
                break
            model = self._built(found.choice)
            error = self._error(model)
            if error <= self.wish.limit:
                return self._promised(gauge, found, model, error)
            aim *= _AIM * self.wish.limit / error
        else:
            self.warnings.append("held-out samples were further off than those chosen with")
        return self._original(replace(found, choice={}))

    def _promised(
        self, gauge: MeasuringGauge, found: Found, model: Model, error: float
    ) -> CompressedModel:
        """Return what was found if it is faster everywhere, else the original."""
        rows = self._rows(gauge, model)
        slower = [row for row in rows if not row.ratio.is_better]
        if slower:
            texts = ", ".join(f"{row.name}: {row.ratio}" for row in slower)
            self.warnings.append(f"what was found is not surely faster ({texts})")
            return self._original(replace(found, choice={}))
        report = self._report(found.choice, found, model, error=error, rows=rows)
        return CompressedModel(model=model, report=report)

    def _original(self, found: Found) -> CompressedModel:
        """Return the model as it was, with the reason.

        Raises:
            ConfigurationError: only for the error that is allowed.
        """
        least = found.least_error
        name = self.model.name
        if least == math.inf:
            raise ConfigurationError(
                f"model {name!r}: whatever is decomposed, an output changes that has no distance, "
                "such as the number of a class or how many boxes there are; compress it without "
                "that output"
            )
        if least is not None and least > self.wish.limit:
            more = "" if self.is_given else ", or give inputs to calibrate with"
            raise ConfigurationError(
                f"model {name!r}: --max-error {self.wish.limit:g} cannot be kept: of all that is "
                f"faster here, the least that a single layer puts its outputs off is {least:.3g}; "
                f"allow more{more}"
            )
        why = "no layer is faster decomposed" if least is None else "nothing is gained as a whole"
        self.warnings.append(f"{name} is left as it is: {why} on the processors measured")
        report = self._report({}, found, self.model, error=0.0)
        return CompressedModel(model=self.model, report=report)

    def _built(self, choice: Choice) -> Model:
        graph = decomposed(self.model.graph, self.maker.all_of(choice))
        model = self.model.with_graph(graph)
        if not self.is_data_aware:
            return model
        return renormalised(self.model, model, self._shaping, self._reference)

    def _error(self, model: Model) -> float:
        """Return how far outputs are off on the held-out samples."""
        self.tell("error on held-out samples")
        self.n_judged += 1
        feeds = self.samples.held_out
        if self._originals is None:
            self._originals = outputs_of(self.model, feeds, self._reference)
        return largest_error(outputs_of(model, feeds, self._reference), self._originals)

    def _rows(self, gauge: MeasuringGauge, model: Model) -> list[ProcessorReport]:
        self.tell("the whole against the original")
        return processor_reports(
            self.processors,
            lambda rounds: gauge.contests(model, self.model, rounds=rounds),
        )

    def _report(
        self,
        choice: Choice,
        found: Found | None,
        model: Model | None = None,
        *,
        error: float | None = None,
        rows: Sequence[ProcessorReport] = (),
    ) -> CompressionReport:
        layers = layer_reports(
            self.layers,
            choice,
            found,
            [each.name for each in self.processors],
            None if error is None else self.maker,
            heeds_error=math.isfinite(self.wish.limit),
        )
        before = self.cost
        macs, parameters = before.macs, before.trainable_parameters
        for each in layers:
            layer, ranks = each.layer, each.ranks
            parameters -= layer.parameters() - layer.parameters(ranks)
            saved = None if layer.macs() is None else (layer.macs() or 0) - (layer.macs(ranks) or 0)
            macs = None if macs is None or saved is None else macs - saved
        return CompressionReport(
            model=self.model.name,
            rule=str(self.wish.rule),
            is_data_aware=self.is_data_aware,
            max_error=self.wish.limit if math.isfinite(self.wish.limit) else None,
            layers=layers,
            left=self.layers.left,
            macs=(before.macs, macs),
            parameters=(
                before.trainable_parameters,
                # Layers that had no bias may have one now.
                parameters
                if model is None
                else total(operator_costs(model.graph)).trainable_parameters,
            ),
            output_error=error,
            held_out=0 if error is None else len(self.samples.held_out),
            judged=self.n_judged,
            processors=rows,
            curve=() if found is None else tuple(found.curve),
            warnings=tuple(self.warnings),
        )


def _nothing(name: str, layers: Layers) -> str:
    reasons = dict.fromkeys(layers.left.values())
    why = "; ".join(reasons) or "it has no convolutions with kernels above 1x1"
    hint = "; try --svd" if any("on demand" in reason for reason in reasons) else ""
    return f"model {name!r} has nothing to decompose: {why}{hint}"
