"""The batch path: as short as the shortest of all ways, and never longer than one batch size."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings

from coinfer.errors import ConfigurationError
from coinfer.graph.layer_batches.batch_path import count_plans, exhaustive_s, find_batch_path
from coinfer.graph.layer_batches.layer_group import BatchProblem, LayerGroup, MemoryBudget
from coinfer.graph.layer_batches.segment import Segment, plan_cost
from graph.layer_batches.problems import played_s, problems


@settings(deadline=None, max_examples=150)
@given(problems())
def test_the_path_is_as_short_as_the_shortest_of_all_plans(problem: BatchProblem) -> None:
    plans = _plans(problem, 0)
    assert len(plans) == count_plans(problem)
    least_s = min(played_s(problem, plan) for plan in plans)
    path = find_batch_path(problem)
    assert path.seconds == pytest.approx(least_s)
    assert played_s(problem, path.segments) == pytest.approx(least_s)
    assert exhaustive_s(problem) == pytest.approx(least_s)


@settings(deadline=None, max_examples=150)
@given(problems(most_groups=6))
def test_it_is_never_longer_than_any_single_batch_size(problem: BatchProblem) -> None:
    path = find_batch_path(problem)
    assert set(path.fixed_s) == set(problem.batches)
    assert path.seconds <= min(path.fixed_s.values()) * (1 + 1e-12)
    assert path.fixed_s[path.best_fixed] == min(path.fixed_s.values())
    assert path.seconds <= path.layered_s[path.best_layered] * (1 + 1e-12)
    for batch, seconds in path.layered_s.items():
        alone = [Segment(at, at, batch) for at in range(len(problem.groups))]
        assert played_s(problem, alone) == pytest.approx(seconds)


@settings(deadline=None, max_examples=60)
@given(problems(most_groups=3))
def test_the_next_best_batch_of_a_group_is_that_of_all_plans(problem: BatchProblem) -> None:
    path = find_batch_path(problem)
    plans = _plans(problem, 0)
    for at, group in enumerate(path.groups):
        others = [plan for plan in plans if _batch_at(plan, at) != group.batch]
        if group.other_batch is None:
            assert not others
            continue
        least_s = min(played_s(problem, plan) for plan in others)
        assert path.seconds + group.other_s == pytest.approx(least_s)


@settings(deadline=None, max_examples=60)
@given(problems())
def test_more_memory_never_makes_it_slower(problem: BatchProblem) -> None:
    memory = dataclasses.replace(problem.memory, bytes=problem.memory.bytes + 25)
    more = dataclasses.replace(problem, memory=memory)
    assert find_batch_path(more).seconds <= find_batch_path(problem).seconds * (1 + 1e-12)


def test_early_layers_run_in_small_batches_and_late_ones_in_large_ones() -> None:
    path = find_batch_path(_network(budget=110))
    assert [group.batch for group in path.groups] == [1, 1, 4]
    assert [segment.last for segment in path.segments] == [1, 2]
    # 8 s of early, 8 of middle, 2 passes of late; each load once; 8 bytes are stacked anew.
    assert path.cost.run_s == 18.0
    assert path.cost.load_s == pytest.approx(92 / 90)
    assert path.cost.regroup_s == pytest.approx(8 * 1 / 8)
    assert path.cost.spill_s == 0.0


def test_with_memory_for_all_one_batch_size_is_enough() -> None:
    path = find_batch_path(_network(budget=1000))
    assert path.segments == (Segment(0, 2, 4),)
    assert path.seconds == path.fixed_s[4]


def test_the_last_batch_is_as_long_as_its_samples() -> None:
    group = _group("a", 0, 1, 1, {1: 1.0, 4: 2.5})
    problem = BatchProblem(groups=[group], requests=6, memory=_memory(100), batches=[4])
    assert plan_cost(problem, [Segment(0, 0, 4)]).run_s == 2.5 + 1.5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"requests": 0}, "one request at least"),
        ({"batches": [16]}, "no batch size up to the number of requests"),
        ({"memory": MemoryBudget(bytes=90, load_bytes_per_s=1.0)}, r"late alone needs .* \(92 by"),
    ],
)
def test_what_cannot_be_solved_is_said(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        dataclasses.replace(_network(budget=100), **change)


def test_groups_must_fit_together() -> None:
    groups = [_group("a", 0, 1, 2, {1: 1.0}), _group("b", 0, 3, 1, {1: 1.0})]
    with pytest.raises(ConfigurationError, match="2 B are kept after group 'a', but 3 B before"):
        BatchProblem(groups=groups, requests=1, memory=_memory(100))


def _network(budget: int) -> BatchProblem:
    """Samples are large early, weights late; only the last group gains by batches."""
    groups = [
        _group("early", 1, 20, 20, {1: 1.0, 4: 4.0}),
        _group("middle", 1, 20, 1, {1: 1.0, 4: 4.0}),
        _group("late", 90, 1, 1, {1: 1.0, 4: 1.0}),
    ]
    return BatchProblem(groups=groups, requests=8, memory=_memory(budget))


def _memory(budget: int) -> MemoryBudget:
    return MemoryBudget(bytes=budget, load_bytes_per_s=90.0, copy_bytes_per_s=8.0)


def _group(
    name: str, weights: int, before: int, after: int, seconds: dict[int, float]
) -> LayerGroup:
    return LayerGroup(
        name=name,
        weight_bytes=weights,
        input_bytes=before,
        output_bytes=after,
        seconds=seconds,
    )


def _plans(problem: BatchProblem, first: int) -> list[list[Segment]]:
    if first == len(problem.groups):
        return [[]]
    return [
        [Segment(first, last, batch), *rest]
        for last in range(first, len(problem.groups))
        for batch in problem.batches
        for rest in _plans(problem, last + 1)
    ]


def _batch_at(plan: list[Segment], at: int) -> int:
    return next(each.batch for each in plan if each.first <= at <= each.last)
