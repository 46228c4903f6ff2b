"""Site: one operator as it occurs in M models, and what is known of what it reads and writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.match import Match
from coinfer.graph.fusing.signature import settings_of
from coinfer.graph.operators import DRAWS_RANDOM, subgraphs

__all__ = ["Site", "Sites"]

_RAGGED: Final = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})
"""What these give has a size that depends on data."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """An operator of all models.

    Attributes:
        nodes: The operator in each model.
        inputs: What it reads; None where an optional input is left out.
        outputs: What it writes; None where an optional output is left out.
        opset: The version of ONNX's own operators.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[Bundle | None, ...]
    outputs: tuple[Bundle | None, ...]
    opset: int

    @property
    def node(self) -> ir.Node:
        """The operator in the first model."""
        return self.nodes[0]

    @property
    def op_type(self) -> str:
        """Its type, with the domain before it unless that is the standard one."""
        node = self.node
        return f"{node.domain}.{node.op_type}" if node.domain else node.op_type

    @property
    def name(self) -> str:
        """Its name in the first model, or what it makes if it has none."""
        made = (bundle.name for bundle in self.outputs if bundle is not None)
        return self.node.name or next(made, "")

    @property
    def models(self) -> int:
        """How many models there are."""
        return len(self.nodes)

    @property
    def is_shared(self) -> bool:
        """Whether it computes the same in all models, so that once is enough."""
        made = [bundle for bundle in self.outputs if bundle is not None]
        return all(bundle.is_shared for bundle in made)

    @property
    def out(self) -> Bundle:
        """Its first output."""
        found = self.outputs[0]
        assert found is not None
        return found

    def input(self, index: int) -> Bundle | None:
        """Return an input, None if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def given(self, index: int) -> Bundle:
        """Return an input that the operator must have."""
        found = self.inputs[index]
        assert found is not None
        return found

    def number(self, name: str, default: int) -> int:
        """Return an attribute."""
        return self.node.attributes.get_int(name, default)

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Return an attribute, None if it is left out."""
        if name not in self.node.attributes:
            return None
        return tuple(self.node.attributes.get_ints(name))

    def constant(self, index: int) -> np.ndarray[Any, Any] | None:
        """Return an input that is stored and the same in all models; None if it is not."""
        bundle = self.input(index)
        if bundle is None or not (bundle.is_stored and bundle.is_shared):
            return None
        return bundle.arrays[0]


class Sites:
    """All sites of matched models, in topological order, and the bundles between them.

    Args:
        match: What corresponds. `outputs` are those that do.
        same_inputs: Names of inputs, in the first model, that all models are given the same.
    """

    def __init__(self, match: Match, same_inputs: Collection[str] = ()) -> None:
        self.match = match
        self._bundles: dict[tuple[ir.Value, ...], Bundle] = {}
        graphs = [model.graph for model in match.models]
        self.inputs = tuple(
            self._add(values, is_shared=values[0].name in same_inputs)
            for values in zip(*(graph.inputs for graph in graphs), strict=True)
        )
        opset = match.models[0].opset_imports.get("", 1)
        self.items = tuple(self._site(nodes, opset) for nodes in match.nodes)
        last = zip(*(graph.outputs for graph in graphs), strict=False)
        self.outputs = tuple(self._bundles[key] for key in last if key in self._bundles)

    def find(self, values: Sequence[ir.Value]) -> Bundle | None:
        """Return the bundle of values, None if they do not correspond."""
        return self._bundles.get(tuple(values))

    def bundle(self, values: Sequence[ir.Value]) -> Bundle:
        """Return the bundle of values that correspond; made if they are stored."""
        key = tuple(values)
        if key not in self._bundles:
            tensors = [value.const_value for value in key]
            shared = all(_equal(tensors[0], tensor) for tensor in tensors[1:])
            self._add(key, is_shared=shared, is_stored=True)
        return self._bundles[key]

    def _add(
        self,
        values: tuple[ir.Value, ...],
        *,
        is_shared: bool,
        is_stored: bool = False,
        is_uniform: bool = True,
    ) -> Bundle:
        bundle = Bundle(
            values=values,
            is_stored=is_stored,
            is_shared=is_shared or len(values) == 1,
            is_uniform=is_uniform or is_shared,
        )
        self._bundles[values] = bundle
        return bundle

    def _site(self, nodes: tuple[ir.Node, ...], opset: int) -> Site:
        first = nodes[0]
        inputs: list[Bundle | None] = []
        for index, value in enumerate(first.inputs):
            values = [node.inputs[index] for node in nodes]
            known = [each for each in values if each is not None]
            inputs.append(None if value is None else self.bundle(known))
        shared, uniform = _is_shared(first, inputs), _is_uniform(first, inputs)
        outputs: list[Bundle | None] = []
        for index, value in enumerate(first.outputs):
            if not value.name:
                outputs.append(None)
                continue
            static = value.shape is not None and value.shape.is_static()
            outputs.append(
                self._add(
                    tuple(node.outputs[index] for node in nodes),
                    is_shared=shared,
                    is_uniform=uniform or static,
                )
            )
        return Site(nodes=nodes, inputs=tuple(inputs), outputs=tuple(outputs), opset=opset)


def _equal(one: ir.TensorProtocol | None, other: ir.TensorProtocol | None) -> bool:
    if one is other:
        return True
    assert one is not None
    assert other is not None
    return one.dtype == other.dtype and one.shape == other.shape and _bytes_equal(one, other)


def _bytes_equal(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    if one.dtype == ir.DataType.STRING:
        return bool(one.numpy().tolist() == other.numpy().tolist())
    return one.tobytes() == other.tobytes()


def _is_shared(node: ir.Node, inputs: Iterable[Bundle | None]) -> bool:
    if node.domain or node.op_type in DRAWS_RANDOM or next(subgraphs(node), None) is not None:
        return False  # it may compute something else each time, or reads what is not listed
    given = [bundle for bundle in inputs if bundle is not None]
    if node.op_type in ("Shape", "Size"):
        return all(bundle.is_uniform for bundle in given)
    return all(bundle.is_shared for bundle in given)


def _is_uniform(node: ir.Node, inputs: Sequence[Bundle | None]) -> bool:
    if node.domain or node.op_type in _RAGGED or next(subgraphs(node), None) is not None:
        return False
    settings = [inputs[at] for at in settings_of(node) if at < len(inputs)]
    given = all(bundle.is_uniform for bundle in inputs if bundle is not None)
    return given and all(bundle.is_shared for bundle in settings if bundle is not None)
