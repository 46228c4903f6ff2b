"""What corresponds in models, and what is said of models that part."""

from __future__ import annotations

import re

import numpy as np
import pytest

from coinfer.errors import ConfigurationError, ModelError
from coinfer.graph.fusing.choice import Form
from coinfer.graph.fusing.fused_model import fuse_models
from coinfer.graph.fusing.match import architecture_of, match
from coinfer.graph.fusing.signature import settings_of
from coinfer.model import Model
from coinfer.testing.models import model_from_text
from graph.chains import run
from graph.fusing.fusions import (
    assert_equal,
    assert_same_as_apart,
    copies,
    feeds_of,
    perturbed,
    run_fused,
    zoo_models,
)

BASE = """g (float[N,3,8,8] x) => (float[N,C] y) <float[4,3,3,3] w = {W}, float[4] b = {1,2,3,4},
    int64[1] a = {2}>
    { c = Conv<strides = [2,2]>(x, w, b) r = Relu(c) s = ReduceMax<keepdims = 1>(r, a)
      y = Flatten(s) }"""


def model(text: str, name: str) -> Model:
    weights = np.random.default_rng(3).standard_normal(4 * 3 * 3 * 3)
    filled = text.replace("{W}", "{" + ", ".join(f"{each:.3f}" for each in weights) + "}")
    return model_from_text(filled, name=name)


def test_names_and_order_do_not_count() -> None:
    one = """g (float[N,3] x, float[N,3] z) => (float[N,3] y)
        { a = Tanh(x) b = Neg(z) y = Sub(a, b) }"""
    other = """h (float[B,3] p, float[B,3] q) => (float[B,3] r)
        { v = Neg(q) u = Tanh(p) r = Sub(u, v) }"""
    models = [model_from_text(one, name="one"), model_from_text(other, name="other")]
    assert architecture_of(models[0]) == architecture_of(models[1])
    assert not match(models, ["one", "other"]).difference
    feeds = feeds_of(models)
    for each, feed, got in zip(models, feeds, run_fused(fuse_models(models), feeds), strict=True):
        assert_equal(got, run(each, feed))


def test_equal_branches_are_told_apart() -> None:
    text = """g (float[N,4] x) => (float[N,3] y) <float[4,3] q = {1,2,3,4,5,6,7,8,9,1,2,3},
        float[4,3] k = {3,1,2,9,8,7,6,5,4,3,2,1}>
        { a = MatMul(x, q) b = MatMul(x, k) y = Sub(a, b) }"""
    turned = text.replace("a = MatMul(x, q) b = MatMul(x, k)", "b = MatMul(x, k) a = MatMul(x, q)")
    assert_same_as_apart([model_from_text(text, name="m0"), model_from_text(turned, name="m1")])


def test_a_default_that_is_spelt_out_does_not_count() -> None:
    texts = ("Softmax(x)", "Softmax<axis = -1>(x)")
    models = [
        model_from_text(f"g (float[N,3] x) => (float[N,3] y) {{ y = {t} }}", name=t) for t in texts
    ]
    assert architecture_of(models[0]) == architecture_of(models[1])


DIFFERENCES = {
    "attribute": (
        "strides = [2,2]",
        "strides = [1,1]",
        r"'r?c?' \(Conv\): its strides is \[2, 2\]",
    ),
    "operator": (
        "Relu(c)",
        "Tanh(c)",
        r"part at operator 'r' \(Relu\): in 'b' there is 'r' \(Tanh",
    ),
    "setting": ("int64[1] a = {2}", "int64[1] a = {3}", r"\(ReduceMax\): its setting 'a' is \[2\]"),
    "input": ("float[N,3,8,8] x", "float[N,3,9,9] x", r"input 'x' is float\[N,3,8,8\] in 'a'"),
    "fixed batch": ("float[N,3,8,8] x", "float[1,3,8,8] x", r"but float\[1,3,8,8\] in 'b'"),
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_the_first_operator_that_differs_is_named(what: str) -> None:
    old, new, said = DIFFERENCES[what]
    assert old in BASE
    models = [model(BASE, "a"), model(BASE.replace(old, new), "b")]
    assert architecture_of(models[0]) != architecture_of(models[1])
    try:
        found = match(models, ["a", "b"]).difference
    except ModelError as error:
        found = str(error)
        assert found.endswith("; fuse models of one architecture, exported alike")
    assert re.search(said, found), found
    assert "\n" not in found


def test_networks_of_other_architectures_are_refused() -> None:
    from coinfer import zoo
    from coinfer.model import model_from_ir

    names = ("mobilenet_v2", "squeezenet1_1")
    models = [model_from_ir(zoo.build(name), name=name) for name in names]
    with pytest.raises(ModelError, match=r"part at operator 'features\.0\.0' \(Conv\)"):
        fuse_models(models)


def test_models_with_other_numbers_of_inputs_are_refused() -> None:
    one = model_from_text("g (float[N] x) => (float[N] y) { y = Neg(x) }", name="a")
    two = model_from_text("g (float[N] x, float[N] z) => (float[N] y) { y = Neg(x) }", name="b")
    with pytest.raises(ModelError, match="'a' and 'b' take 1 and 2 inputs"):
        fuse_models([one, two])


def test_nothing_to_fuse_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="give at least one model"):
        fuse_models([])


def head(classes: int, name: str, seed: int) -> Model:
    """The base with a classifier of its own; the backbone's weights are drawn from the seed."""
    drawn = np.random.default_rng(9).standard_normal(12 * classes)
    weights = ", ".join(f"{each:.3f}" for each in drawn)
    text = BASE.replace("float[N,C] y", "float[N,C] z").replace("y = Flatten(s)", "f = Flatten(s)")
    text = text.replace("int64[1] a", f"float[12,{classes}] h = {{{weights}}}, int64[1] a")
    return perturbed(model(text.replace(" }", " z = Gemm(f, h) }"), name), seed)


def test_heads_of_other_sizes_run_apart_behind_one_backbone() -> None:
    models = [head(5, "a", 0), head(7, "b", 4), head(5, "c", 6)]
    matched = match(models, ["a", "b", "c"])
    assert [len(rest) for rest in matched.rest] == [1, 1, 1]
    assert "part at operator 'z' (Gemm): its stored input 'h' is" in matched.difference
    fused = fuse_models(models)
    assert fused.apart == (1, 1, 1)
    feeds = feeds_of(models, batch=2)
    for each, feed, got in zip(models, feeds, run_fused(fused, feeds), strict=True):
        assert_equal(got, run(each, feed))


def test_opsets_are_converted() -> None:
    text = """<ir_version: 10, opset_import: ["": {opset}]> g (float[N,3,4] x) => (float[N,3,4] y)
        <float[4] w = {{1,2,3,4}}> {{ a = Mul(x, w) b = Softmax<axis = -1>(a) y = Tanh(b) }}"""
    models = [model_from_text(text.format(opset=v), name=f"o{v}") for v in (13, 17, 20)]
    fused = assert_same_as_apart(models)
    assert fused.model.graph.opset_imports[""] == 20
    assert not fused.difference


def test_frozen_weights_are_kept_once_and_run_as_one_batch() -> None:
    models = [each.renamed(f"t{at}") for at, each in enumerate(zoo_models("tiny_cnn", 1) * 3)]
    fused = assert_same_as_apart(models, batch=2)
    assert fused.model.weight_bytes < 1.1 * models[0].weight_bytes
    (conv, *_) = [node for node in fused.model.graph.graph if node.op_type == "Conv"]
    assert conv.attributes.get_int("group", 1) == 1


def test_what_all_compute_of_one_input_is_computed_once() -> None:
    models = [head(5, "a", 0), head(7, "b", 0)]
    fused = fuse_models(models, same_inputs=["x"])
    assert [spec.name for spec in fused.model.inputs] == ["x"]
    assert {decision.form for decision in fused.decisions} == {Form.ONCE}
    assert sum(node.op_type == "Conv" for node in fused.model.graph.graph) == 1
    feed = models[0].sample_inputs(batch=2)
    outputs = fused.outputs_of(run(fused.model, feed))
    for each, got in zip(models, outputs, strict=True):
        assert_equal(got, run(each, feed))


def test_one_input_with_weights_of_their_own() -> None:
    models = zoo_models("tiny_cnn", 3)
    fused = fuse_models(models, same_inputs=["image"])
    feed = models[0].sample_inputs(batch=2)
    for each, got in zip(models, fused.outputs_of(run(fused.model, feed)), strict=True):
        assert_equal(got, run(each, feed))


def test_an_unknown_same_input_is_named() -> None:
    with pytest.raises(ConfigurationError, match="has no input 'y'; its inputs: x"):
        fuse_models(zoo_models("tiny_mlp", 2), same_inputs=["y"])


APART = {
    "control flow": (
        """g (float[N,3] x) => (float[N,3] y) <float zero = {0}, float[3] w = {1, 2, 3}>
        { a = Relu(x) b = Tanh(a) s = ReduceSum<keepdims = 0>(b) c = Greater(s, zero)
          d = If(c) <then_branch = yes () => (float[N,3] t) { t = Mul(a, w) },
                     else_branch = no () => (float[N,3] e) { e = Sub(b, a) }> y = Neg(d) }""",
        ("If", "control flow runs per model; to merge it, export without it"),
    ),
    "a loop": (
        """g (float[N,3] x) => (float[N,3] y)
        { a = Relu(x) b = Tanh(a) n = Constant<value = int64 {3}>()
          go = Constant<value = bool {1}>()
          l = Loop(n, go, a) <body = step (int64 i, bool c, float[N,3] s) =>
          (bool c2, float[N,3] s2) { c2 = Identity(c) s2 = Add(s, b) }> y = Neg(l) }""",
        ("Loop", "control flow runs per model; to merge it, export without it"),
    ),
    "sizes that depend on data": (
        """g (float[N,3] x) => (float[K] y) { r = Relu(x) i = NonZero(r)
          t = Transpose(i) g = GatherND(r, t) y = Tanh(g) }""",
        ("NonZero", "no rule"),
    ),
    "a reduction of a single number": (
        """g (float[N,4] x) => (float[N,4] y)
        { d = ReduceMax<keepdims = 0>(x) e = ReduceMin<keepdims = 0>(d) y = Mul(x, e) }""",
        ("ReduceMin", "it reduces a single number"),
    ),
    "an operator that draws": (
        """g (float[N,3] x) => (float[N,3] y)
        { z = RandomUniformLike<low = 0.5, high = 0.5>(x) a = Add(x, z) y = Tanh(a) }""",
        ("RandomUniformLike", "no rule"),
    ),
}


def test_branches_that_differ_are_named() -> None:
    text, _ = APART["control flow"]
    first, *_ = copies(text, 1)
    for old, new, said in (
        ("Sub(b, a)", "Add(b, a)", "in its else_branch, 'e' (Sub) in 'a' is 'e' (Add) in 'b'"),
        ("{ t = Mul(a, w) }", "{ s2 = Mul(a, w) t = Neg(s2) }", "its then_branch has more"),
    ):
        other = model_from_text(text.replace(old, new), name="b")
        fused = fuse_models([first.renamed("a"), other])
        assert "part at operator 'd' (If): " in fused.difference
        assert said in fused.difference


@pytest.mark.parametrize("what", APART)
def test_what_cannot_be_merged_runs_per_model(what: str) -> None:
    text, (op_type, reason) = APART[what]
    fused = assert_same_as_apart(copies(text, 3), batch=2)
    found = {d.op_type: d for d in fused.decisions}
    assert found[op_type].form is Form.APART
    assert found[op_type].reason == reason


def test_settings_of_reductions_carry_structure() -> None:
    text = """g (float[N,3] x) => (float[N,1] y) <int64[1] a = {1}> { y = ReduceMax(x, a) }"""
    (node,) = model_from_text(text, name="m").graph.graph
    assert settings_of(node) == (1,)
