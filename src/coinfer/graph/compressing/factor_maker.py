"""Factor maker: decomposes a model's layers at any ranks, by their weights or by moments too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.factors import Array, Factors, plain_factors
from coinfer.graph.compressing.layer import Layer, Ranks, check_ranks
from coinfer.graph.compressing.layers import Site, canonical, site_of
from coinfer.graph.compressing.moments import Moments
from coinfer.graph.compressing.spectrum import Spectrum
from coinfer.graph.compressing.whitened import Whitener
from coinfer.graph.operators import inlined, nodes_by_key

__all__ = ["FactorMaker"]


class FactorMaker:
    """Decomposes layers of one model; what was made is kept.

    Args:
        model: The model; it is not changed.
        layers: Those that may be asked for.
        moments: Of the inputs of layers, by key; a layer without is decomposed by its weights
            alone.
    """

    def __init__(
        self,
        model: ir.Model,
        layers: Iterable[Layer],
        moments: Mapping[str, Moments] = MappingProxyType({}),
    ) -> None:
        nodes = nodes_by_key(inlined(model))
        self._layers = {layer.key: layer for layer in layers}
        self._sites = {key: _site(nodes[key]) for key in self._layers}
        self._moments = moments
        self._made: dict[tuple[str, Ranks], Factors] = {}
        self._whitener: tuple[str, Whitener] | None = None  # of one layer: they are large

    def weight(self, key: str) -> Array:
        """Return a layer's weight, (groups, outputs, inputs, *kernel).

        Raises:
            ConfigurationError: it is not finite.
        """
        weight = canonical(self._sites[key])
        if not np.isfinite(weight).all():
            raise ConfigurationError(
                f"layer {self._layers[key].name!r} has weights that are not finite, and cannot be "
                "decomposed; repair the model"
            )
        return weight

    def spectrum(self, key: str) -> Spectrum:
        """Return a layer's spectrum, as its inputs see it if their moments are known."""
        if key in self._moments:
            return self._whitened(key).spectrum
        return Spectrum.of(self.weight(key))

    def factors(self, key: str, ranks: Ranks) -> Factors:
        """Decompose a layer.

        Raises:
            ConfigurationError: it cannot have these ranks, or `tensorly` is not installed.
        """
        if (key, ranks) not in self._made:
            check_ranks(self._layers[key], ranks)
            if key in self._moments:
                found = self._whitened(key).factors(ranks)
            else:
                found = plain_factors(self.weight(key), ranks)
            self._made[key, ranks] = found
        return self._made[key, ranks]

    def all_of(self, choice: Mapping[str, Ranks]) -> dict[str, Factors]:
        """Return the factors of several layers."""
        return {key: self.factors(key, ranks) for key, ranks in choice.items()}

    def _whitened(self, key: str) -> Whitener:
        if self._whitener is None or self._whitener[0] != key:
            shifts = self._sites[key].takes_shift
            whitener = Whitener(self.weight(key), self._moments[key], shifts=shifts)
            self._whitener = (key, whitener)
        return self._whitener[1]


def _site(node: ir.Node) -> Site:
    site = site_of(node)
    if isinstance(site, str):
        raise ConfigurationError(f"layer {node.name!r} cannot be decomposed: {site}")
    return site
