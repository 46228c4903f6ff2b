"""Substitution: a model whose layers take their weights from outside, to try many of them.

It is compiled once. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coinfer.graph.compressing.decompose import shifted_bias
from coinfer.graph.compressing.factors import Factors
from coinfer.graph.compressing.layers import Site, restored, site_of
from coinfer.graph.inference import mark
from coinfer.graph.operators import inlined, nodes_by_key
from coinfer.model import Model, model_from_ir

__all__ = ["Substitution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitution:
    """A model with further inputs: the weights and biases of some layers.

    Attributes:
        model: That model.
        sites: Where the weights are, by key of the layer.
    """

    model: Model
    sites: Mapping[str, Site]

    @classmethod
    def of(cls, model: Model, keys: Iterable[str]) -> Substitution:
        """Open the weights of these layers."""
        whole = inlined(model.graph)
        mark(whole)
        clone = whole.clone()
        nodes, graph = nodes_by_key(clone), clone.graph
        sites = {}
        for key in keys:
            site = site_of(nodes[key])
            assert not isinstance(site, str), site
            sites[key] = site
            node = site.node
            _open(graph, node, 1, _weight_name(key), ir.Shape(site.weight.shape.numpy()), site)
            if site.takes_shift:
                if len(node.inputs) < 3:
                    node.resize_inputs(3)
                size = _bias(site, None).shape
                _open(graph, node, 2, _bias_name(key), ir.Shape(size), site)
        originals = nodes_by_key(whole)
        found = {key: site_of(originals[key]) for key in sites}
        return cls(
            model=model_from_ir(clone, name=model.name),
            sites={key: site for key, site in found.items() if isinstance(site, Site)},
        )

    def feed(self, factors: Mapping[str, Factors]) -> dict[str, npt.NDArray[Any]]:
        """Return the further inputs: the products of these factors, and the weights of the rest."""
        found = {}
        for key, site in self.sites.items():
            parts = factors.get(key)
            weight = site.weight.numpy() if parts is None else restored(site, parts.weight)
            found[_weight_name(key)] = np.asarray(weight)
            if site.takes_shift:
                found[_bias_name(key)] = _bias(site, parts)
        return found


def _weight_name(key: str) -> str:
    return f"coinfer.weight.{key}"


def _bias_name(key: str) -> str:
    return f"coinfer.bias.{key}"


def _open(
    graph: ir.Graph, node: ir.Node, position: int, name: str, shape: ir.Shape, site: Site
) -> None:
    value = ir.val(name, site.weight.dtype, shape)
    graph.inputs.append(value)
    node.replace_input_with(position, value)


def _bias(site: Site, factors: Factors | None) -> npt.NDArray[Any]:
    """Return the bias, also where it is left out."""
    shape = tuple(int(dim) for dim in site.weight.shape.numpy())
    outputs = shape[0] if site.node.op_type == "Conv" or site.is_transposed else shape[1]
    zeros = Factors(None, np.empty(0), None, np.zeros(outputs))
    found = None if factors is None else shifted_bias(site, factors)
    if found is None:
        found = shifted_bias(site, zeros)
    assert found is not None
    return found
