"""Operators that compute each element from those at its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from coinfer.backends.torch.library import functional, torch
from coinfer.backends.torch.operators.node import (
    DTYPES,
    FLOATS,
    NUMBERS,
    Operator,
    OperatorNode,
    number,
)

__all__ = ["ELEMENTWISE"]

_BOOL = frozenset({9})
_WHOLE = frozenset({2, 3, 5, 6, 7})


def _unary(function: Callable[[Any], Any], types: frozenset[int] = FLOATS) -> Operator:
    return Operator(function=lambda _, x: function(x), types=types)


def _binary(function: Callable[[Any, Any], Any], types: frozenset[int] = NUMBERS) -> Operator:
    return Operator(function=lambda _, a, b: function(a, b), types=types)


def _variadic(function: Callable[[Any, Any], Any]) -> Operator:
    return Operator(function=lambda _, *values: reduce(function, values), types=NUMBERS - _BOOL)


def _with_alpha(function: Callable[[Any, float], Any], default: float) -> Operator:
    return Operator(function=lambda node, x: function(x, node.get("alpha", default)), types=FLOATS)


def _div(_: OperatorNode, a: Any, b: Any) -> Any:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(node: OperatorNode, a: Any, b: Any) -> Any:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _pow(_: OperatorNode, a: Any, b: Any) -> Any:
    return torch.pow(a, b).to(a.dtype)


def _mean(_: OperatorNode, *values: Any) -> Any:
    return reduce(torch.add, values) / len(values)


def _clip(node: OperatorNode, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = number(node.setting(low, "min")), number(node.setting(high, "max"))
    return x if low is None and high is None else torch.clamp(x, low, high)


def _cast(node: OperatorNode, x: Any, like: Any = None) -> Any:
    return x.to(like.dtype if node.op_type == "CastLike" else node.dtype(node.get("to")))


def _cast_refused(node: OperatorNode) -> str:
    if node.op_type == "Cast" and node.get("to") not in DTYPES:
        return "torch computes little with the type that it casts to"
    return ""


def _is_inf(node: OperatorNode, x: Any) -> Any:
    found = torch.zeros_like(x, dtype=torch.bool)
    if node.get("detect_positive", 1):
        found = found | torch.isposinf(x)
    return found | torch.isneginf(x) if node.get("detect_negative", 1) else found


def _gelu(node: OperatorNode, x: Any) -> Any:
    return functional.gelu(x, approximate=node.get("approximate", "none"))


def _selu(node: OperatorNode, x: Any) -> Any:
    alpha = node.get("alpha", 1.67326319217681884765625)
    scaled = torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))
    return node.get("gamma", 1.05070102214813232421875) * scaled


def _hard_sigmoid(node: OperatorNode, x: Any) -> Any:
    return torch.clamp(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0, 1)


def _shrink(node: OperatorNode, x: Any) -> Any:
    bias, edge = node.get("bias", 0.0), node.get("lambd", 0.5)
    none = torch.zeros_like(x)
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, none))


def _prelu(_: OperatorNode, x: Any, slope: Any) -> Any:
    return torch.where(x < 0, slope * x, x)


def _shift(node: OperatorNode, a: Any, b: Any) -> Any:
    # torch shifts by the width of the type or more as C does: not at all defined.
    left = node.get("direction") == "LEFT"
    return torch.bitwise_left_shift(a, b) if left else torch.bitwise_right_shift(a, b)


def _swish(node: OperatorNode, x: Any) -> Any:
    return x * torch.sigmoid(node.get("alpha", 1.0) * x)


def _softmax(node: OperatorNode, x: Any) -> Any:
    chosen = torch.log_softmax if node.op_type == "LogSoftmax" else torch.softmax
    return _along(node, x, lambda each, axis: chosen(each, axis))


def _hardmax(node: OperatorNode, x: Any) -> Any:
    def hard(each: Any, axis: int) -> Any:
        at = torch.argmax(each, axis, keepdim=True)
        return torch.zeros_like(each).scatter(axis, at, 1)

    return _along(node, x, hard)


def _along(node: OperatorNode, x: Any, function: Callable[[Any, int], Any]) -> Any:
    """Apply it along an axis; before operator set 13, over all axes from that one on."""
    if node.version >= 13:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1) % max(x.dim(), 1)
    flat = x.reshape(math.prod(x.shape[:axis]), -1)
    return function(flat, 1).reshape(x.shape)


def _dropout_refused(node: OperatorNode) -> str:
    return "it may be in training mode" if node.has(2) else ""


ELEMENTWISE: Mapping[str, Operator] = {
    "Abs": _unary(torch.abs, NUMBERS - _BOOL),
    "Acos": _unary(torch.acos),
    "Acosh": _unary(torch.acosh),
    "Asin": _unary(torch.asin),
    "Asinh": _unary(torch.asinh),
    "Atan": _unary(torch.atan),
    "Atanh": _unary(torch.atanh),
    "BitwiseNot": _unary(torch.bitwise_not, _WHOLE),
    "Ceil": _unary(torch.ceil),
    "Cos": _unary(torch.cos),
    "Cosh": _unary(torch.cosh),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "IsNaN": _unary(torch.isnan),
    "Identity": _unary(lambda x: x, NUMBERS),
    "Log": _unary(torch.log),
    "Mish": _unary(functional.mish),
    "Neg": _unary(torch.neg, NUMBERS - _BOOL),
    "Not": _unary(torch.logical_not, _BOOL),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu, NUMBERS - _BOOL),
    "Round": _unary(torch.round),
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign, NUMBERS - _BOOL),
    "Sin": _unary(torch.sin),
    "Sinh": _unary(torch.sinh),
    "Softplus": _unary(functional.softplus),
    "Softsign": _unary(functional.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Tan": _unary(torch.tan),
    "Tanh": _unary(torch.tanh),
    "HardSwish": _unary(lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1)),
    "Celu": _with_alpha(functional.celu, 1.0),
    "Elu": _with_alpha(functional.elu, 1.0),
    "LeakyRelu": _with_alpha(functional.leaky_relu, 0.01),
    "ThresholdedRelu": _with_alpha(lambda x, alpha: x * (x > alpha), 1.0),
    "Add": _binary(torch.add, NUMBERS - _BOOL),
    "And": _binary(torch.logical_and, _BOOL),
    "BitwiseAnd": _binary(torch.bitwise_and, _WHOLE),
    "BitwiseOr": _binary(torch.bitwise_or, _WHOLE),
    "BitwiseXor": _binary(torch.bitwise_xor, _WHOLE),
    "Equal": _binary(torch.eq),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Mul": _binary(torch.mul, NUMBERS - _BOOL),
    "Or": _binary(torch.logical_or, _BOOL),
    "PRelu": Operator(function=_prelu, types=FLOATS),
    "Sub": _binary(torch.sub, NUMBERS - _BOOL),
    "Xor": _binary(torch.logical_xor, _BOOL),
    "Max": _variadic(torch.maximum),
    "Min": _variadic(torch.minimum),
    "Sum": _variadic(torch.add),
    "Mean": Operator(function=_mean, types=FLOATS),
    "BitShift": Operator(function=_shift, types=_WHOLE),
    "Cast": Operator(function=_cast, refuses=_cast_refused),
    "CastLike": Operator(function=_cast),
    "Clip": Operator(function=_clip, settings=frozenset({1, 2}), types=NUMBERS - _BOOL),
    "Div": Operator(function=_div, types=NUMBERS - _BOOL),
    "Dropout": Operator(function=lambda _, x, *__: x, refuses=_dropout_refused),
    "Gelu": Operator(function=_gelu, types=FLOATS),
    "HardSigmoid": Operator(function=_hard_sigmoid, types=FLOATS),
    "Hardmax": Operator(function=_hardmax, types=FLOATS),
    "IsInf": Operator(function=_is_inf, types=FLOATS),
    "LogSoftmax": Operator(function=_softmax, types=FLOATS),
    "Mod": Operator(function=_mod, types=NUMBERS - _BOOL),
    "Pow": Operator(function=_pow, types=NUMBERS - _BOOL),
    "Selu": Operator(function=_selu, types=FLOATS),
    "Shrink": Operator(function=_shrink, types=NUMBERS - _BOOL),
    "Softmax": Operator(function=_softmax, types=FLOATS),
    "Swish": Operator(function=_swish, types=FLOATS),
    "Where": Operator(function=lambda _, where, a, b: torch.where(where, a, b)),
}
