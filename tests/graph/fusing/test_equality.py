"""A fused model computes what the separate models compute."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from coinfer.graph.fusing.choice import Form
from coinfer.graph.fusing.fused_model import fuse_models
from coinfer.testing.models import model_from_text
from graph.chains import run
from graph.fusing.fusions import (
    WAYS,
    assert_same_as_apart,
    copies,
    feeds_of,
    run_fused,
    zoo_models,
)

SMALL = ("tiny_mlp", "tiny_cnn", "tiny_branchy", "tiny_encoder", "lenet", "small_resnet")
LARGE = ("squeezenet1_1", "mobilenet_v2")

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization", "LayerNormalization")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", SMALL)
def test_zoo_networks(name: str, batch: int, way: str) -> None:
    fused = assert_same_as_apart(zoo_models(name, 3), batch=batch, costs=WAYS[way])
    assert not any(decision.form is Form.APART for decision in fused.decisions)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_zoo_networks(name: str) -> None:
    assert_same_as_apart(zoo_models(name, 2), batch=2)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_every_weighted_operator_of_the_zoo_is_merged(name: str) -> None:
    fused = fuse_models(zoo_models(name, 4), costs=WAYS["packed"])
    counts = fused.counts()
    for op_type in (*_WEIGHTED, "MatMul"):
        assert set(counts.get(op_type, Counter())) <= {Form.GROUPED}


OPERATORS = {
    "groups, strides, pads and dilations": """
        g (float[N,6,11,9] x) => (float[N,C,H,W] y)
        <float[9,2,3,2] w = {%s}, float[9] b = {1,2,3,4,5,6,7,8,9}>
        { y = Conv<group = 3, strides = [2,1], pads = [1,0,2,1], dilations = [2,1]>(x, w, b) }""",
    "depthwise": """
        g (float[N,4,7,7] x) => (float[N,C,H,W] y) <float[8,1,3,3] w = {%s}>
        { y = Conv<group = 4, auto_pad = "SAME_UPPER">(x, w) }""",
    "transposed": """
        g (float[N,4,5,6] x) => (float[N,C,H,W] y) <float[4,3,3,3] w = {%s}, float[6] b =
        {1,2,3,4,5,6}> { y = ConvTranspose<group = 2, strides = [2,2], pads = [1,1,0,1],
        output_padding = [1,0]>(x, w, b) }""",
    "one dimension": """
        g (float[N,4,9] x) => (float[N,C,L] y) <float[4,2,3] w = {%s}>
        { a = Conv<group = 2>(x, w) y = Tanh(a) }""",
    "a norm that is folded, and one that is not": """
        g (float[N,4,5,5] x) => (float[N,4,3,3] y) <float[4,4,3,3] w = {%s}, float[4] s =
        {1,2,3,4}, float[4] b = {1,-1,2,-2}, float[4] m = {0.1,0.2,0.3,0.4}, float[4] v =
        {1,2,0.5,3}> { c = Conv(x, w) n = BatchNormalization(c, s, b, m, v) r = Relu(n)
        y = BatchNormalization(r, b, s, m, v) }""",
    "a transposed convolution with a norm": """
        g (float[N,4,5,5] x) => (float[N,4,6,6] y) <float[4,2,2,2] w = {%s}, float[4] s =
        {1,2,3,4}, float[4] b = {1,-1,2,-2}, float[4] m = {0.1,0.2,0.3,0.4}, float[4] v =
        {1,2,0.5,3}> { c = ConvTranspose<group = 2>(x, w)
        y = BatchNormalization<epsilon = 0.1>(c, s, b, m, v) }""",
    "instance and group norm": """<ir_version: 10, opset_import: ["": 21]>
        g (float[N,4,5,5] x) => (float[N,4,5,5] y) <float[4] s = {1,2,3,4}, float[4] b =
        {1,-1,2,-2}> { i = InstanceNormalization(x, s, b)
        y = GroupNormalization<num_groups = 2>(i, s, b) }""",
    "layer norm": """
        g (float[N,5,4] x) => (float[N,5,4] y) <float[4] s = {1,2,3,4}, float[4] b = {1,-1,2,-2}>
        { y = LayerNormalization<axis = -1, epsilon = 0.001>(x, s, b) }""",
    "layer norm over two axes, without a shift": """
        g (float[N,2,4] x) => (float[N,2,4] y) <float[2,4] s = {1,2,3,4,5,6,7,8}>
        { y = LayerNormalization<axis = 1>(x, s) }""",
    "dense layers with alpha, beta and transposes": """
        g (float[N,4] x) => (float[N,3] y) <float[5,4] w = {%s}, float[5] b = {1,2,3,4,5},
        float[5,3] v = {%s}, float[1,1] c = {7}>
        { a = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(x, w, b) r = Relu(a)
          y = Gemm(r, v, c) }""",
    "a dense layer on a transposed input": """
        g (float[4,2] x, float[2,3] c) => (float[2,3] y) <float[4,3] w = {%s}>
        { y = Gemm<transA = 1, beta = 0.5>(x, w, c) }""",
    "products of all ranks": """
        g (float[N,5,4] x, float[4] u) => (float[N,5,3] y, float[N,5] z, float[3] t, float[M] d)
        <float[4,3] w = {%s}, float[4] v = {1,2,3,4}>
        { y = MatMul(x, w) z = MatMul(x, v) t = MatMul(u, w) e = MatMul(u, v)
          o = Constant<value = int64[1] {1}>() d = Reshape(e, o) }""",
    "a weight on the left": """
        g (float[N,4,3] x) => (float[N,2,3] y) <float[2,4] w = {%s}> { y = MatMul(w, x) }""",
    "attention": """
        g (float[N,5,8] x) => (float[N,5,8] y) <float[8,8] q = {%s}, float[8,8] k = {%s},
        float[8,8] v = {%s}, int64[4] s = {0,5,2,4}, int64[3] j = {0,5,8}, float f = {0.5}>
        { a = MatMul(x, q) b = MatMul(x, k) c = MatMul(x, v)
          ah = Reshape(a, s) bh = Reshape(b, s) ch = Reshape(c, s)
          at = Transpose<perm = [0,2,1,3]>(ah) bt = Transpose<perm = [0,2,3,1]>(bh)
          ct = Transpose<perm = [0,2,1,3]>(ch)
          p = MatMul(at, bt) ps = Mul(p, f) w = Softmax(ps) o = MatMul(w, ct)
          ot = Transpose<perm = [0,2,1,3]>(o) y = Reshape(ot, j) }""",
    "an embedding, ids below 0 included": """
        g (int64[N,3] ids) => (float[N,3,4] y) <float[6,4] table = {%s}, int64 one = {1}>
        { i = Sub(ids, one) y = Gather(table, i) }""",
    "an embedding with ids of 32 bits": """
        g (int32[N,3] ids) => (float[N,3,4] y) <float[6,4] table = {%s}>
        { y = Gather(table, ids) }""",
    "slopes of what is the same for all": """
        g (float[N,4] x) => (float[N,4] y) <float[4] s = {%s}, float[1,4] c = {-1,2,-3,4}>
        { p = PRelu(c, s) y = Add(x, p) }""",
    "squeeze and excite": """
        g (float[N,4,5,5] x) => (float[N,4,5,5] y) <float[2,4,1,1] w = {%s}, float[4,2,1,1] v =
        {%s}> { p = GlobalAveragePool(x) a = Conv(p, w) r = Relu(a) b = Conv(r, v)
        s = HardSigmoid(b) y = Mul(x, s) }""",
    "slopes and scales of channels": """
        g (float[N,4,5,5] x) => (float[N,4,5,5] y) <float[4,1,1] s = {1,-2,3,0.5}, float[1,4,1,1] b
        = {1,2,3,4}, float[1,1,5,5] p = {%s}, float[2] hi = {1.5, 9}, float lo = {-2}>
        { a = PRelu(x, s) m = Mul(a, b) q = Add(m, p) t = ReduceMax<keepdims = 0>(hi)
        y = Clip(q, lo, t) }""",
    "channels cut, joined and shuffled": """
        g (float[N,6,4,4] x) => (float[N,6,4,4] y) <float[6,6,1,1] w = {%s}, int64[5] s =
        {0,2,3,4,4}, int64[4] t = {0,6,4,4}>
        { c = Conv(x, w) a, b = Split<axis = 1, num_outputs = 2>(c) r = Relu(a)
          j = Concat<axis = 1>(b, r) v = Reshape(j, s) o = Transpose<perm = [0,2,1,3,4]>(v)
          y = Reshape(o, t) }""",
    "softmax and reductions over channels": """
        g (float[N,6,4,4] x) => (float[N,6,4,4] y, int64[N,4,4] i, float[N,1,4,4] m, float[N,6] g)
        <float[6,6,1,1] w = {%s}, int64[1] one = {1}, int64[2] hw = {2,3}>
        { c = Conv(x, w) y = Softmax<axis = 1>(c) i = ArgMax<axis = 1, keepdims = 0>(c)
          m = ReduceMean(c, one) g = ReduceMean<keepdims = 0>(c, hw) }""",
    "pads and resizes": """
        g (float[N,3,4,4] x) => (float[N,3,H,W] y) <float[3,3,1,1] w = {%s}, int64[8] p =
        {0,0,1,2,0,0,1,0}, float f = {0.5}, float[4] s = {1,1,2,2}>
        { c = Conv(x, w) d = Pad<mode = "constant">(c, p, f)
          y = Resize<mode = "linear">(d, , s) }""",
    "a pad of channels": """
        g (float[N,3,4,4] x) => (float[N,6,4,4] y) <float[3,3,1,1] w = {%s}, int64[8] p =
        {0,1,0,0,0,2,0,0}> { c = Conv(x, w) y = Pad(c, p) }""",
    "sizes that follow the input": """
        g (float[N,3,H,W] x) => (float[N,3,H2,W2] y, float[N,K] f) <float[3,3,3,3] w = {%s},
        int64[2] at = {2,3}, int64[2] first = {0,1}, int64 two = {2}, int64 zero = {0},
        int64[1] rest = {-1}, int64[1] o = {0}>
        { c = Conv<strides = [2,2], pads = [1,1,1,1]>(x, w) s = Shape(c) a = Gather(s, at)
          b = Mul(a, two) n = Gather(s, first) z = Concat<axis = 0>(n, b)
          y = Resize<mode = "nearest">(c, , , z) k = Gather(s, zero) l = Unsqueeze(k, o)
          t = Concat<axis = 0>(l, rest) f = Reshape(c, t) }""",
    "quantised": """<ir_version: 10, opset_import: ["": 19]>
        g (float[N,4,5,5] x) => (float[N,3,3,3] y) <float[2] both = {0.02, 0.03}, int8 z = {3},
        int8[3,4,3,3] w = {%s}, float[3] ws = {0.1, 0.2, 0.3}, int8[3] wz = {0, 1, 2},
        float s = {0.05}>
        { xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)
          wd = DequantizeLinear<axis = 0>(w, ws, wz) c = Conv(xd, wd)
          t = ReduceMin<keepdims = 0>(both) r = Round(x) q = QuantizeLinear(r, t)
          d = DequantizeLinear(q, t) p = ReduceMean<keepdims = 1>(d) y = Add(c, p) }""",
    "norms without parameters": """
        g (float[N,4,5,5] x) => (float[N,4,5,5] y, float[N,4,1,1] z) <float[4,4,1,1] w = {%s}>
        { c = Conv(x, w) m = MeanVarianceNormalization<axes = [2, 3]>(c) y = Tanh(m)
          z = GlobalLpPool<p = 2>(c) }""",
    "an equation": """
        g (float[N,3,4] x) => (float[N,3,5] y) <float[5,4] w = {%s}>
        { y = Einsum<equation = "nij,kj->nik">(x, w) }""",
    "sums along an axis and the largest": """
        g (float[N,5,3] x) => (float[N,5,3] y, float[N,2,3] v, int64[N,2,3] i) <int64 one = {1},
        int64[1] k = {2}> { y = CumSum(x, one) v, i = TopK<axis = 1>(x, k) }""",
    "slices, tiles and expansions": """
        g (float[N,5,3] x) => (float[N,2,6] y, float[N,5,3] e) <int64[1] a = {1}, int64[1] b = {5},
        int64[1] c = {2}, int64[3] r = {1,1,2}, float[1,3] w = {1,2,3}, int64[2] t = {5,3}>
        { s = Slice(x, a, b, a, c) y = Tile(s, r) f = Expand(w, t) e = Mul(x, f) }""",
    "a mask that all share": """
        g (float[N,3,3] x) => (float[N,3,3] y) <float[3,3] o = {1,1,1,1,1,1,1,1,1}, float n = {-9}>
        { z = Sub(o, o) h = Add(z, o) t = Trilu<upper = 0>(h) m = Cast<to = 9>(t)
          y = Where(m, x, n) }""",
}


def text_of(template: str) -> str:
    """Fill in weights: numbers that look random and are the same everywhere."""
    import re

    def numbers(match: re.Match[str]) -> str:
        dtype, dims = match["dtype"], [int(each) for each in match["dims"].split(",")]
        rng = np.random.default_rng(len(match.string[: match.start()]))
        count = int(np.prod(dims))
        if dtype == "float":
            drawn = ", ".join(f"{each:.4f}" for each in rng.standard_normal(count))
        else:
            drawn = ", ".join(map(str, rng.integers(-90, 90, count)))
        return f"{dtype}[{match['dims']}]{match['name']}{{{drawn}}}"

    return re.sub(
        r"(?P<dtype>float|int8)\[(?P<dims>[\d,]+)\](?P<name>\s+\w+\s*=\s*)\{%s\}", numbers, template
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("title", OPERATORS)
def test_operators(title: str, way: str) -> None:
    models = copies(text_of(OPERATORS[title]), 3)
    dims = {"H": 7, "W": 5} if title == "sizes that follow the input" else {}
    feeds = [each.sample_inputs(batch=2, seed=at, dims=dims) for at, each in enumerate(models)]
    fused = assert_same_as_apart(models, feeds=feeds, costs=WAYS[way])
    if way != "chosen":
        assert [d for d in fused.decisions if d.form is Form.APART] == []


@pytest.mark.parametrize(
    "title", ["depthwise", "attention", "quantised", "softmax and reductions over channels"]
)
def test_one_sample(title: str) -> None:
    models = copies(text_of(OPERATORS[title]), 4)
    for costs in WAYS.values():
        assert_same_as_apart(models, batch=1, costs=costs)


def test_one_model_stays_what_it_is() -> None:
    (model,) = zoo_models("tiny_branchy", 1)
    fused = fuse_models([model])
    feed = model.sample_inputs(batch=2)
    (got,) = run_fused(fused, [feed])
    for name, array in run(model, feed).items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)
    before = Counter(node.op_type for node in model.graph.graph)
    after = Counter(node.op_type for node in fused.model.graph.graph)
    del before["BatchNormalization"]  # folded
    assert {k: v for k, v in before.items() if k != "Constant"} == dict(after)


def test_the_order_of_models_is_that_of_inputs_and_outputs() -> None:
    models = zoo_models("lenet", 3)
    feeds = feeds_of(models)
    straight = run_fused(fuse_models(models), feeds)
    order = [2, 0, 1]
    turned = fuse_models([models[at] for at in order])
    assert [spec.name for spec in turned.model.inputs] == [f"m{at}/image" for at in order]
    assert [spec.name for spec in turned.model.outputs] == [f"m{at}/logits" for at in order]
    for at, got in zip(order, run_fused(turned, [feeds[at] for at in order]), strict=True):
        np.testing.assert_allclose(got["logits"], straight[at]["logits"], rtol=1e-5, atol=1e-6)


def test_models_do_not_change() -> None:
    models = zoo_models("tiny_branchy", 2)
    before = [model.to_bytes() for model in models]
    fuse_models(models)
    assert [model.to_bytes() for model in models] == before


def test_bounds_of_integer_inputs_are_kept() -> None:
    fused = fuse_models(zoo_models("tiny_encoder", 2))
    assert fused.model.integer_bounds() == {"m0/input_ids": 100, "m1/input_ids": 100}


def test_open_sizes_are_those_of_the_first_model() -> None:
    text = "g (float[{n},4] x) => (float[{n},4] y) {{ y = Tanh(x) }}"
    models = [model_from_text(text.format(n=n), name=f"m{n}") for n in ("N", "batch")]
    fused = fuse_models(models)
    assert [str(spec) for spec in fused.model.inputs] == [
        "mN/x: float32[N,4]",
        "mbatch/x: float32[N,4]",
    ]
    assert [spec.shape for spec in fused.model.outputs] == [("N", 4)] * 2


def test_several_outputs_of_one_value_keep_their_names() -> None:
    text = """g (float[N,4] x) => (float[N,4] y, float[N,4] x, float[2] w) <float[2] w = {1,2}>
        { y = Tanh(x) }"""
    models = copies(text, 2)
    assert_same_as_apart(models)
