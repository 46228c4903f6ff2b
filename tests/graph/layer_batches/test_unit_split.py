"""The unit split: never longer than one network at a time, and as good as the best split of all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.errors import ConfigurationError
from coinfer.graph.layer_batches.batch_path import find_batch_path
from coinfer.graph.layer_batches.layer_group import BatchProblem, LayerGroup, MemoryBudget
from coinfer.graph.layer_batches.unit_split import Contender, split_units
from graph.layer_batches.problems import problems

WIDTHS = (1, 2, 4)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(1, 40), min_size=3, max_size=3), min_size=1, max_size=3))
def test_units_are_dealt_out_as_well_as_possible(tables: list[list[int]]) -> None:
    contenders = [
        _contender(f"n{at}", dict(zip(WIDTHS, row, strict=True))) for at, row in enumerate(tables)
    ]
    split = split_units(contenders, 6)
    ways = [
        max(row[WIDTHS.index(width)] for row, width in zip(tables, widths, strict=True))
        for widths in itertools.product(WIDTHS, repeat=len(tables))
        if sum(widths) <= 6
    ]
    assert split.parallel_s == min(ways)
    assert split.sequential_s == sum(min(row) for row in tables)
    assert sum(share.units for share in split.shares.values()) <= 6
    assert split.seconds == min(min(ways), split.sequential_s)


@settings(deadline=None, max_examples=40)
@given(st.lists(problems(most_groups=3), min_size=1, max_size=3), st.integers(1, 4))
def test_it_is_never_longer_than_one_network_at_a_time(
    asked: Sequence[BatchProblem], units: int
) -> None:
    budget = max(problem.memory.bytes for problem in asked)
    contenders = [_with_budget(f"n{at}", problem, budget) for at, problem in enumerate(asked)]
    split = split_units(contenders, units)
    alone = [find_batch_path(contender.problems[1]).seconds for contender in contenders]
    assert split.seconds <= sum(alone) * (1 + 1e-9)
    if split.shares:
        assert sum(share.units for share in split.shares.values()) <= units
        assert sum(share.bytes for share in split.shares.values()) <= budget
        for contender in contenders:
            share = split.shares[contender.name]
            problem = contender.problems[share.units]
            memory = MemoryBudget(
                bytes=share.bytes,
                load_bytes_per_s=problem.memory.load_bytes_per_s,
                load_s=problem.memory.load_s,
                copy_bytes_per_s=problem.memory.copy_bytes_per_s,
            )
            own = BatchProblem(groups=problem.groups, requests=problem.requests, memory=memory)
            assert find_batch_path(own).seconds == share.seconds


def test_memory_goes_to_the_one_that_would_load_again_and_again() -> None:
    heavy = LayerGroup(
        name="w", weight_bytes=40, input_bytes=0, output_bytes=10, seconds={1: 1.0, 2: 2.0}
    )
    last = LayerGroup(
        name="v", weight_bytes=40, input_bytes=10, output_bytes=0, seconds={1: 1.0, 2: 2.0}
    )
    memory = MemoryBudget(bytes=200, load_bytes_per_s=10.0)
    asked = BatchProblem(groups=[heavy, last], requests=20, memory=memory)
    contenders = [
        Contender(name="heavy", problems={1: asked}),
        _contender("light", {1: 30}, budget=200),
    ]
    split = split_units(contenders, 2)
    # Beside the weights of a group 20 samples of 10 bytes do not fit, unless they run through both.
    assert split.shares["heavy"].bytes >= 90
    assert split.shares["heavy"].seconds == 20 * 2 + 8
    assert split.is_parallel


def test_networks_for_which_units_do_not_suffice_run_one_by_one() -> None:
    split = split_units([_contender("a", {1: 3}), _contender("b", {1: 4})], 1)
    assert not split.shares
    assert not split.is_parallel
    assert split.seconds == 7


@pytest.mark.parametrize(
    ("contenders", "complaint"),
    [([], "at least one network"), ([{4: 1}], "a has no times on 2 compute units or fewer")],
)
def test_what_cannot_be_split_is_said(contenders: list[dict[int, int]], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        split_units([_contender("a", row) for row in contenders], 2)


def _contender(name: str, seconds: dict[int, int], budget: int = 100) -> Contender:
    """A network of one group without weights: only units matter to it."""
    memory = MemoryBudget(bytes=budget, load_bytes_per_s=1.0)
    problems = {
        width: BatchProblem(
            groups=[
                LayerGroup(
                    name="g",
                    weight_bytes=0,
                    input_bytes=1,
                    output_bytes=1,
                    seconds={1: float(each)},
                )
            ],
            requests=1,
            memory=memory,
        )
        for width, each in seconds.items()
    }
    return Contender(name=name, problems=problems)


def _with_budget(name: str, problem: BatchProblem, budget: int) -> Contender:
    memory = MemoryBudget(
        bytes=budget,
        load_bytes_per_s=problem.memory.load_bytes_per_s,
        load_s=problem.memory.load_s,
        copy_bytes_per_s=problem.memory.copy_bytes_per_s,
    )
    own = BatchProblem(groups=problem.groups, requests=problem.requests, memory=memory)
    faster = [
        LayerGroup(
            name=group.name,
            weight_bytes=group.weight_bytes,
            input_bytes=group.input_bytes,
            output_bytes=group.output_bytes,
            inner_bytes=group.inner_bytes,
            seconds={batch: seconds / 2 for batch, seconds in group.seconds.items()},
        )
        for group in problem.groups
    ]
    twice = BatchProblem(groups=faster, requests=problem.requests, memory=memory)
    return Contender(name=name, problems={1: own, 2: twice})
