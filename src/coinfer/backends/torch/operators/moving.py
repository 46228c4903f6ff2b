"""Operators that move, pick, join and repeat elements, and those that ask for sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from coinfer.backends.torch.library import torch
from coinfer.backends.torch.operators.node import NUMBERS, Operator, OperatorNode, number

__all__ = ["MOVING"]


def _reshape(node: OperatorNode, x: Any, shape: Any = None) -> Any:
    shape = list(node.setting(shape, "shape"))
    if not node.get("allowzero", 0):
        shape = [x.shape[at] if n == 0 else n for at, n in enumerate(shape)]
    return x.reshape(tuple(shape))


def _flatten(node: OperatorNode, x: Any) -> Any:
    axis = node.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1 and x.dim() > 1:
        return x.flatten(1)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _transpose(node: OperatorNode, x: Any) -> Any:
    return x.permute(node.get("perm", tuple(reversed(range(x.dim())))))


def _squeeze(node: OperatorNode, x: Any, axes: Any = None) -> Any:
    axes = node.setting(axes, "axes")
    if axes is None:
        return x.squeeze()
    dropped = {axis % x.dim() for axis in axes}
    if any(x.shape[axis] != 1 for axis in dropped):
        raise ValueError(f"cannot squeeze axes {list(axes)} of a tensor of shape {list(x.shape)}")
    return x.reshape([n for at, n in enumerate(x.shape) if at not in dropped])


def _unsqueeze(node: OperatorNode, x: Any, axes: Any = None) -> Any:
    axes = node.setting(axes, "axes")
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _concat(node: OperatorNode, *values: Any) -> Any:
    return torch.cat(values, node.get("axis", 1))


def _split(node: OperatorNode, x: Any, sizes: Any = None) -> Any:
    axis = node.get("axis", 0)
    sizes = node.setting(sizes, "split")
    if sizes is None:
        total, count = x.shape[axis], len(node.outputs)
        each = -(-total // count)
        sizes = [each] * (count - 1) + [total - each * (count - 1)]
    return torch.split(x, list(sizes), axis)


def _slice(
    node: OperatorNode,
    x: Any,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> Any:
    starts, ends = node.setting(starts, "starts"), node.setting(ends, "ends")
    axes = node.setting(axes, "axes", range(len(starts)))
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        axis = axis % x.dim()
        first, last, step = slice(start, end, step).indices(x.shape[axis])
        if step > 0:
            x = x[(*(slice(None),) * axis, slice(first, max(first, last), step))]
        else:  # torch does not step backwards
            places = torch.arange(first, last, step, device=x.device) if last < first else None
            x = x.narrow(axis, 0, 0) if places is None else x.index_select(axis, places)
    return x


def _positive(indices: Any, size: int) -> Any:
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


def _gather(node: OperatorNode, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % x.dim()
    picked = x.index_select(axis, _positive(indices.reshape(-1), x.shape[axis]))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _gather_elements(node: OperatorNode, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0)
    return torch.gather(x, axis, _positive(indices, x.shape[axis]))


def _gather_nd(node: OperatorNode, x: Any, indices: Any) -> Any:
    lead = node.get("batch_dims", 0)
    depth = indices.shape[-1]
    batch, rest = x.shape[:lead], x.shape[lead:]
    flat = x.reshape((math.prod(batch), *rest))
    places = indices.reshape(math.prod(batch), -1, depth)
    picked = [_positive(places[..., at], rest[at]) for at in range(depth)]
    rows = torch.arange(len(flat), device=x.device).unsqueeze(1).expand(places.shape[:2])
    return flat[(rows, *picked)].reshape((*indices.shape[:-1], *rest[depth:]))


_REDUCES = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter(node: OperatorNode, x: Any, indices: Any, updates: Any) -> Any:
    axis, how = node.get("axis", 0), node.get("reduction", "none")
    indices = _positive(indices, x.shape[axis])
    if how == "none":
        return x.scatter(axis, indices, updates)
    return x.scatter_reduce(axis, indices, updates, _REDUCES[how])


def _scatter_nd(node: OperatorNode, x: Any, indices: Any, updates: Any) -> Any:
    depth = indices.shape[-1]
    places = tuple(_positive(indices[..., at], x.shape[at]) for at in range(depth))
    adds = node.get("reduction", "none") == "add"
    return x.clone().index_put_(places, updates, accumulate=adds)


def _refuses_reduction(node: OperatorNode) -> str:
    how = node.get("reduction", "none")
    return "" if how in ("none", "add") else f"torch has no such reduction, {how}"


def _expand(_: OperatorNode, x: Any, shape: Any) -> Any:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


def _tile(_: OperatorNode, x: Any, counts: Any) -> Any:
    return x.repeat(counts)


def _pad(node: OperatorNode, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    pads = list(node.setting(pads, "pads"))
    value = number(node.setting(value, "value", 0))
    axes = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
    mode = node.get("mode", "constant")
    for at, axis in enumerate(axes):
        before, after = pads[at], pads[at + len(axes)]
        start, length = max(0, -before), x.shape[axis] - max(0, -before) - max(0, -after)
        x = x.narrow(axis, start, length)
        before, after = max(0, before), max(0, after)
        if mode != "constant" and before + after:
            places = np.pad(np.arange(x.shape[axis]), (before, after), mode)
            x = x.index_select(axis, torch.from_numpy(places).to(x.device))
        elif before + after:
            sides = [list(x.shape) for _ in range(2)]
            sides[0][axis], sides[1][axis] = before, after
            first, last = (torch.full(s, value, dtype=x.dtype, device=x.device) for s in sides)
            x = torch.cat([first, x, last], axis)
    return x


def _shape(node: OperatorNode, x: Any) -> Any:
    # On the host: who reads it computes sizes.
    return torch.tensor(
        list(x.shape[slice(node.get("start", 0), node.get("end"))]), dtype=torch.int64
    )


def _size(_: OperatorNode, x: Any) -> Any:
    return torch.tensor(x.numel(), dtype=torch.int64)


def _constant_of_shape(node: OperatorNode, shape: Any) -> Any:
    value = node.get("value")
    if value is None:
        return torch.zeros(shape, dtype=node.compute, device=node.device)
    kind = torch.from_numpy(np.array(value)).dtype
    kind = node.compute if kind is torch.float32 else kind
    # Whole numbers are mostly sizes, and these are computed on the host.
    place = node.device if kind.is_floating_point else "cpu"
    return torch.full(shape, value.item(), dtype=kind, device=place)


def _range(_: OperatorNode, start: Any, limit: Any, delta: Any) -> Any:
    numbers = (each.item() for each in (start, limit, delta))
    return torch.arange(*numbers, dtype=start.dtype, device=start.device)


def _triangle(node: OperatorNode, x: Any, k: Any = None) -> Any:
    keep = torch.triu if node.get("upper", 1) else torch.tril
    return keep(x, number(k) or 0)


def _depth_to_space(node: OperatorNode, x: Any) -> Any:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        x = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(node: OperatorNode, x: Any) -> Any:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    order = (0, 3, 5, 1, 2, 4) if node.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    x = x.reshape(n, c, h // b, b, w // b, b).permute(order)
    return x.reshape(n, c * b**2, h // b, w // b)


def _one_hot(node: OperatorNode, indices: Any, depth: Any, values: Any) -> Any:
    depth = int(number(depth))
    axis = node.get("axis", -1)
    axis = axis + indices.dim() + 1 if axis < 0 else axis
    places = torch.arange(depth, device=indices.device)
    shape = [1] * (indices.dim() + 1)
    shape[axis] = depth
    hot = _positive(indices, depth).unsqueeze(axis) == places.reshape(shape)
    return torch.where(hot, values[1], values[0])


def _nonzero(_: OperatorNode, x: Any) -> Any:
    return torch.nonzero(x).transpose(0, 1)


MOVING: Mapping[str, Operator] = {
    "Concat": Operator(function=_concat),
    "ConstantOfShape": Operator(function=_constant_of_shape, settings=frozenset({0})),
    "DepthToSpace": Operator(function=_depth_to_space),
    "Expand": Operator(function=_expand, settings=frozenset({1})),
    "Flatten": Operator(function=_flatten),
    "Gather": Operator(function=_gather),
    "GatherElements": Operator(function=_gather_elements),
    "GatherND": Operator(function=_gather_nd),
    "NonZero": Operator(function=_nonzero),
    "OneHot": Operator(function=_one_hot, settings=frozenset({1})),
    "Pad": Operator(function=_pad, settings=frozenset({1, 2, 3})),
    "Range": Operator(function=_range, types=NUMBERS - {9, 10, 16}),
    "Reshape": Operator(function=_reshape, settings=frozenset({1})),
    "ScatterElements": Operator(function=_scatter),
    "ScatterND": Operator(function=_scatter_nd, refuses=_refuses_reduction),
    "Shape": Operator(function=_shape),
    "Size": Operator(function=_size),
    "Slice": Operator(function=_slice, settings=frozenset({1, 2, 3, 4})),
    "SpaceToDepth": Operator(function=_space_to_depth, types=NUMBERS),
    "Split": Operator(function=_split, settings=frozenset({1}), outputs=2**31),
    "Squeeze": Operator(function=_squeeze, settings=frozenset({1})),
    "Tile": Operator(function=_tile, settings=frozenset({1})),
    "Transpose": Operator(function=_transpose),
    "Trilu": Operator(function=_triangle, settings=frozenset({1})),
    "Unsqueeze": Operator(function=_unsqueeze, settings=frozenset({1})),
}
