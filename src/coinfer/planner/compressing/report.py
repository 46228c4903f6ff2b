"""Report: what became of a model's layers, what that gains and what it costs. Values only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coinfer.graph.compressing.layer import WAS, Layer, Ranks
from coinfer.graph.compressing.search import Point
from coinfer.metrics.paired import PairedRatio

__all__ = ["CompressionReport", "Int8Report", "LayerReport", "ProcessorReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """One layer.

    Attributes:
        layer: Its sizes and costs.
        ranks: What it was given; no ranks: it was left as it is.
        why: Why it was left, in half a sentence; empty if it was not.
        seconds: By processor, before and after, of the layer alone; empty if not measured.
        weight_error: ||W~ - W|| / ||W||; None if it was left, or not computed.
        output_error: Of the whole network with this layer alone decomposed, on calibration
            samples; None if not measured.
    """

    layer: Layer
    ranks: Ranks
    why: str = ""
    seconds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    weight_error: float | None = None
    output_error: float | None = None

    @property
    def is_decomposed(self) -> bool:
        """Whether it has parts now."""
        return self.ranks != WAS

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.layer.name,
            "kind": self.layer.kind.value,
            "channels": [self.layer.inputs, self.layer.outputs],
            "groups": self.layer.groups,
            "kernel": list(self.layer.kernel),
            "ranks": list(self.ranks) if self.is_decomposed else None,
            "left_because": self.why or None,
            "macs": [self.layer.macs(), self.layer.macs(self.ranks)],
            "parameters": [self.layer.parameters(), self.layer.parameters(self.ranks)],
            "ms": {name: [s * 1e3 for s in pair] for name, pair in self.seconds.items()},
            "weight_error": self.weight_error,
            "output_error": self.output_error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorReport:
    """The whole network on one processor.

    Attributes:
        name: The processor.
        before_s: Seconds per run of the original.
        after_s: Of the compressed one, in the same rounds.
        ratio: How many times as fast the compressed one is.
    """

    name: str
    before_s: float
    after_s: float
    ratio: PairedRatio

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "processor": self.name,
            "ms": [self.before_s * 1e3, self.after_s * 1e3],
            "times_as_fast": self.ratio.median,
            "interval": [self.ratio.lower, self.ratio.upper],
            "rounds": self.ratio.rounds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Report:
    """What became of a model in int8.

    Attributes:
        way: How ranges and scales were chosen, in a few words.
        layers: Convolutions, dense layers and matrix products: those quantised, and all.
        weight_bytes: Before and after.
    """

    way: str
    layers: tuple[int, int]
    weight_bytes: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "way": self.way,
            "layers": list(self.layers),
            "weight_bytes": list(self.weight_bytes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionReport:
    """A compressed model beside its original.

    Attributes:
        model: The model's name.
        rule: How ranks were chosen, as on the command line, or `int8`.
        is_data_aware: Whether calibration samples shaped the factors.
        max_error: The error that was allowed; None: it was not limited.
        layers: Those that could be decomposed, in the order of the graph.
        left: Why other convolutions and dense layers could not, by name.
        macs: Multiply-accumulate operations before and after; None where shapes are open.
        parameters: Trainable parameters before and after.
        output_error: Largest ||out - ref|| / ||ref|| over outputs and held-out samples; None if it
            was not measured.
        held_out: How many samples judged.
        judged: How many choices they judged until one was taken: from 2 on they took part in
            choosing, though not in factors, ranks or ranges.
        processors: Measured there; empty if not.
        curve: Error against time, as measured on the way; empty unless ranks are by latency.
        warnings: What a user must know.
        int8: What was quantised; None: nothing.
    """

    model: str
    rule: str
    is_data_aware: bool
    max_error: float | None
    layers: Sequence[LayerReport]
    left: Mapping[str, str]
    macs: tuple[int | None, int | None]
    parameters: tuple[int, int]
    output_error: float | None = None
    held_out: int = 0
    judged: int = 0
    processors: Sequence[ProcessorReport] = ()
    curve: Sequence[Point] = ()
    warnings: Sequence[str] = ()
    int8: Int8Report | None = None

    @property
    def decomposed(self) -> list[LayerReport]:
        """The layers that have parts now."""
        return [layer for layer in self.layers if layer.is_decomposed]

    @property
    def macs_removed(self) -> float | None:
        """Share of the operations that is gone."""
        before, after = self.macs
        return None if not before or after is None else 1 - after / before

    def to_json(self) -> dict[str, Any]:
        """Return plain values, times in ms."""
        return {
            "format": "coinfer-compression/1",
            "model": self.model,
            "rule": self.rule,
            "data_aware": self.is_data_aware,
            "max_error": self.max_error,
            "macs": list(self.macs),
            "macs_removed": self.macs_removed,
            "parameters": list(self.parameters),
            "output_error": _plain(self.output_error),
            "held_out_samples": self.held_out,
            "choices_judged": self.judged,
            "processors": [each.to_json() for each in self.processors],
            "layers": [each.to_json() for each in self.layers],
            "left": dict(self.left),
            "curve": [
                {"steps": p.taken, "saved_ms": p.saved_s * 1e3, "error": _plain(p.error)}
                for p in self.curve
            ],
            "warnings": list(self.warnings),
            "int8": None if self.int8 is None else self.int8.to_json(),
        }


def _plain(error: float | None) -> float | str | None:
    """Return an error as JSON can hold it."""
    return "inf" if error == math.inf else error
