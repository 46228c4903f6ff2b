"""Which numbers of a graph may pass 32 bits."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from coinfer.graph.decisions import Decisions
from coinfer.graph.wide_numbers import WideNumbers


def graph(text: str) -> ir.Model:
    return ir.from_onnx_text('<ir_version: 10, opset_import: ["": 20]> g ' + text)


def test_what_follows_from_arithmetic_on_inputs_is_found() -> None:
    found = WideNumbers.of(
        graph(
            """(int64[n] a, int64[n] b, float[n] x) => (int64[m] z, float[n] y)
            { s = Add(a, b)  z = Concat<axis = 0>(s, a)  y = Exp(x) }"""
        )
    )
    assert (found.inputs, found.results) == (("a", "b"), ("s", "z"))
    assert found.constants == found.doubles == ()


def test_integers_that_come_out_again_and_wide_choices_are_found() -> None:
    found = WideNumbers.of(
        graph(
            """(int64[n] a, int64[n] b) => (int64[n] y, int64[n] z)
            <int64 k = {34359738375}> { y = Identity(a)  c = Equal(b, a)  w = Where(c, k, b)
            z = Identity(w) }"""
        )
    )
    assert (found.inputs, found.results, found.constants) == (("a", "b"), ("y", "w", "z"), ("w",))


@pytest.mark.parametrize(
    "text",
    [
        "(float[n] x) => (int64[1] y) { s = Shape(x)  y = Mul(s, s) }",
        "(int64[n] i, float[5, 2] t) => (float[n, 2] y) { y = Gather(t, i) }",
        "(int64[n] i) => (float[n] y) { f = Cast<to = 1>(i)  y = Mul(f, f) }",
        """(int64 size) => (int64[n] y) <int64 zero = {0}, int64 one = {1}>
            { m = Add(size, one)  y = Range(zero, m, one) }""",
    ],
    ids=["shape", "index", "float", "size"],
)
def test_sizes_indices_and_floats_are_not_wide(text: str) -> None:
    assert WideNumbers.of(graph(text)).results == ()


def test_float64_is_computed_where_an_operator_reads_it() -> None:
    found = WideNumbers.of(
        graph(
            """(double[n] x, float[n] z) => (float[n] y, double[n] w)
            { f = Cast<to = 1>(x)  y = Exp(f)  d = Cast<to = 11>(z)  w = Add(d, d) }"""
        )
    )
    assert len(found.doubles) == 1


def test_dropout_that_does_not_train_draws_nothing() -> None:
    still = graph("(float[n] x) => (float[n] y) { y = Dropout(x) }")
    drawn = graph("(float[n] x) => (float[n] y) { r = RandomNormalLike(x)  y = Add(r, x) }")
    assert Decisions.of(still).random == frozenset()
    assert Decisions.of(drawn).random == {"y"}


def test_a_decision_knows_those_before_it_and_the_outputs_after_it() -> None:
    first, second = Decisions.of(
        graph(
            """(float[n, 3] x) => (int64[n, 1] i, bool[n, 1] b, float[n, 3] e)
            { e = Exp(x)  i = ArgMax<axis = 1>(e)  f = Cast<to = 1>(i)  b = IsNaN(f) }"""
        )
    ).items
    assert (first.op_type, first.axis, first.outputs) == ("ArgMax", 1, {"i", "b"})
    assert (second.op_type, second.after, second.outputs) == ("IsNaN", {0}, {"b"})
