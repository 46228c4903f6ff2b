"""Which spans are worth compiling: what some plan wants, and never a cut that is a loss."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from coinfer.core.routes import FORK_S
from coinfer.graph.span_choice import forks_on, plan, worthwhile
from coinfer.graph.span_times import Table
from coinfer.machine.processor import Processor
from coinfer.machine.span import Fork, Span, completes


def processors(*names: str) -> list[Processor]:
    return [Processor(name=n, backend="null", units=frozenset({n})) for n in names]


def chains(first: int, units: int) -> list[list[Span]]:
    if first == units:
        return [[]]
    return [
        [Span(first, last), *rest]
        for last in range(first, units)
        for rest in chains(last + 1, units)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_plan_is_the_best_of_all_chains_and_placements(seed: int) -> None:
    rng = random.Random(seed)
    names = ["a", "b", "c"]
    table: Table = {}
    for first in range(5):
        for last in range(first, 5):
            row = {n: rng.uniform(0.001, 0.01) * (last - first + 1) for n in names}
            table[Span(first, last)] = {n: s for n, s in row.items() if rng.random() < 0.6}
    waits = {n: rng.choice([0.0, 0.004, math.inf]) for n in names}
    step_s = 0.001

    def finish(chain: list[Span], where: tuple[str, ...]) -> float:
        now = 0.0
        for span, name in zip(chain, where, strict=True):
            now = max(now, waits[name]) + table[span].get(name, math.inf) + step_s
        return now

    best = min(
        finish(chain, where)
        for chain in chains(0, 5)
        for where in itertools.product(names, repeat=len(chain))
    )
    chain, seconds = plan(table, 5, waits=waits, step_s=step_s)
    assert seconds == pytest.approx(best)
    if chain:
        spans, where = zip(*chain, strict=True)
        assert finish(list(spans), where) == pytest.approx(best)


def test_a_cut_that_gains_nothing_is_not_chosen() -> None:
    half, whole = {"a": 0.005, "b": 0.005}, {"a": 0.010, "b": 0.010}
    table: Table = {Span(0, 0): half, Span(0, 1): whole, Span(1, 1): dict(half)}
    chosen = worthwhile(table, 2, processors("a", "b"))
    assert chosen == {(Span(0, 1), "a"), (Span(0, 1), "b")}


def test_a_cut_that_saves_much_is_chosen_and_so_is_what_replaces_a_lost_processor() -> None:
    """Without `npu`, what `cpu` has compiled anyway is used again."""
    table: Table = {Span(0, 0): {"npu": 0.002, "cpu": 0.045}, Span(0, 1): {"cpu": 0.050}}
    table |= {Span(1, 1): {"cpu": 0.005}}
    chosen = worthwhile(table, 2, processors("npu", "cpu"))
    assert chosen == {(Span(0, 0), "npu"), (Span(1, 1), "cpu"), (Span(0, 0), "cpu")}


def test_on_the_idle_machine_only_the_best_plan_is_wanted() -> None:
    table: Table = {Span(0, 0): {"npu": 0.002, "cpu": 0.045}, Span(0, 1): {"cpu": 0.050}}
    table |= {Span(1, 1): {"cpu": 0.005}}
    chosen = worthwhile(table, 2, processors("npu", "cpu"), most_states=1)
    assert chosen == {(Span(0, 0), "npu"), (Span(1, 1), "cpu")}


def test_where_the_rest_runs_is_planned_for_each_boundary_and_each_lost_processor() -> None:
    """After unit 0 on `npu`, both CPUs can go on; what only one of them could do would strand."""
    row = {"cpu0": 0.005, "cpu1": 0.005}
    table: Table = {Span(0, 0): {"npu": 0.001}, Span(0, 1): {"cpu0": 0.05}, Span(1, 1): row}
    chosen = worthwhile(table, 2, processors("npu", "cpu0", "cpu1"))
    assert {(Span(1, 1), "cpu0"), (Span(1, 1), "cpu1"), (Span(0, 1), "cpu0")} <= chosen


def test_no_way_to_the_end_is_told_by_choosing_nothing() -> None:
    table: Table = {Span(0, 0): {"a": 0.001}}
    assert worthwhile(table, 2, processors("a")) == set()
    assert plan(table, 2) == ([], math.inf)


def branches(border_s: float = 0.0) -> Table:
    """A stem of 2 ms, two branches of 4 ms, a head of 2 ms; every border costs something."""
    units_s = (0.002, 0.004, 0.004, 0.002)
    table: Table = {}
    for first in range(4):
        for last in range(first, 4):
            borders = (first > 0) + (last < 3)
            seconds = sum(units_s[first : last + 1]) + borders * border_s / 2
            table[Span(first, last)] = {"a": seconds, "b": seconds}
    return table


FORK = Fork(1, 2, 2)


def test_a_plan_with_a_fork_runs_both_sides_at_once() -> None:
    able = forks_on([FORK], processors("a", "b"))
    chain, seconds = plan(branches(), 4, step_s=0.0, forks=able)
    assert seconds == pytest.approx(0.008 + FORK_S)
    assert [span for span, _ in chain] == [Span(0, 0), Span(1, 1), Span(2, 2), Span(3, 3)]
    assert chain[1][1] != chain[2][1]
    waits = {"b": math.inf}
    assert plan(branches(), 4, waits=waits, step_s=0.0, forks=able)[1] == pytest.approx(0.012)


def test_processors_that_share_units_do_not_run_two_sides() -> None:
    core = frozenset({"core"})
    both = [Processor(name=n, backend="null", units=core) for n in ("a", "b")]
    assert not forks_on([FORK], both)


def test_a_fork_that_saves_enough_is_wanted_on_both_processors() -> None:
    chosen = worthwhile(branches(), 4, processors("a", "b"), forks=[FORK])
    names = {name for span, name in chosen if span == Span(1, 1)}
    others = {name for span, name in chosen if span == Span(2, 2)}
    assert names
    assert others
    assert names | others == {"a", "b"}


@pytest.mark.parametrize("border_s", [0.003, 0.01])
def test_a_fork_whose_borders_cost_what_it_saves_is_not_wanted(border_s: float) -> None:
    chosen = worthwhile(branches(border_s), 4, processors("a", "b"), forks=[FORK])
    assert {span for span, _ in chosen} == {Span(0, 3)}


def test_what_is_wanted_without_forks_is_wanted_with_them_as_well() -> None:
    """A busy machine runs the whole network on each processor."""
    in_line = worthwhile(branches(), 4, processors("a", "b"))
    assert {(Span(0, 3), "a"), (Span(0, 3), "b")} <= in_line
    assert in_line < worthwhile(branches(), 4, processors("a", "b"), forks=[FORK])


def test_whoever_loses_a_processor_in_a_fork_can_go_on_with_the_other() -> None:
    chosen = worthwhile(branches(), 4, processors("a", "b"), forks=[FORK])
    for name in ("a", "b"):
        spans = {span for span, where in chosen if where == name}
        assert completes(spans, 4)
