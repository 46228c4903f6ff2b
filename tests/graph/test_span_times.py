"""Times of spans: measured where they were, from shares of measured runs where not."""

from __future__ import annotations

import pytest

from coinfer.graph.operators import Operators
from coinfer.graph.partition import partition_at
from coinfer.graph.span_times import SpanTimes
from coinfer.machine.span import Span
from planner.cut_models import chain_with_skip

MODEL = chain_with_skip().model
EVERYTHING = frozenset(range(5))
SHARES = (0.1, 0.2, 0.3, 0.2, 0.2)


def test_a_measured_span_has_its_time_and_another_the_share_of_the_run_around_it() -> None:
    partition = partition_at(MODEL, (1, 2, 3, 4), {"p": EVERYTHING})
    times = SpanTimes(SHARES)
    times.note("p", (0, 1, 2, 3, 4), 10.0)
    table = times.table(partition)
    assert table[Span(0, 4)] == {"p": 10.0}
    assert table[Span(2, 2)]["p"] == pytest.approx(3.0, rel=1e-6)
    times.note("p", (2,), 5.0)
    assert times.table(partition)[Span(2, 2)] == {"p": 5.0}


def test_what_a_part_does_not_account_for_falls_on_the_other_operators_of_the_run() -> None:
    times = SpanTimes(SHARES)
    times.note("p", (0, 1, 2, 3, 4), 10.0)
    times.note("p", (1, 2), 8.0)
    assert times.operator_seconds("p") == pytest.approx((0.4, 3.2, 4.8, 0.8, 0.8))


def test_no_operator_is_free_where_the_parts_take_longer_than_the_whole() -> None:
    times = SpanTimes(SHARES)
    times.note("p", (0, 1, 2, 3, 4), 10.0)
    times.note("p", (1, 2), 12.0)
    seconds = times.operator_seconds("p")
    assert seconds is not None
    assert min(seconds) > 0


def test_an_operator_outside_of_all_measured_runs_has_the_mean_rate() -> None:
    times = SpanTimes(SHARES)
    times.note("p", (0, 1), 6.0)
    times.note("p", (3, 4), 4.0)
    assert times.operator_seconds("p") == pytest.approx((2, 4, 0.3 * 10 / 0.7, 2, 2))


def test_more_bytes_across_a_cut_make_a_span_that_was_not_measured_dearer() -> None:
    """Before operator 3 two values cross, `c` and `a`; at the model's ends none."""
    partition = partition_at(MODEL, (1, 3), {"p": EVERYTHING})
    times = SpanTimes(SHARES)
    times.note("p", tuple(range(5)), 1e-6)
    bare = times.operator_seconds("p")
    assert bare is not None
    table = times.table(partition)
    extra = {
        span: row["p"] - sum(bare[i] for i in partition.members(span))
        for span, row in table.items()
    }
    one, two = partition.border(1).bytes, partition.border(2).bytes
    assert (one, two) == (16, 32)
    assert extra[Span(0, 2)] == pytest.approx(0.0, abs=1e-18)
    assert extra[Span(1, 2)] * 2 == pytest.approx(extra[Span(0, 1)], rel=1e-3)
    assert extra[Span(0, 0)] + extra[Span(2, 2)] == pytest.approx(extra[Span(1, 1)], rel=1e-3)


def test_what_a_processor_was_found_not_to_run_is_not_in_the_table() -> None:
    partition = partition_at(MODEL, (1,), {"p": EVERYTHING, "q": EVERYTHING})
    assert Operators.of(MODEL.graph) == partition.operators
    times = SpanTimes(SHARES)
    for name in ("p", "q"):
        times.note(name, tuple(range(5)), 1.0)
    times.refuse("q", (1, 2, 3, 4))
    table = times.table(partition)
    assert table[Span(1, 1)].keys() == {"p"}
    assert table[Span(0, 0)].keys() == {"p", "q"}


def test_a_processor_on_which_nothing_was_measured_is_not_in_the_table() -> None:
    partition = partition_at(MODEL, (1,), {"p": EVERYTHING, "q": EVERYTHING})
    times = SpanTimes(SHARES)
    times.note("p", tuple(range(5)), 1.0)
    assert all(row.keys() == {"p"} for row in times.table(partition).values())
    assert times.operator_seconds("q") is None
