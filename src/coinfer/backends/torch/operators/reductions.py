"""Operators that make one element of many along some axes: sums, largest ones, orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coinfer.backends.torch.library import torch
from coinfer.backends.torch.operators.node import NUMBERS, Operator, OperatorNode, number

__all__ = ["REDUCTIONS", "axes_of"]

_NO_BOOL = NUMBERS - {9}


def axes_of(x: Any, axes: Any) -> list[int]:
    """Return axes counted from 0; all if none is given."""
    if axes is None or axes == []:
        return list(range(x.dim()))
    return [axis % max(x.dim(), 1) for axis in axes]


def _reduction(
    function: Callable[[Any, list[int], bool], Any], types: frozenset[int] = _NO_BOOL
) -> Operator:
    def reduced(node: OperatorNode, x: Any, axes: Any = None) -> Any:
        axes = node.setting(axes, "axes")
        if not axes and node.get("noop_with_empty_axes", 0):
            return function(x.unsqueeze(0), [0], False)
        axes = axes_of(x, axes)
        if not axes:  # of a single number
            return function(x.unsqueeze(0), [0], False)
        return function(x, axes, bool(node.get("keepdims", 1)))

    return Operator(function=reduced, settings=frozenset({1}), types=types)


def _sum(x: Any, axes: list[int], keep: bool) -> Any:
    return torch.sum(x, axes, keep, dtype=x.dtype)


def _mean(x: Any, axes: list[int], keep: bool) -> Any:
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    return torch.mean(x.double(), axes, keep).trunc().to(x.dtype)


def _product(x: Any, axes: list[int], keep: bool) -> Any:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def _extreme(largest: bool) -> Callable[[Any, list[int], bool], Any]:
    def extreme(x: Any, axes: list[int], keep: bool) -> Any:
        if all(x.shape[axis] for axis in axes):
            return (torch.amax if largest else torch.amin)(x, axes, keep)
        shape = [1 if at in axes else n for at, n in enumerate(x.shape) if keep or at not in axes]
        return torch.full(shape, _nothings(x.dtype, largest), dtype=x.dtype, device=x.device)

    return extreme


def _nothings(dtype: Any, largest: bool) -> Any:
    """Return the largest of nothing, or the smallest."""
    if dtype is torch.bool:
        return not largest
    if dtype.is_floating_point:
        return float("-inf") if largest else float("inf")
    return torch.iinfo(dtype).min if largest else torch.iinfo(dtype).max


def _log_sum_exp(x: Any, axes: list[int], keep: bool) -> Any:
    return torch.logsumexp(x if x.is_floating_point() else x.double(), axes, keep).to(x.dtype)


def _norm2(x: Any, axes: list[int], keep: bool) -> Any:
    wide = x if x.is_floating_point() else x.double()
    return torch.sqrt(torch.sum(wide * wide, axes, keep)).to(x.dtype)


def _log_sum(x: Any, axes: list[int], keep: bool) -> Any:
    wide = x if x.is_floating_point() else x.double()
    return torch.log(torch.sum(wide, axes, keep)).to(x.dtype)


def _arg(largest: bool) -> Operator:
    def chosen(node: OperatorNode, x: Any) -> Any:
        axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
        choose = torch.argmax if largest else torch.argmin
        if not node.get("select_last_index", 0):
            return choose(x, axis, keep)
        return x.shape[axis] - 1 - choose(torch.flip(x, [axis]), axis, keep)

    return Operator(function=chosen, types=_NO_BOOL)


def _top_k(node: OperatorNode, x: Any, count: Any = None) -> Any:
    # A stable sort, because of equal ones the first comes first, and `torch.topk` gives any.
    axis = node.get("axis", -1)
    largest = bool(node.get("largest", 1))
    values, order = torch.sort(x, dim=axis, descending=largest, stable=True)
    k = number(node.setting(count, "k"))
    return values.narrow(axis, 0, k), order.narrow(axis, 0, k)


def _cumulative_sum(node: OperatorNode, x: Any, axis: Any) -> Any:
    axis = number(axis)
    backwards = bool(node.get("reverse", 0))
    x = torch.flip(x, [axis]) if backwards else x
    sums = torch.cumsum(x, axis, dtype=x.dtype)
    if node.get("exclusive", 0):
        sums = torch.roll(sums, 1, axis)
        sums.select(axis, 0).zero_()
    return torch.flip(sums, [axis]) if backwards else sums


REDUCTIONS: Mapping[str, Operator] = {
    "ReduceL1": _reduction(lambda x, axes, keep: _sum(torch.abs(x), axes, keep)),
    "ReduceL2": _reduction(_norm2),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceMax": _reduction(_extreme(True), NUMBERS),
    "ReduceMean": _reduction(_mean),
    "ReduceMin": _reduction(_extreme(False), NUMBERS),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(_sum),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: _sum(x * x, axes, keep)),
    "ArgMax": _arg(True),
    "ArgMin": _arg(False),
    "CumSum": Operator(function=_cumulative_sum, settings=frozenset({1}), types=_NO_BOOL),
    "TopK": Operator(function=_top_k, settings=frozenset({1}), types=_NO_BOOL, outputs=2),
}
