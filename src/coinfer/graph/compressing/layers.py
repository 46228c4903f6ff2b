"""Layers: find what of a graph can be decomposed, and say why the rest cannot. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coinfer.graph.compressing.layer import Kind, Layer
from coinfer.graph.operators import inlined, nodes_by_key
from coinfer.graph.shapes import bind_shapes, static_shape
from coinfer.model.canonical import constant_tensor

__all__ = ["Layers", "Site", "canonical", "restored", "site_of"]

_DENSE: Final = ("Gemm", "MatMul")
_KINDS: Final = ("Conv", *_DENSE)


class Site(NamedTuple):
    """Where a layer's weights are.

    Attributes:
        node: The operator.
        weight: Its weight as it is stored.
        is_transposed: Whether a dense weight is stored as (outputs, inputs).
        takes_shift: Whether something can be added to its bias, or it can get one.
    """

    node: ir.Node
    weight: ir.TensorProtocol
    is_transposed: bool
    takes_shift: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The layers of a graph that can be decomposed.

    Attributes:
        items: In the order of the graph.
        left: Why others are not among them, by name.
    """

    items: tuple[Layer, ...]
    left: Mapping[str, str]

    @classmethod
    def of(
        cls,
        model: ir.Model,
        *,
        svd: bool = False,
        bound: ir.Model | None = None,
    ) -> Layers:
        """Find convolutions with kernels above 1x1, and on demand what is a matrix.

        Args:
            model: Any valid model; it is not changed, and its weights are not read.
            svd: Find 1x1 convolutions and dense layers too.
            bound: The same with its shapes bound, which costs are for; None: at batch 1.
        """
        settled = nodes_by_key(bind_shapes(model) if bound is None else bound)
        found, left = [], {}
        for key, node in nodes_by_key(inlined(model)).items():
            if node.op_type not in _KINDS or node.domain not in ("", "ai.onnx"):
                continue
            name = node.name or key
            layer = _layer_of(node, settled.get(key), key, name)
            if isinstance(layer, str):
                left[name] = layer
            elif layer.is_matrix and not svd:
                left[name] = f"{layer.kind.value}s are decomposed on demand only"
            else:
                found.append(layer)
        return cls(items=tuple(found), left=left)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def site_of(node: ir.Node) -> Site | str:
    """Find a layer's weight, or say why it cannot be decomposed."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return "it has no weight"
    value = node.inputs[1]
    tensor = constant_tensor(value)
    if value.is_graph_output():
        return "its weight is an output of the model"
    if tensor is None:
        return f"its weight is {'an input of the model' if value.is_graph_input() else 'computed'}"
    if not tensor.dtype.is_floating_point():
        return "its weight is not of floating point"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and constant_tensor(bias) is None and not bias.is_graph_input():
        return "its bias is computed"
    rank = len(tensor.shape.numpy())
    if node.op_type == "Conv":
        if rank < 3:
            return "its weight is no convolution's"
        return Site(node, tensor, False, _has_plain_bias(node))
    if rank != 2 or node.attributes.get_int("transA", 0) != 0:
        return "its weight is no matrix that is multiplied from the right"
    is_transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
    scales = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    takes_shift = node.op_type == "Gemm" and scales == [1.0, 1.0] and _has_plain_bias(node)
    return Site(node, tensor, is_transposed, takes_shift)


def _has_plain_bias(node: ir.Node) -> bool:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return True
    return constant_tensor(bias) is not None


def canonical(site: Site) -> npt.NDArray[np.float64]:
    """Read a weight as (groups, outputs, inputs, *kernel), sizes of one group."""
    array: npt.NDArray[Any] = np.asarray(site.weight.numpy(), dtype=np.float64)
    if site.node.op_type == "Conv":
        groups = site.node.attributes.get_int("group", 1)
        return array.reshape(groups, array.shape[0] // groups, *array.shape[1:])
    return (array if site.is_transposed else array.T)[np.newaxis]


def restored(site: Site, weight: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Write a canonical weight as the site stores it."""
    if site.node.op_type == "Conv":
        array = weight.reshape(-1, *weight.shape[2:])
    else:
        array = weight[0] if site.is_transposed else weight[0].T
    return np.ascontiguousarray(array.astype(site.weight.dtype.numpy()))


def _layer_of(node: ir.Node, bound: ir.Node | None, key: str, name: str) -> Layer | str:
    site = site_of(node)
    if isinstance(site, str):
        return site
    shape = tuple(int(dim) for dim in site.weight.shape.numpy())
    if 0 in shape:
        return "it has no weights"
    if node.op_type == "Conv":
        groups = node.attributes.get_int("group", 1)
        if groups < 1 or shape[0] % groups:
            return "its outputs cannot be divided among its groups"
        outputs, inputs, kernel = shape[0] // groups, shape[1], shape[2:]
        kind = Kind.CONVOLUTION if prod(kernel) > 1 else Kind.POINTWISE
        if inputs == 1 or outputs == 1:
            return "it has one channel per group"
    else:
        outputs, inputs = shape if site.is_transposed else shape[::-1]
        groups, kernel, kind = 1, (), Kind.DENSE
        if inputs == 1 or outputs == 1:
            return "it has one channel"
    return Layer(
        key=key,
        name=name,
        kind=kind,
        groups=groups,
        inputs=inputs,
        outputs=outputs,
        kernel=kernel,
        in_places=_places(bound.inputs[0] if bound else None, groups * inputs),
        out_places=_places(bound.outputs[0] if bound else None, groups * outputs),
    )


def _places(value: ir.Value | None, channels: int) -> int | None:
    shape = static_shape(value)
    return None if shape is None else prod(shape) // channels
