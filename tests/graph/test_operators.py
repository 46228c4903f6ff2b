"""Operators: what counts as one, what it reads and writes, and what cannot be parted."""

from __future__ import annotations

from coinfer.graph.operators import Operators
from coinfer.testing.models import model_from_text


def operators_of(text: str) -> Operators:
    return Operators.of(model_from_text(text, name="g").graph)


def types(operators: Operators) -> list[str]:
    return [operator.op_type for operator in operators]


def test_what_is_computed_from_weights_alone_is_no_operator() -> None:
    operators = operators_of(
        """g (float[N,3] x) => (float[N,3] y) <float[3] q = {1, 2, 3}>
        { s = Constant<value = float {0.5}>() w = Mul(q, s) v = Neg(w) y = Mul(x, v) }"""
    )
    assert types(operators) == ["Mul"]
    assert operators[0].reads == ("x",)


def test_a_random_value_is_made_once_even_from_constants() -> None:
    operators = operators_of(
        """g (float[2,3] x) => (float[2,3] y)
        { r = RandomNormal<shape = [2, 3]>() a = Add(x, r) y = Mul(a, r) }"""
    )
    assert types(operators) == ["RandomNormal", "Add", "Mul"]


def test_what_no_output_needs_is_no_operator() -> None:
    operators = operators_of(
        "g (float[N] x) => (float[N] y) { a = Relu(x) dead = Neg(a) y = Tanh(a) }"
    )
    assert types(operators) == ["Relu", "Tanh"]


def test_control_flow_is_one_operator_that_reads_what_its_branches_capture() -> None:
    operators = operators_of(
        """g (float[N] x, bool c) => (float[N] y) <float[1] w = {1}>
        { a = Relu(x) b = Tanh(x)
          y = If(c) <then_branch = yes () => (float[N] t) { t = Mul(a, w) },
                     else_branch = no () => (float[N] e) {
                       e = If(c) <then_branch = p () => (float[N] g1) { g1 = Neg(b) },
                                  else_branch = q () => (float[N] g2) { g2 = Abs(b) }> }> }"""
    )
    assert types(operators) == ["Relu", "Tanh", "If"]
    assert set(operators[2].reads) == {"c", "a", "b"}
    assert operators[2].producers == (0, 1)
    assert operators[2].op_types == {"If", "Mul", "Neg", "Abs"}
    assert operators[0].op_types == {"Relu"}


def test_a_branch_on_constants_alone_is_an_operator() -> None:
    """It may be dear, and what is inside of it may draw random numbers."""
    operators = operators_of(
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}, bool c = {1}>
        { a = If(c) <then_branch = yes () => (float[2] t) { t = Neg(w) },
                     else_branch = no () => (float[2] e) { e = RandomNormal<shape = [2]>() }>
          y = Add(x, a) }"""
    )
    assert types(operators) == ["If", "Add"]


def test_operators_of_other_domains_are_named_with_them() -> None:
    operators = operators_of(
        """<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
        g (float[N] x) => (float[N] y) { y = com.microsoft.Gelu(x) }"""
    )
    assert types(operators) == ["com.microsoft.Gelu"]


def test_functions_of_the_model_are_looked_into() -> None:
    operators = operators_of(
        """<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        g (float[N] x) => (float[N] y) { a = own.twice(x) y = Neg(a) }
        <opset_import: ["" : 20], domain: "own"> twice (v) => (r) { h = Tanh(v) r = Add(h, v) }"""
    )
    assert types(operators) == ["Tanh", "Add", "Neg"]
    assert operators[2].reads == ("a",)


def test_operators_that_pass_a_sequence_on_stay_together() -> None:
    operators = operators_of(
        """g (float[N,4] x) => (float[N,2] y)
        { a = Relu(x) one = Constant<value = int64 {1}>() two = Constant<value = int64 {2}>()
          q = SplitToSequence<axis = 1>(a, two) y = SequenceAt(q, one) }"""
    )
    assert operators.groups == ((0,), (1, 2))
    assert "q" not in operators.specs


def test_what_lies_between_operators_that_stay_together_stays_with_them() -> None:
    operators = operators_of(
        """g (float[N,4] x) => (float[N,K] y)
        { two = Constant<value = int64 {2}>() one = Constant<value = int64 {1}>()
          q = SplitToSequence<axis = 1>(x, two) b = SequenceAt(q, one) c = Tanh(b)
          p = SequenceInsert(q, c) y = ConcatFromSequence<axis = 1>(p) }"""
    )
    assert operators.groups == ((0, 1, 2, 3, 4),)


def test_values_of_unknown_rank_are_not_handed_over() -> None:
    operators = operators_of(
        """<ir_version: 10, opset_import: ["" : 20, "example" : 1]>
        g (float[N] x) => (float[N] y) { a = Relu(x) b = example.Own(a) y = Neg(b) }"""
    )
    assert operators.groups == ((0,), (1, 2))
    assert set(operators.specs) == {"x", "a", "y"}


def test_dtypes_that_numpy_lacks_are_not_handed_over() -> None:
    operators = operators_of(
        """g (float[N] x) => (float[N] y)
        { a = Relu(x) b = Cast<to = 16>(a) y = Cast<to = 1>(b) }"""
    )
    assert operators.groups == ((0,), (1, 2))


def test_groups_are_in_topological_order_even_where_they_interleave() -> None:
    operators = operators_of(
        """g (float[N,4] x, float[N,4] z) => (float[N,2] y, float[N,2] u)
        { one = Constant<value = int64 {1}>() two = Constant<value = int64 {2}>()
          q = SplitToSequence<axis = 1>(x, two) p = SplitToSequence<axis = 1>(z, two)
          a = SequenceAt(p, one) e = SequenceLength(q) f = Cast<to = 1>(e)
          y = Add(a, f) u = SequenceAt(q, one) }"""
    )
    at = {index: place for place, group in enumerate(operators.groups) for index in group}
    assert len(operators.groups) == 4
    assert all(at[p] <= at[o.index] for o in operators for p in o.producers)
