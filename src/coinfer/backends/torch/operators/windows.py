"""Operators that slide a window over a picture, and those that resize one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coinfer.backends.torch.library import functional, torch
from coinfer.backends.torch.operators.node import FLOATS, Operator, OperatorNode

__all__ = ["WINDOWS", "Window", "padded"]

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_MAX_POOLS = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_MEAN_POOLS = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a window slides over a picture, one number per axis of the picture.

    Attributes:
        kernel: Elements of the window.
        strides: Steps.
        dilations: Distances of its elements.
        before: Elements added in front.
        after: Elements added behind.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, node: OperatorNode, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
        """Read it from a node's attributes, for a picture of these sizes."""
        ones = (1,) * len(kernel)
        strides = tuple(node.get("strides", ones))
        dilations = tuple(node.get("dilations", ones))
        pads = tuple(node.get("pads", (0,) * (2 * len(kernel))))
        before, after = pads[: len(kernel)], pads[len(kernel) :]
        auto = node.get("auto_pad", "NOTSET")
        if auto == "VALID":
            before = after = (0,) * len(kernel)
        elif auto != "NOTSET":
            needed = [
                max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
                for n, s, d, k in zip(sizes, strides, dilations, kernel, strict=True)
            ]
            small, large = tuple(n // 2 for n in needed), tuple(n - n // 2 for n in needed)
            before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
        return cls(
            kernel=tuple(kernel),
            strides=strides,
            dilations=dilations,
            before=before,
            after=after,
        )

    @property
    def is_symmetric(self) -> bool:
        """Whether as much is added in front as behind."""
        return self.before == self.after

    @property
    def spans(self) -> tuple[int, ...]:
        """Elements from the first to the last one of the window."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True))

    def reaching(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return what must be added behind, so that a last window that is not full counts."""
        found = []
        columns = zip(sizes, self.spans, self.strides, self.before, self.after, strict=True)
        for n, span, stride, before, after in columns:
            count = -(-(n + before + after - span) // stride) + 1
            if (count - 1) * stride >= n + before:  # it would lie in the padding
                count -= 1
            found.append((count - 1) * stride + span - n - before)
        return tuple(found)


def padded(x: Any, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Any:
    """Add elements around a picture; where the number is negative, cut them off."""
    if not any(before) and not any(after):
        return x
    pairs = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return functional.pad(x, pairs, value=value)


def _conv(node: OperatorNode, x: Any, weight: Any, bias: Any = None) -> Any:
    window = Window.of(node, x.shape[2:], weight.shape[2:])
    padding: tuple[int, ...] = window.before
    if not window.is_symmetric:
        x, padding = padded(x, window.before, window.after), (0,) * len(padding)
    convolve = _CONVOLUTIONS[len(padding) - 1]
    group = node.get("group", 1)
    return convolve(x, weight, bias, window.strides, padding, window.dilations, group)


def _conv_transpose(node: OperatorNode, x: Any, weight: Any, bias: Any = None) -> Any:
    kernel = weight.shape[2:]
    window = Window.of(node, x.shape[2:], kernel)
    extra = tuple(node.get("output_padding", (0,) * len(kernel)))
    before, after = window.before, window.after
    wanted, auto = node.get("output_shape"), node.get("auto_pad", "NOTSET")
    if wanted is None and auto.startswith("SAME"):
        wanted = tuple(n * s for n, s in zip(x.shape[2:], window.strides, strict=True))
    if wanted is not None:
        full = [
            (n - 1) * s + span + e
            for n, s, span, e in zip(x.shape[2:], window.strides, window.spans, extra, strict=True)
        ]
        # Where it would be smaller than what is wanted, zeros are added behind.
        totals = [f - w for f, w in zip(full, wanted[-len(full) :], strict=True)]
        small = tuple(t // 2 if t > 0 else t for t in totals)
        large = tuple(t - s for t, s in zip(totals, small, strict=True))
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    convolve = _TRANSPOSED[len(kernel) - 1]
    group = node.get("group", 1)
    made = convolve(x, weight, None, window.strides, 0, 0, group, window.dilations)
    ends = [e - a for e, a in zip(extra, after, strict=True)]
    made = padded(made, [-b for b in before], ends)
    return made if bias is None else made + bias.reshape(1, -1, *(1 for _ in kernel))


def _max_pool(node: OperatorNode, x: Any) -> Any:
    sizes, kernel = x.shape[2:], node.get("kernel_shape")
    window = Window.of(node, sizes, kernel)
    after = window.reaching(sizes) if node.get("ceil_mode", 0) else window.after
    pool = _MAX_POOLS[len(kernel) - 1]
    fits = all(2 * b <= k for b, k in zip(window.before, kernel, strict=True))
    if window.before == after and fits:
        return pool(x, kernel, window.strides, after, window.dilations)
    x = padded(x, window.before, after, float("-inf"))
    return pool(x, kernel, window.strides, 0, window.dilations)


def _mean_pool(node: OperatorNode, x: Any) -> Any:
    sizes, kernel = x.shape[2:], node.get("kernel_shape")
    window = Window.of(node, sizes, kernel)
    pool = _MEAN_POOLS[len(kernel) - 1]
    counts_padding = bool(node.get("count_include_pad", 0))
    ceil = node.get("ceil_mode", 0)
    after = window.reaching(sizes) if ceil else window.after
    sums = pool(padded(x, window.before, after), kernel, window.strides)
    if after == window.after and (counts_padding or not any((*window.before, *after))):
        return sums
    mask = torch.ones((1, 1, *sizes), dtype=x.dtype, device=x.device)
    if counts_padding:
        mask = padded(mask, window.before, window.after, 1.0)
        beyond = [a - b for a, b in zip(after, window.after, strict=True)]
        mask = padded(mask, [0] * len(kernel), beyond)
    else:
        mask = padded(mask, window.before, after)
    return sums / pool(mask, kernel, window.strides)


def _global(function: Callable[[Any, list[int]], Any]) -> Operator:
    def pooled(_: OperatorNode, x: Any) -> Any:
        return function(x, list(range(2, x.dim())))

    return Operator(function=pooled, types=FLOATS, refuses=_refuses_flat)


def _refuses_flat(node: OperatorNode) -> str:
    rank = node.rank()
    return "" if rank is None or 3 <= rank <= 5 else "it has no axis of a picture, or more than 3"


def _refuses_dilated(node: OperatorNode) -> str:
    if any(n != 1 for n in node.get("dilations", ())):
        return "torch takes no mean of elements that lie apart"
    return _refuses_flat(node)


def _resize_refused(node: OperatorNode) -> str:
    mode = node.get("mode", "nearest")
    place = node.get("coordinate_transformation_mode", "half_pixel")
    if node.version < 11:
        place = "asymmetric"
    if mode == "nearest":
        fits = place == "asymmetric" and (
            node.version < 11 or node.get("nearest_mode", "round_prefer_floor") == "floor"
        )
    else:
        fits = mode in ("linear", "cubic") and place in ("half_pixel", "align_corners")
    if mode == "cubic":
        fits = fits and node.get("cubic_coeff_a", -0.75) == -0.75
        fits = fits and not node.get("exclude_outside", 0) and node.rank() == 4
    if node.get("antialias", 0) or node.get("axes") is not None:
        fits = False
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        fits = False
    return _refuses_flat(node) if fits else "torch has no such way to resize"


_INTERPOLATED = {3: "linear", 4: "bilinear", 5: "trilinear"}


def _resize(node: OperatorNode, x: Any, *given: Any) -> Any:
    # Before operator set 11 scales come first; since then a region does, which is of no use here.
    at = 0 if node.version < 11 else 1
    scales: Any = given[at] if len(given) > at else None
    sizes: Any = given[2] if len(given) > 2 else None
    scales = node.setting(scales or None, "scales")
    if scales and not sizes:
        sizes = [math.floor(n * s) for n, s in zip(x.shape, scales, strict=True)]
    if list(sizes[:2]) != list(x.shape[:2]):
        raise ValueError("torch resizes neither batch nor channels")
    mode = node.get("mode", "nearest")
    if mode == "linear":
        mode = _INTERPOLATED[x.dim()]
    options: dict[str, Any] = {"mode": mode if mode != "cubic" else "bicubic"}
    if mode != "nearest":
        aligned = node.get("coordinate_transformation_mode", "half_pixel") == "align_corners"
        options["align_corners"] = aligned
    if scales:
        # The sizes that follow are the same; positions follow from the scales, not the sizes.
        return functional.interpolate(
            x, scale_factor=tuple(scales[2:]), recompute_scale_factor=False, **options
        )
    return functional.interpolate(x, size=tuple(sizes[2:]), **options)


WINDOWS: Mapping[str, Operator] = {
    "AveragePool": Operator(function=_mean_pool, types=FLOATS, refuses=_refuses_dilated),
    "Conv": Operator(function=_conv, types=FLOATS, refuses=_refuses_flat),
    "ConvTranspose": Operator(function=_conv_transpose, types=FLOATS, refuses=_refuses_flat),
    "GlobalAveragePool": _global(lambda x, axes: torch.mean(x, axes, keepdim=True)),
    "GlobalMaxPool": _global(lambda x, axes: torch.amax(x, axes, keepdim=True)),
    "MaxPool": Operator(function=_max_pool, types=FLOATS, refuses=_refuses_flat),
    "Resize": Operator(
        function=_resize, settings=frozenset({1, 2, 3}), types=FLOATS, refuses=_resize_refused
    ),
    "Upsample": Operator(
        function=_resize, settings=frozenset({1}), types=FLOATS, refuses=_resize_refused
    ),
}
