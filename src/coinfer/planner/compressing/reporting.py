"""Reporting: say of each layer what became of it, and why. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coinfer.graph.compressing.factor_maker import FactorMaker
from coinfer.graph.compressing.factors import relative_gap
from coinfer.graph.compressing.layer import WAS, Layer, Ranks
from coinfer.graph.compressing.layers import Layers
from coinfer.graph.compressing.search import Choice, Found
from coinfer.planner.compressing.report import LayerReport

__all__ = ["layer_reports"]


def layer_reports(
    layers: Layers,
    choice: Choice,
    found: Found | None,
    processors: Sequence[str],
    maker: FactorMaker | None,
    *,
    heeds_error: bool,
) -> list[LayerReport]:
    """Report on all layers, in the order of the graph.

    Args:
        layers: Those that could be decomposed.
        choice: Their ranks.
        found: What was measured; None: nothing.
        processors: Their names, in the order of the times.
        maker: Made the factors; None: there are none.
        heeds_error: Whether errors were measured.
    """
    reports = [_report(layer, choice, found, processors, maker) for layer in layers]
    return reports if heeds_error else [replace(each, output_error=None) for each in reports]


def _report(
    layer: Layer,
    choice: Choice,
    found: Found | None,
    processors: Sequence[str],
    maker: FactorMaker | None,
) -> LayerReport:
    ranks = choice.get(layer.key, WAS)
    weight_error = None
    if maker is not None and ranks != WAS:
        weight_error = relative_gap(maker.weight(layer.key), maker.factors(layer.key, ranks).weight)
    return LayerReport(
        layer=layer,
        ranks=ranks,
        why="" if ranks != WAS else _why(layer, found),
        seconds={} if found is None else _seconds(found, layer.key, ranks, processors),
        weight_error=weight_error,
        output_error=None if found is None else found.errors.get((layer.key, ranks)),
    )


def _seconds(
    found: Found, key: str, ranks: Ranks, processors: Sequence[str]
) -> Mapping[str, tuple[float, float]]:
    times = found.seconds.get(key, {})
    if WAS not in times or ranks not in times:
        return {}
    pairs = zip(processors, times[WAS], times[ranks], strict=True)
    return {name: (before, after) for name, before, after in pairs}


def _why(layer: Layer, found: Found | None) -> str:
    if found is None:
        return "its parts would have as many weights"
    if layer.key in found.undone:
        return "it is not faster in the whole network"
    if layer.macs() is None:
        return "its sizes are not known, so it cannot be timed"
    if len(found.seconds.get(layer.key, ())) < 2:
        return "it is too small to matter"
    if not any(key == layer.key for key, _ in found.errors):
        return "it is not faster at any rank tried"
    return "it would cost more error than was left"
