"""Dense layers and matrix products: batched, or as a grouped 1x1 convolution where that is a view.

A grouped 1x1 convolution is faster than a batched product in libraries that prepack the weights of
convolutions only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.layout import Layout
from coinfer.graph.fusing.rule import Rule, need, possible
from coinfer.graph.fusing.rules.elementwise import operand
from coinfer.graph.fusing.site import Site

__all__ = ["RULES"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


def _as_convolution(x: Bundle, weight: Bundle) -> bool:
    """Whether `[b, K] x [K, N]` with stored weights can be a convolution of `[b, M*K, 1, 1]`."""
    return (
        weight.is_stored
        and not x.is_stored
        and weight.values[0].dtype in _FLOATS
        and x.rank == weight.rank == 2
        and x.channels is not None
    )


def _convolved(
    x: Bundle, weight: Sequence[np.ndarray], bias: np.ndarray | None, out: Builder, name: str
) -> ir.Value:
    """Multiply packed samples by weights `[K, N]`, one of each model, as a convolution."""
    models, (inner, features) = len(weight), weight[0].shape
    filters = np.concatenate([np.ascontiguousarray(each.T) for each in weight])
    image = out.reshape(out.merged(x, Layout.PACKED), [0, models * inner, 1, 1], f"{name}.image")
    operands = [image, out.constant(filters[:, :, None, None], f"{name}.filters")]
    if bias is not None:
        operands.append(out.constant(bias, f"{name}.bias"))
    made = out.one("Conv", *operands, name=f"{name}.conv", group=models, kernel_shape=[1, 1])
    return out.reshape(made, [0, models * features], name)


# Gemm


def _gemm_layouts(site: Site) -> frozenset[Layout]:
    x, weight, bias = site.given(0), site.given(1), site.input(2)
    need(x.is_tensor and weight.is_tensor, "the rank of an operand is not known")
    need(bias is None or bias.is_tensor, "the rank of an operand is not known")
    ways = {Layout.STACKED}
    no_bias = bias is None or bias.is_stored
    if _as_convolution(x, weight) and no_bias and not site.number("transA", 0) and _bias_fits(site):
        ways.add(Layout.PACKED)
    return possible(site, ways)


def _bias_fits(site: Site) -> bool:
    bias = site.input(2)
    features = site.out.channels
    if bias is None:
        return True
    assert bias.dims is not None
    sizes = [size for size in bias.dims if size != 1]
    one_row = bias.rank < 2 or bias.dims[0] == 1
    return one_row and (not sizes or (len(sizes) == 1 and sizes[0] == features))


def _merge_gemm(site: Site, layout: Layout, out: Builder) -> None:
    x, weight, bias = site.given(0), site.given(1), site.input(2)
    is_frozen = weight.is_shared and (bias is None or bias.is_shared)
    if layout is Layout.PACKED:
        matrices, row = _folded(site)
        made = _convolved(x, matrices, row, out, site.out.name)
        out.give(site.out, made, View(layout, True))
    elif is_frozen and not site.number("transA", 0) and (bias is None or _bias_fits(site)):
        operands = [out.merged(x, layout), out.shared(weight)]
        operands += [] if bias is None else [out.shared(bias)]
        out.give_all(site, out.copy(site, operands), View(layout, True))
    else:
        _merge_batched_gemm(site, out)


def _scales(site: Site) -> tuple[float, float]:
    get = site.node.attributes.get_float
    return get("alpha", 1.0), get("beta", 1.0)


def _folded(site: Site) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Bring stored weights to `[K, N]` and the bias to `[M*N]`, with alpha and beta inside."""
    alpha, beta = _scales(site)
    matrices = [each.T if site.number("transB", 0) else each for each in site.given(1).arrays]
    scaled = [(each * alpha).astype(each.dtype) for each in matrices]
    bias = site.input(2)
    if bias is None:
        return scaled, None
    features = matrices[0].shape[1]
    rows = [np.broadcast_to(each.reshape(-1) * beta, (features,)) for each in bias.arrays]
    return scaled, np.concatenate(rows).astype(matrices[0].dtype)


def _merge_batched_gemm(site: Site, out: Builder) -> None:
    """`alpha * A x B + beta * C`, one product of matrices per model."""
    view, name = View(Layout.STACKED, False), site.out.name
    alpha, beta = _scales(site)
    a, b, c = site.given(0), site.given(1), site.input(2)
    factors = [_matrix(a, site.number("transA", 0), out), _matrix(b, site.number("transB", 0), out)]
    value = out.one("MatMul", *factors, name=f"{name}.product")
    if alpha != 1.0:
        value = out.one("Mul", value, _number(alpha, a, out), name=f"{name}.scaled")
    if c is not None and beta != 0.0:
        added = operand(c, site.out, view, out)
        if beta != 1.0:
            added = out.one("Mul", added, _number(beta, c, out), name=f"{name}.beta")
        value = out.one("Add", value, added, name=name)
    out.give(site.out, value, view)


def _matrix(bundle: Bundle, transposed: int, out: Builder) -> ir.Value:
    """Return the matrices of all models, or the one that they share."""
    if bundle.is_stored and not bundle.is_shared and transposed:
        return out.constant(np.stack([each.T for each in bundle.arrays]), bundle.name)
    if bundle.is_shared:
        value, order = out.shared(bundle), [1, 0]
    else:
        value, order = out.explicit(bundle, Layout.STACKED), [0, 2, 1]
    return out.one("Transpose", value, name=bundle.name, perm=order) if transposed else value


def _number(number: float, like: Bundle, out: Builder) -> ir.Value:
    dtype = like.values[0].dtype
    assert dtype is not None
    return out.constant(np.array(number, dtype.numpy()), "factor")


# MatMul and its kin


def _matmul_layouts(site: Site) -> frozenset[Layout]:
    a, b = _factors(site)
    ways = set(possible(site, {Layout.STACKED}, inputs=()))
    if site.op_type == "MatMul" and _as_convolution(a, b):
        ways.add(Layout.PACKED)
    return possible(site, ways, inputs=())


def _integer_layouts(site: Site) -> frozenset[Layout]:
    _factors(site)
    places = _PLACES[site.op_type]
    settings = [each for at, each in enumerate(site.inputs) if at not in places and each]
    need(all(each.is_shared for each in settings), "its scales or zero points differ")
    need(all(each.dims in ((), (1,)) for each in settings), "it has a scale per row or column")
    return possible(site, {Layout.STACKED}, inputs=())


_PLACES = {"MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3)}
"""Which inputs are the factors."""


def _factors(site: Site) -> tuple[Bundle, Bundle]:
    a, b = (site.given(index) for index in _PLACES[site.op_type])
    need(a.is_tensor and b.is_tensor, "the rank of a factor is not known")
    need(min(a.rank, b.rank) > 1 or site.op_type == "MatMul", "a factor is a vector")
    return a, b


def _merge_matmul(site: Site, layout: Layout, out: Builder) -> None:
    a, b = _factors(site)
    if layout is Layout.PACKED:
        out.give(site.out, _convolved(a, b.arrays, None, out, site.out.name), View(layout, True))
        return
    if b.is_shared and a.rank >= 2 and b.rank == 2:
        view = out.best([a], layout, can_merge=True)
        factors = [out.view(a, view), out.shared(b)]
        out.give_all(site, _product(site, factors, out), view)
        return
    rank = max(a.rank, b.rank, 2)
    rows = _rows(a, b, site.out)
    if rows is not None:
        flat = out.reshape(out.explicit(a, layout), [0, -1, rows[0]], f"{a.name}.rows")
        (made,) = _product(site, [flat, out.explicit(b, layout)], out)
        made = out.reshape(made, rows[1], site.out.name)
    else:
        factors = [_factor(a, rank, out, is_left=True), _factor(b, rank, out, is_left=False)]
        (made,) = _product(site, factors, out)
        narrow = [-2] * (a.rank == 1) + [-1] * (b.rank == 1)
        made = _without(made, narrow, site.out, out) if narrow else made
    out.give(site.out, made, View(layout, False))


def _product(site: Site, factors: Sequence[ir.Value], out: Builder) -> list[ir.Value]:
    places = _PLACES[site.op_type]
    operands = [
        factors[places.index(at)] if at in places else None if each is None else out.shared(each)
        for at, each in enumerate(site.inputs)
    ]
    return out.copy(site, operands)


def _rows(a: Bundle, b: Bundle, result: Bundle) -> tuple[int, list[int]] | None:
    """Say how to bring all rows of a model into one matrix and back, if that is a view."""
    if a.rank < 3 or b.rank != 2 or b.is_shared or a.is_shared:
        return None
    inner = b.size(0)
    assert result.dims is not None
    back = [0, *(size if isinstance(size, int) else -1 for size in result.dims)]
    return None if inner is None or back.count(-1) > 1 else (inner, back)


def _factor(bundle: Bundle, rank: int, out: Builder, *, is_left: bool) -> ir.Value:
    """Return a factor of all models of a rank; a vector becomes one row or one column."""
    if bundle.rank > 1:
        if bundle.is_shared:
            return out.shared(bundle)
        return out.explicit(bundle, Layout.STACKED, rank)
    if bundle.is_shared:
        return out.unsqueeze(out.shared(bundle), [0 if is_left else 1], bundle.name)
    value = out.explicit(bundle, Layout.STACKED)
    ones = [*range(1, rank - 1), rank - 1 if is_left else rank]
    return out.unsqueeze(value, ones, bundle.name)


def _without(value: ir.Value, axes: Sequence[int], result: Bundle, out: Builder) -> ir.Value:
    """Remove the axes of size 1 that vectors got, counted from the last one."""
    rank = 1 + result.rank + len(axes)
    return out.squeeze(value, [rank + axis for axis in axes], result.name)


_BATCHED = "batched product"

RULES = {
    "Gemm": Rule(_gemm_layouts, _merge_gemm, f"grouped 1x1 convolution, or {_BATCHED}"),
    "MatMul": Rule(_matmul_layouts, _merge_matmul, f"{_BATCHED}, or grouped 1x1 convolution"),
    "MatMulInteger": Rule(_integer_layouts, _merge_matmul, f"{_BATCHED}; zero points must agree"),
    "QLinearMatMul": Rule(_integer_layouts, _merge_matmul, f"{_BATCHED}; scales must agree"),
}
