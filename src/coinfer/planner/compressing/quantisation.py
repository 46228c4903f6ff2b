"""Quantisation: a model in int8, measured beside its original, with the promise of compression.

What is returned is never slower than the original on the processors that it was measured on, and
never further off than was allowed, on any of them. If nothing is to be gained, it is the original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import onnx_ir as ir

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.onnxruntime.quantising import Way, prepared, quantised
from coinfer.backends.precision import native_precision
from coinfer.errors import ConfigurationError
from coinfer.graph.cost import operator_costs, total
from coinfer.graph.operators import MATRIX_PRODUCTS
from coinfer.machine.processor import Processor
from coinfer.metrics.paired import LEAST_ROUNDS
from coinfer.model import Model
from coinfer.planner.compressing.against_original import contests, processor_reports
from coinfer.planner.compressing.calibration import Samples, bound_to, outputs_of
from coinfer.planner.compressing.compression import CompressedModel
from coinfer.planner.compressing.error import worst_error
from coinfer.planner.compressing.report import CompressionReport, Int8Report, ProcessorReport
from coinfer.profiling.reference import REFERENCE
from coinfer.profiling.side_by_side import Contest

__all__ = ["Quantisation"]

_FEEDS = 8
"""So many calibration samples are run in turns for time."""


class _Candidate(NamedTuple):
    """A quantised model.

    Attributes:
        way: How it was made.
        model: What came of it.
        error: On calibration samples, the largest of all processors.
    """

    way: Way
    model: Model
    error: float


@dataclass(slots=True, kw_only=True)
class Quantisation:
    """Quantises one model.

    Attributes:
        model: The original.
        limit: The error that is allowed; infinite if any is.
        samples: What ranges come from, and what judges.
        processors: Where it is measured; none: times are not measured.
        backends: By name, with that of the reference.
        tell: Is told what is done next.
        n_judged: How many candidates the held-out samples judged.
    """

    model: Model
    limit: float
    samples: Samples
    processors: Sequence[Processor]
    backends: Mapping[str, Backend]
    tell: Callable[[str], None] = lambda _: None
    warnings: list[str] = field(default_factory=list, init=False)
    n_judged: int = field(default=0, init=False)

    def done(self) -> CompressedModel:
        """Quantise in several ways, measure, and return the fastest that errs little enough.

        Raises:
            ConfigurationError: there is nothing to quantise, or the error cannot be kept.
            BackendError: onnxruntime cannot quantise the model, or it cannot be run.
        """
        if native_precision(self.model) == "int8":
            raise ConfigurationError(f"model {self.model.name!r} is quantised already")
        self.tell("folding what is constant")
        ready = prepared(self.model)
        heavy = [node.name for node in ready.graph.graph if node.op_type in MATRIX_PRODUCTS]
        if not heavy:
            raise ConfigurationError(
                f"model {self.model.name!r} has nothing to quantise: it has no convolutions, dense "
                "layers or matrix products"
            )
        tried = list(self._candidates(ready, [str(name) for name in heavy]))
        if not tried:
            raise ConfigurationError(
                f"model {self.model.name!r} has nothing that onnxruntime would quantise"
            )
        within = [each for each in tried if each.error <= self.limit]
        if not within:
            raise self._too_far(min(each.error for each in tried))
        return self._best(within, len(heavy))

    def _candidates(self, ready: Model, heavy: Sequence[str]) -> Iterator[_Candidate]:
        """Yield those that are worth timing: the next are tried if these err too much."""
        feeds, found = self.samples.calibration, 0
        originals: list[Tensors] = []
        for way in _ways(heavy):
            if found and way.keeps:
                return  # what keeps layers in fp32 is for networks that need it
            self.tell(f"int8: {way}")
            model = quantised(ready, feeds, way)
            if not _n_quantised(model):
                continue
            originals = originals or self._originals(feeds)
            error = self._error(model, feeds, originals)
            found += error <= self.limit
            yield _Candidate(way, model, error)

    def _best(self, candidates: Sequence[_Candidate], heavy: int) -> CompressedModel:
        """Return the fastest that held-out samples allow, if it is faster than the original."""
        feeds, least = self.samples.held_out, float("inf")
        originals = self._originals(feeds)
        for each in self._in_order(candidates):
            error = self._error(each.model, feeds, originals)
            self.n_judged += 1
            least = min(least, error)
            if error <= self.limit:
                return self._promised(each._replace(error=error), heavy)
        raise self._too_far(least)

    def _in_order(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """Return the fastest first, on the processor where each gains least."""
        if not self.processors:
            return sorted(candidates, key=lambda each: each.error)
        gains = []
        for each in candidates:
            self.tell(f"times of int8: {each.way}")
            gains.append(min(row.ratio.median for row in self._contests(each.model)))
        order = sorted(range(len(gains)), key=lambda at: -gains[at])
        return [candidates[at] for at in order]

    def _promised(self, chosen: _Candidate, heavy: int) -> CompressedModel:
        if not self.processors:
            return self._result(chosen, (), heavy)
        self.tell("the fastest against the original")
        rows = processor_reports(self.processors, partial(self._contests, chosen.model))
        slower = [row for row in rows if not row.ratio.is_better]
        if not slower:
            return self._result(chosen, rows, heavy)
        texts = ", ".join(f"{row.name}: {row.ratio}" for row in slower)
        self.warnings.append(
            f"{self.model.name} is left as it is: in int8 it is not surely faster ({texts})"
        )
        return self._result(None, (), heavy)

    def _too_far(self, least: float) -> ConfigurationError:
        return ConfigurationError(
            f"model {self.model.name!r}: --max-error {self.limit:g} cannot be kept in int8: of all "
            f"ways tried, the least that outputs are off is {least:.3g}; allow more, or give more "
            "inputs to calibrate with"
        )

    def _originals(self, feeds: Sequence[Tensors]) -> list[Tensors]:
        return outputs_of(self.model, feeds, self.backends[REFERENCE.backend])

    def _error(self, model: Model, feeds: Sequence[Tensors], originals: Sequence[Tensors]) -> float:
        """Return how far outputs are off the reference, on whatever processor they are furthest."""
        return worst_error(model, feeds, originals, self.processors, self.backends)

    def _contests(self, model: Model, rounds: int = LEAST_ROUNDS) -> list[Contest]:
        feeds = self.samples.calibration[:_FEEDS]
        return contests(model, self.model, feeds, self.processors, self.backends, rounds=rounds)

    def _result(
        self, chosen: _Candidate | None, rows: Sequence[ProcessorReport], heavy: int
    ) -> CompressedModel:
        model = self.model if chosen is None else chosen.model
        cost = total(operator_costs(bound_to(self.model, self.samples.calibration[0])))
        int8 = None
        if chosen is not None:
            int8 = Int8Report(
                way=str(chosen.way),
                layers=(_n_quantised(model), heavy),
                weight_bytes=(self.model.weight_bytes, model.weight_bytes),
            )
        report = CompressionReport(
            model=self.model.name,
            rule="int8",
            is_data_aware=True,
            max_error=self.limit if self.limit < float("inf") else None,
            layers=(),
            left={},
            macs=(cost.macs, cost.macs),
            parameters=(cost.trainable_parameters, cost.trainable_parameters),
            output_error=0.0 if chosen is None else chosen.error,
            held_out=len(self.samples.held_out),
            judged=self.n_judged,
            processors=rows,
            warnings=tuple(self.warnings),
            int8=int8,
        )
        return CompressedModel(model=model, report=report)


def _n_quantised(model: Model) -> int:
    """Count the heavy operators both of whose operands were quantised."""

    def is_quantised(value: ir.Value | None) -> bool:
        maker = None if value is None else value.producer()
        return maker is not None and maker.op_type == "DequantizeLinear"

    heavy = [node for node in model.graph.graph if node.op_type in MATRIX_PRODUCTS]
    return sum(all(is_quantised(value) for value in node.inputs[:2]) for node in heavy)


def _ways(heavy: Sequence[str]) -> Iterator[Way]:
    """Yield the ways to try, the plainest first."""
    for is_whole in (True, False):
        for method in ("MinMax", "Percentile"):
            yield Way(method=method, is_whole=is_whole)
    # The ends see raw inputs and make the answers: where int8 hurts most, and little is computed.
    if len(heavy) > 2:
        for keeps in ((heavy[-1],), (heavy[0], heavy[-1])):
            yield Way(keeps=keeps)
