"""The minimum subgraph size that is searched: small islands stay only where they pay."""

from __future__ import annotations

import pytest

from coinfer.graph.operators import Operators
from coinfer.graph.partition import choose_partition
from coinfer.graph.partition_options import PartitionOptions
from coinfer.graph.size_search import search_sizes
from coinfer.graph.span_times import SpanTimes
from coinfer.testing.models import model_from_text

# Three islands of `Relu`: one operator, two, and three; everything else is `Exp`.
MODEL = model_from_text(
    """agraph (float[N,8] x) => (float[N,8] y) {
    a = Relu(x)  b = Exp(a)  c = Relu(b)  d = Relu(c)  e = Exp(d)
    f = Relu(e)  g = Relu(f)  h = Relu(g)  y = Exp(h) }""",
    name="m",
)
OPERATORS = Operators.of(MODEL.graph)
RELUS = frozenset(o.index for o in OPERATORS if o.op_type == "Relu")
SUPPORT = {"npu": RELUS, "cpu": frozenset(range(len(OPERATORS)))}
OPTIONS = PartitionOptions(minimum_subgraph_size=1)


def times(npu_s: float, cpu_s: float) -> SpanTimes:
    """Seconds of one operator on each."""
    found = SpanTimes([1 / len(OPERATORS)] * len(OPERATORS))
    for index in range(len(OPERATORS)):
        found.note("cpu", (index,), cpu_s)
        if index in RELUS:
            found.note("npu", (index,), npu_s)
    return found


def sizes(known: SpanTimes) -> dict[str, int]:
    return search_sizes(MODEL, SUPPORT, OPTIONS, known, OPERATORS)


def test_islands_that_save_much_are_all_kept() -> None:
    assert sizes(times(0.001, 1.0)) == {"npu": 1}


def test_islands_that_save_nothing_are_all_given_up() -> None:
    chosen = sizes(times(1.0, 1.0))
    partition = choose_partition(
        MODEL, SUPPORT, PartitionOptions(minimum_subgraph_size=chosen), operators=OPERATORS
    )
    assert len(partition.units) == 1


def test_a_size_between_keeps_the_islands_that_are_large_enough() -> None:
    """Going to `npu` and back costs 6 % of the time in all; saving one or two is not enough."""
    chosen = sizes(times(0.973, 1.0))["npu"]
    assert chosen > 1
    worth = sizes(times(0.9, 1.0))["npu"]
    assert 1 <= worth <= chosen


def test_only_processors_with_gaps_have_a_size() -> None:
    both = {"cpu": SUPPORT["cpu"], "other": SUPPORT["cpu"]}
    known = times(0.5, 1.0)
    known.note("other", tuple(range(len(OPERATORS))), 9.0)
    assert search_sizes(MODEL, both, OPTIONS, known, OPERATORS) == {}


@pytest.mark.parametrize("npu_s", [0.1, 0.5, 0.9, 1.0])
def test_no_other_size_is_better_by_more_than_one_percent(npu_s: float) -> None:
    from coinfer.core.routes import HANDOVER_S
    from coinfer.graph.span_choice import LEAST_GAIN, plan

    known = times(npu_s, 1.0)

    def seconds(size: int, step_s: float) -> float:
        wanted = PartitionOptions(minimum_subgraph_size={"npu": size})
        partition = choose_partition(MODEL, SUPPORT, wanted, operators=OPERATORS)
        return plan(known.table(partition), len(partition.units), step_s=step_s)[1]

    step_s = HANDOVER_S + LEAST_GAIN * seconds(1, HANDOVER_S)
    chosen = seconds(sizes(known)["npu"], step_s)
    assert all(chosen <= 1.01 * seconds(size, step_s) for size in range(1, 8))
