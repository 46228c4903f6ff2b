"""Operators that multiply matrices, that normalise, and that quantise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coinfer.backends.torch.library import functional, torch
from coinfer.backends.torch.operators.node import (
    DTYPES,
    FLOATS,
    Operator,
    OperatorNode,
)

__all__ = ["NORMALISATIONS", "PRODUCTS", "QUANTISATION"]


def _gemm(node: OperatorNode, a: Any, b: Any, c: Any = None) -> Any:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    a = a.transpose(0, 1) if node.get("transA", 0) else a
    is_plain = alpha == beta == 1.0 and node.get("transB", 0)
    if is_plain and (c is None or c.shape == b.shape[:1]):
        return functional.linear(a, b, c)
    product = a @ (b.transpose(0, 1) if node.get("transB", 0) else b)
    product = product if alpha == 1.0 else alpha * product
    return product if c is None else product + (c if beta == 1.0 else beta * c)


def _einsum(node: OperatorNode, *values: Any) -> Any:
    return torch.einsum(node.get("equation").replace(" ", ""), *values)


PRODUCTS: Mapping[str, Operator] = {
    "Einsum": Operator(function=_einsum, types=FLOATS),
    "Gemm": Operator(function=_gemm, types=FLOATS),
    "MatMul": Operator(function=lambda _, a, b: torch.matmul(a, b), types=FLOATS),
}


def _batch_norm(node: OperatorNode, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    epsilon = node.get("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)


def _refuses_training(node: OperatorNode) -> str:
    trains = node.get("training_mode", 0) or any(node.outputs[1:]) or not node.get("spatial", 1)
    return "it is in training mode" if trains else ""


def _instance_norm(node: OperatorNode, x: Any, scale: Any, bias: Any) -> Any:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


def _layer_norm(node: OperatorNode, x: Any, scale: Any, bias: Any = None) -> Any:
    axis = node.get("axis", -1) % x.dim()
    shape, epsilon = x.shape[axis:], node.get("epsilon", 1e-5)
    fits = scale.shape == shape and (bias is None or bias.shape == shape)
    if fits and not any(node.outputs[1:]):
        return functional.layer_norm(x, shape, scale, bias, epsilon)
    axes = list(range(axis, x.dim()))
    mean = torch.mean(x, axes, keepdim=True)
    inverse = torch.rsqrt(torch.mean((x - mean) ** 2, axes, keepdim=True) + epsilon)
    made = (x - mean) * inverse * scale
    return made if bias is None else made + bias, mean, inverse


def _rms_norm(node: OperatorNode, x: Any, scale: Any) -> Any:
    axes = list(range(node.get("axis", -1) % x.dim(), x.dim()))
    square = torch.mean(x * x, axes, keepdim=True)
    return x * torch.rsqrt(square + node.get("epsilon", 1e-5)) * scale


def _group_norm(node: OperatorNode, x: Any, scale: Any, bias: Any) -> Any:
    groups = node.get("num_groups")
    return functional.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


def _refuses_old(node: OperatorNode) -> str:
    return "before operator set 21 it scales groups" if node.version < 21 else ""


def _local_response(node: OperatorNode, x: Any) -> Any:
    size = node.get("size")
    before = (size - 1) // 2
    beyond = [0, 0] * (x.dim() - 2) + [before, size - 1 - before]
    squares = functional.pad(x * x, beyond)
    total = sum(squares.narrow(1, at, x.shape[1]) for at in range(size))
    alpha, beta = node.get("alpha", 1e-4), node.get("beta", 0.75)
    return x / (node.get("bias", 1.0) + alpha / size * total) ** beta


def _mean_variance(node: OperatorNode, x: Any) -> Any:
    axes = list(node.get("axes", (0, 2, 3)))
    mean = torch.mean(x, axes, keepdim=True)
    deviation = torch.sqrt(torch.mean((x - mean) ** 2, axes, keepdim=True))
    return (x - mean) / (deviation + 1e-9)


NORMALISATIONS: Mapping[str, Operator] = {
    "BatchNormalization": Operator(
        function=_batch_norm, types=FLOATS, refuses=_refuses_training, outputs=5
    ),
    "GroupNormalization": Operator(function=_group_norm, types=FLOATS, refuses=_refuses_old),
    "InstanceNormalization": Operator(function=_instance_norm, types=FLOATS),
    "LRN": Operator(function=_local_response, types=FLOATS),
    "LayerNormalization": Operator(function=_layer_norm, types=FLOATS, outputs=3),
    "MeanVarianceNormalization": Operator(function=_mean_variance, types=FLOATS),
    "RMSNormalization": Operator(function=_rms_norm, types=FLOATS),
}

_BYTES = frozenset({2, 3})


def _along(node: OperatorNode, x: Any, each: Any) -> Any:
    """Give scales or zero points of one axis the shape that they have in the tensor."""
    if each is None or each.dim() == 0 or each.numel() == 1:
        return None if each is None else each.reshape(())
    shape = [1] * x.dim()
    shape[node.get("axis", 1)] = -1
    return each.reshape(shape)


def _quantise(node: OperatorNode, x: Any, scale: Any, zero: Any = None) -> Any:
    kind = zero.dtype if zero is not None else DTYPES[node.get("output_dtype", 0) or 2]
    limits = torch.iinfo(kind)
    made = torch.round(x / _along(node, x, scale))
    if zero is not None:
        made = made + _along(node, x, zero)
    return torch.clamp(made, limits.min, limits.max).to(kind)


def _dequantise(node: OperatorNode, x: Any, scale: Any, zero: Any = None) -> Any:
    wide = x.to(torch.int32)
    wide = wide if zero is None else wide - _along(node, x, zero).to(torch.int32)
    return wide.to(scale.dtype) * _along(node, x, scale)


def _refuses_blocks(node: OperatorNode) -> str:
    if node.get("block_size", 0):
        return "it has a scale per block"
    kind = node.get("output_dtype", 0)
    return "" if kind in (0, 2, 3, *FLOATS) else "it quantises to another type than 8 bits"


QUANTISATION: Mapping[str, Operator] = {
    "DequantizeLinear": Operator(
        function=_dequantise, types=_BYTES | {6} | FLOATS, refuses=_refuses_blocks
    ),
    "QuantizeLinear": Operator(function=_quantise, types=_BYTES | FLOATS, refuses=_refuses_blocks),
}
