"""Unit subgraphs: Band's rules on graphs small enough to check by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.errors import ConfigurationError
from coinfer.graph.operators import Operators
from coinfer.graph.units import find_units, island_sizes
from coinfer.testing.models import model_from_text
from graph.chains import everything, gaps, random_models, random_support


def chain(*op_types: str) -> Operators:
    names = ["x", *(f"v{at}" for at in range(len(op_types) - 1)), "y"]
    lines = [f"{names[at + 1]} = {kind}({names[at]})" for at, kind in enumerate(op_types)]
    text = f"g (float[N] x) => (float[N] y) {{ {' '.join(lines)} }}"
    return Operators.of(model_from_text(text, name="g").graph)


def cut(
    operators: Operators, support: dict[str, frozenset[int]], size: int | dict[str, int] = 1
) -> list[tuple[tuple[int, ...], set[str]]]:
    return [(u.operators, set(u.processors)) for u in find_units(operators, support, size)]


def test_full_support_everywhere_gives_one_unit() -> None:
    operators = chain("Relu", "Tanh", "Neg")
    support = {"cpu": everything(operators), "gpu": everything(operators)}
    assert cut(operators, support) == [((0, 1, 2), {"cpu", "gpu"})]


def test_a_gap_cuts_a_chain_in_three() -> None:
    operators = chain("Relu", "Tanh", "Neg")
    support = {"cpu": everything(operators), "npu": gaps(operators, "Tanh")}
    assert cut(operators, support) == [
        ((0,), {"cpu", "npu"}),
        ((1,), {"cpu"}),
        ((2,), {"cpu", "npu"}),
    ]


def test_every_different_set_of_processors_starts_a_unit() -> None:
    operators = chain("Relu", "Tanh", "Neg", "Abs")
    support = {
        "cpu": everything(operators),
        "npu": frozenset({0, 1}),
        "dsp": frozenset({1, 2}),
    }
    assert cut(operators, support) == [
        ((0,), {"cpu", "npu"}),
        ((1,), {"cpu", "npu", "dsp"}),
        ((2,), {"cpu", "dsp"}),
        ((3,), {"cpu"}),
    ]


def test_islands_below_the_minimum_size_are_given_up_on_that_processor() -> None:
    operators = chain("Relu", "Relu", "Tanh", "Relu", "Tanh", "Relu", "Relu")
    support = {"cpu": everything(operators), "npu": gaps(operators, "Tanh")}
    assert cut(operators, support, 2) == [
        ((0, 1), {"cpu", "npu"}),
        ((2, 3, 4), {"cpu"}),
        ((5, 6), {"cpu", "npu"}),
    ]
    assert cut(operators, support, 3) == [((0, 1, 2, 3, 4, 5, 6), {"cpu"})]
    assert cut(operators, support, {"cpu": 99, "npu": 2}) == cut(operators, support, 2)
    assert island_sizes(operators, support["npu"]) == (1, 2)


def test_full_support_is_no_island() -> None:
    operators = chain("Relu", "Tanh")
    support = {"cpu": everything(operators), "gpu": everything(operators)}
    assert cut(operators, support, 7) == [((0, 1), {"cpu", "gpu"})]
    assert island_sizes(operators, support["cpu"]) == ()


def test_an_island_is_kept_where_nothing_else_runs_it() -> None:
    operators = chain("Relu", "Tanh", "Neg")
    support = {"cpu": frozenset({0, 2}), "npu": frozenset({1})}
    assert cut(operators, support, 7) == [((0,), {"cpu"}), ((1,), {"npu"}), ((2,), {"cpu"})]


def test_a_unit_takes_every_ready_operator_connected_or_not() -> None:
    model = model_from_text(
        """g (float[N] x, float[N] z) => (float[N] y, float[N] u)
        { a = Relu(x) b = Tanh(a) c = Relu(z) y = Neg(b) u = Neg(c) }""",
        name="g",
    )
    operators = Operators.of(model.graph)
    support = {"cpu": everything(operators), "npu": gaps(operators, "Tanh")}
    assert cut(operators, support) == [
        ((0, 2, 4), {"cpu", "npu"}),
        ((1,), {"cpu"}),
        ((3,), {"cpu", "npu"}),
    ]


def test_an_island_is_given_up_to_any_other_processor() -> None:
    operators = chain("Relu", "Tanh", "Neg")
    support = {"cpu": frozenset({0, 2}), "npu": frozenset({0, 1})}
    assert cut(operators, support, 2) == [((0, 1), {"npu"}), ((2,), {"cpu"})]


def test_an_operator_that_nothing_runs_is_named() -> None:
    operators = chain("Relu", "Tanh")
    support = {"npu": gaps(operators, "Tanh")}
    with pytest.raises(ConfigurationError, match=r"\(Tanh\) runs on none of the processors: npu"):
        find_units(operators, support)


def test_operators_that_cannot_be_parted_need_one_processor_for_all() -> None:
    model = model_from_text(
        """g (float[N,4] x) => (float[N,2] y) { one = Constant<value = int64 {1}>()
        two = Constant<value = int64 {2}>()
        q = SplitToSequence<axis = 1>(x, two) y = SequenceAt(q, one) }""",
        name="g",
    )
    operators = Operators.of(model.graph)
    support = {"a": frozenset({0}), "b": frozenset({1})}
    with pytest.raises(ConfigurationError, match=r"SplitToSequence.* to .*SequenceAt.* parted"):
        find_units(operators, support)
    assert cut(operators, {**support, "cpu": everything(operators)}) == [((0, 1), {"cpu"})]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_unit_could_have_taken_an_operator_of_the_next_of_its_kind(data: st.DataObject) -> None:
    """Maximal: what has the same processors comes later only because it reads from between."""
    operators = Operators.of(data.draw(random_models()).graph)
    units = find_units(operators, data.draw(random_support(operators)))
    at = {index: place for place, unit in enumerate(units) for index in unit.operators}
    for place, unit in enumerate(units):
        for earlier in range(place):
            if units[earlier].processors == unit.processors:
                assert any(
                    earlier < at[producer] < place
                    for index in unit.operators
                    for producer in operators[index].producers
                )
