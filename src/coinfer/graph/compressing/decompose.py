"""Decompose: put factors in the place of layers. Chooses nothing.

A convolution (kernel K, Ci to Co channels) becomes 1x1 (Ci to R3), K (R3 to R4, with the strides,
pads and dilations), 1x1 (R4 to Co, with the bias). A 1x1 convolution or a dense layer becomes two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.factors import Factors, convolution_parts
from coinfer.graph.compressing.layers import Site, site_of
from coinfer.graph.inference import mark
from coinfer.graph.initializers import Initializers
from coinfer.graph.operators import inlined, nodes_by_key
from coinfer.model.canonical import constant_tensor

__all__ = ["decomposed", "shifted_bias"]

_PLACED: Final = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")
"""Attributes that say where a convolution looks: one part has them."""


def decomposed(model: ir.Model, factors: Mapping[str, Factors]) -> ir.Model:
    """Return a copy in which layers are replaced by their factors.

    Names of inputs, outputs and of all values that other layers make stay; weights are shared.

    Args:
        model: Any valid model; it is not changed.
        factors: By the key of the layer.

    Raises:
        ConfigurationError: there is no such layer.
    """
    whole = inlined(model)
    mark(whole)
    clone = whole.clone()
    # Old files list their weights among the inputs, which says nothing; here they need not be.
    clone.graph.inputs[:] = [value for value in clone.graph.inputs if value.const_value is None]
    nodes = nodes_by_key(clone)
    rewriter = _Rewriter(clone.graph)
    for key, parts in factors.items():
        site = site_of(nodes[key]) if key in nodes else "there is no such layer"
        if isinstance(site, str):
            raise ConfigurationError(f"layer {key!r} cannot be decomposed: {site}")
        rewriter.replace(site, key, parts)
    rewriter.drop_unused()
    # Before IR version 4 each weight was an input too, and new ones are not.
    clone.ir_version = max(4, clone.ir_version)
    return clone


def shifted_bias(site: Site, factors: Factors) -> npt.NDArray[Any] | None:
    """Return the bias of a decomposed layer; None if it stays what it is.

    Raises:
        ConfigurationError: it should change and cannot.
    """
    if factors.shift is None:
        return None
    if not site.takes_shift:
        raise ConfigurationError(f"layer {site.node.name!r} has no bias that could be shifted")
    value = site.node.inputs[2] if len(site.node.inputs) > 2 else None
    tensor = None if value is None else constant_tensor(value)
    before: Any = 0.0 if tensor is None else np.asarray(tensor.numpy(), np.float64)
    return np.asarray(before + factors.shift, dtype=site.weight.dtype.numpy())


class _Rewriter:
    """Replaces layers of one graph, in place."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._initializers = Initializers(graph)
        self._replaced: dict[ir.Value, None] = {}

    def replace(self, site: Site, key: str, factors: Factors) -> None:
        """Put the parts before the layer's own node, which becomes the last of them."""
        node = site.node
        bias = shifted_bias(site, factors)
        self._replaced |= {value: None for value in node.inputs[1:] if value is not None}
        if node.op_type == "Conv":
            self._replace_convolution(site, key, factors)
        else:
            self._replace_dense(site, key, factors)
        if bias is not None:
            value = self._initializers.add(f"{key}.bias", bias)
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            node.replace_input_with(2, value)

    def drop_unused(self) -> None:
        """Forget the weights that nobody uses any more."""
        self._initializers.drop_unused(self._replaced)

    def _replace_convolution(self, site: Site, key: str, factors: Factors) -> None:
        node, dtype = site.node, site.weight.dtype
        placed = {name: node.attributes[name] for name in _PLACED if name in node.attributes}
        groups = factors.core.shape[0]
        parts = convolution_parts(factors)
        value = node.inputs[0]
        for part in parts:
            weight = self._initializers.add(f"{key}.{part.name}", part.weight.astype(dtype.numpy()))
            attributes = {"group": ir.AttrInt64("group", groups)}
            attributes |= placed if part.is_placed else {}
            if part is not parts[-1]:
                value = self._before(
                    node, "Conv", [value, weight], attributes, f"{key}.{part.name}"
                )
                continue
            node.replace_input_with(0, value)
            node.replace_input_with(1, weight)
            node.attributes.clear()
            node.attributes.update(attributes)

    def _replace_dense(self, site: Site, key: str, factors: Factors) -> None:
        node, dtype = site.node, site.weight.dtype
        if factors.inputs is None:
            raise ConfigurationError(f"layer {key!r} is dense and has one rank; none is given")
        first = self._initializers.add(f"{key}.first", factors.inputs[0].astype(dtype.numpy()))
        core = factors.core[0] if site.is_transposed else factors.core[0].T
        last = self._initializers.add(f"{key}.core", core.astype(dtype.numpy()))
        value = self._before(node, "MatMul", [node.inputs[0], first], {}, f"{key}.first")
        node.replace_input_with(0, value)
        node.replace_input_with(1, last)

    def _before(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Iterable[ir.Value | None],
        attributes: Mapping[str, ir.Attr],
        name: str,
    ) -> ir.Value:
        """Insert a node before another one; return what it makes."""
        made = ir.Node(
            "", op_type, inputs, list(attributes.values()), name=name, version=node.version
        )
        value = made.outputs[0]
        value.name = self._initializers.free(f"{name}.value")
        value.type = node.outputs[0].type
        self._graph.insert_before(node, made)
        return value
