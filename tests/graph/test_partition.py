"""Partition: modes, spans, limits, and what crosses the borders."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coinfer.api.compression import compress
from coinfer.errors import ConfigurationError
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition, choose_partition, partition_at
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.span import Span
from coinfer.model import Model, model_from_ir
from coinfer.planner.model_source import resolve_model
from coinfer.testing.models import model_from_text
from graph.chains import assert_well_formed, everything, gaps

SKIP = """g (float[N,3] x) => (float[N,3] y, float[N,3] b)
{ a = Relu(x) b = Tanh(a) c = Neg(b) y = Add(c, a) }"""

CHAIN = """g (float[N,3] x) => (float[N,3] y)
{ a = Relu(x) b = Tanh(a) c = Relu(b) d = Tanh(c) y = Relu(d) }"""


def chain_with_gap(mode: Mode, **options: object) -> Partition:
    model = model_from_text(CHAIN, name="g")
    operators = Operators.of(model.graph)
    support = {"cpu": everything(operators), "npu": gaps(operators, "Tanh")}
    settings = {"minimum_subgraph_size": 1, "mode": mode, **options}
    return choose_partition(model, support, PartitionOptions(**settings))


def spans(partition: Partition) -> dict[tuple[int, int], set[str]]:
    return {tuple(span): set(names) for span, names in partition.spans.items()}


def test_whole_does_not_cut() -> None:
    partition = chain_with_gap(Mode.WHOLE)
    assert spans(partition) == {(0, 0): {"cpu"}}
    assert partition.units[0].operators == (0, 1, 2, 3, 4)


def test_whole_needs_a_processor_that_runs_everything() -> None:
    model = model_from_text(CHAIN, name="net")
    support = {"a": frozenset({0, 1, 2}), "b": frozenset({3, 4})}
    with pytest.raises(ConfigurationError, match="no processor runs all of model 'net': a, b"):
        choose_partition(model, support, PartitionOptions(mode=Mode.WHOLE))


def test_unit_allows_single_units_only() -> None:
    partition = chain_with_gap(Mode.UNIT)
    both, cpu = {"cpu", "npu"}, {"cpu"}
    assert spans(partition) == {(0, 0): both, (1, 1): cpu, (2, 2): both, (3, 3): cpu, (4, 4): both}


def test_merged_allows_every_run_that_one_processor_supports() -> None:
    partition = chain_with_gap(Mode.MERGED)
    assert len(partition.spans) == 5 * 6 / 2
    assert {tuple(s) for s, names in partition.spans.items() if "npu" in names} == {
        (0, 0),
        (2, 2),
        (4, 4),
    }


def test_fallback_alternates_between_a_processor_and_those_that_run_the_rest() -> None:
    model = model_from_text(CHAIN, name="g")
    operators = Operators.of(model.graph)
    support = {"cpu": everything(operators), "npu": frozenset({0, 2, 3})}
    options = PartitionOptions(mode=Mode.FALLBACK_PER_PROCESSOR, minimum_subgraph_size=1)
    partition = choose_partition(model, support, options)
    assert [unit.operators for unit in partition.units] == [(0,), (1,), (2, 3), (4,)]
    assert spans(partition) == {
        (0, 3): {"cpu"},
        (0, 0): {"npu"},
        (1, 1): {"cpu"},
        (2, 2): {"npu"},
        (3, 3): {"cpu"},
    }


def test_fallback_of_two_processors_has_the_groups_of_both() -> None:
    model = model_from_text(CHAIN, name="g")
    operators = Operators.of(model.graph)
    support = {
        "cpu": everything(operators),
        "npu": frozenset({0, 1, 2}),
        "dsp": frozenset({2, 3, 4}),
    }
    options = PartitionOptions(mode=Mode.FALLBACK_PER_PROCESSOR, minimum_subgraph_size=1)
    partition = choose_partition(model, support, options)
    assert [unit.operators for unit in partition.units] == [(0, 1), (2,), (3, 4)]
    assert spans(partition) == {
        (0, 2): {"cpu"},
        (0, 1): {"npu"},
        (2, 2): {"cpu"},
        (0, 0): {"cpu"},
        (1, 2): {"dsp"},
    }


def test_values_that_cross_are_named_with_their_bytes() -> None:
    model = model_from_text(SKIP, name="g")
    operators = Operators.of(model.graph)
    partition = partition_at(model, [1, 2, 3], {"cpu": everything(operators)})
    assert [(b.values, b.bytes) for b in partition.borders] == [
        (("x",), 12),
        (("a",), 12),
        (("a", "b"), 24),
        (("a", "c"), 24),
    ]
    assert partition.dependencies == (
        frozenset(),
        frozenset({0}),
        frozenset({1}),
        frozenset({0, 2}),
    )


def test_spans_read_what_is_made_before_and_write_what_is_needed_later() -> None:
    model = model_from_text(SKIP, name="g")
    operators = Operators.of(model.graph)
    partition = partition_at(model, [1, 2, 3], {"cpu": everything(operators)})
    assert partition.reads(Span(2, 3)) == ("b", "a")
    assert partition.writes(Span(0, 1)) == ("a", "b")
    assert partition.writes(Span(1, 2)) == ("b", "c")  # b is an output, although read inside
    assert partition.writes(Span(3, 3)) == ("y",)
    assert partition.keep_after(0) == {"x"}
    assert partition.keep_after(2) == {"a", "b"}
    assert partition.keep_after(3) == {"a", "b", "c"}
    assert partition.keep_after(4) == {"y", "b"}


def test_bytes_of_an_open_shape_are_unknown() -> None:
    model = model_from_text(
        "g (float[N,K] x) => (float[N,K] y) { a = Relu(x) y = Tanh(a) }", name="g"
    )
    partition = partition_at(model, [1], {"cpu": frozenset({0, 1})})
    assert partition.border(1).bytes is None


def test_pieces_cut_into_units_of_about_equal_cost() -> None:
    model = resolve_model("zoo:small_resnet")
    operators = Operators.of(model.graph)
    support = {"cpu": everything(operators)}
    partition = choose_partition(model, support, PartitionOptions(pieces=4))
    assert_well_formed(partition)
    assert len(partition.units) == 4
    assert len(partition.spans) == 4 * 5 / 2


def test_pieces_do_not_part_what_libraries_compute_together() -> None:
    model = resolve_model("zoo:small_resnet")
    operators = Operators.of(model.graph)
    support = {"cpu": everything(operators)}
    for pieces in (2, 3, 4):
        partition = choose_partition(model, support, PartitionOptions(pieces=pieces))
        starts = {operators[unit.operators[0]].op_type for unit in partition.units}
        assert starts <= {"Conv", "GlobalAveragePool", "Gemm"}


def test_pieces_of_several_units_are_shared_out_by_cost() -> None:
    partition = chain_with_gap(Mode.UNIT, pieces=3)
    assert len(partition.units) == 5
    assert len(chain_with_gap(Mode.UNIT, pieces=99).units) == 5


def test_no_span_is_longer_than_asked_but_a_single_operator() -> None:
    model = model_from_text(CHAIN, name="g")
    operators = Operators.of(model.graph)
    support = {"cpu": everything(operators), "gpu": everything(operators)}
    seconds = {"cpu": [1.0, 1.0, 5.0, 1.0, 1.0], "gpu": [0.5] * 5}
    options = PartitionOptions(max_span_s=2.0)
    partition = choose_partition(model, support, options, seconds=seconds)
    assert [unit.operators for unit in partition.units] == [(0, 1), (2,), (3, 4)]
    assert spans(partition) == {
        (0, 0): {"cpu", "gpu"},
        (0, 1): {"gpu"},
        (1, 1): {"cpu", "gpu"},
        (1, 2): {"gpu"},
        (2, 2): {"cpu", "gpu"},
    }


def test_a_processor_without_seconds_is_not_limited() -> None:
    model = model_from_text(CHAIN, name="g")
    support = {"cpu": frozenset(range(5)), "gpu": frozenset(range(5))}
    partition = choose_partition(
        model, support, PartitionOptions(max_span_s=2.0), seconds={"cpu": [1.0] * 5}
    )
    assert partition.spans[partition.whole] == {"gpu"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum_subgraph_size": 0}, "minimum_subgraph_size must be at least 1, got 0"),
        ({"minimum_subgraph_size": {"npu": -1}}, "minimum_subgraph_size must be at least 1"),
        ({"pieces": 0}, "pieces must be at least 1, got 0"),
        ({"max_span_s": 0.0}, "max_span must be longer than 0"),
        ({"max_span_s": float("nan")}, "max_span must be longer than 0"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PartitionOptions(**options)


def test_a_limit_in_seconds_needs_the_seconds_of_each_operator() -> None:
    model = model_from_text(CHAIN, name="g")
    support = {"cpu": frozenset(range(5))}
    options = PartitionOptions(max_span_s=1.0)
    with pytest.raises(ConfigurationError, match="give `seconds`"):
        choose_partition(model, support, options)
    with pytest.raises(ConfigurationError, match="'cpu' has 2 entries for 5 operators"):
        choose_partition(model, support, options, seconds={"cpu": [1.0, 1.0]})


def _cut_at(position: int, support: frozenset[int], mode: Mode = Mode.MERGED) -> None:
    model: Model = model_from_text(CHAIN, name="g")
    partition_at(model, [position], {"npu": support}, mode=mode)


def test_cuts_must_lie_between_operators_and_leave_parts_that_something_runs() -> None:
    with pytest.raises(ConfigurationError, match="cannot cut before 5"):
        _cut_at(5, frozenset(range(5)))
    with pytest.raises(ConfigurationError, match="cannot cut before 0"):
        _cut_at(0, frozenset(range(5)))
    with pytest.raises(ConfigurationError, match="no processor runs all of unit 1"):
        _cut_at(2, frozenset({0, 1, 2}))
    with pytest.raises(ConfigurationError, match="whole chooses its own cuts"):
        _cut_at(2, frozenset(range(5)), Mode.WHOLE)


def test_the_parts_of_a_decomposed_layer_stay_together_where_they_may() -> None:
    """Between them the fewest bytes cross, and yet they are one layer."""
    pytest.importorskip("tensorly", reason="decomposing needs tensorly")
    nodes = "\n".join(
        f"v{at + 1} = Conv <pads = [1, 1, 1, 1]> (v{at}, w{at})"
        if at % 2 == 0
        else f"v{at + 1} = Relu(v{at})"
        for at in range(8)
    )
    graph = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 20]>
        net (float[1, 32, 64, 64] v0) => (float[1, 32, 64, 64] v8) {{ {nodes} }}"""
    )
    draw = np.random.default_rng(0)
    for node in graph.graph:
        for value in node.inputs[1:]:
            array = draw.normal(size=(32, 32, 3, 3)).astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
            graph.graph.register_initializer(value)
    small = compress(model_from_ir(graph, name="net"), ranks="ratio:0.1", processors=[]).model
    operators = Operators.of(small.graph)
    assert [o.op_type for o in operators] == ["Conv", "Conv", "Conv", "Relu"] * 4
    everything = {"cpu": frozenset(range(len(operators)))}
    for options in (PartitionOptions(pieces=4), PartitionOptions(max_span_s=4.0)):
        seconds = {"cpu": [1.0] * len(operators)}
        partition = choose_partition(small, everything, options, seconds=seconds)
        assert [len(unit.operators) for unit in partition.units] == [4, 4, 4, 4]
