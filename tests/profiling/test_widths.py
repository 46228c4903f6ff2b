"""Of many widths a few are measured; the others are told from them and marked."""

from __future__ import annotations

import pytest

from coinfer.machine.core_groups import core_groups
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement
from coinfer.machine.scaling import Scaling
from coinfer.machine.topology import Core, Topology
from coinfer.profiling import Effort, Profiler
from coinfer.profiling.task import Task
from coinfer.profiling.widths import between, points
from coinfer.testing.models import tiny_linear

SCALING = Scaling(mean_s=0.1, serial=0.1)


def processors(cores: int) -> list[Processor]:
    half = cores // 2
    known = tuple(Core(threads=(n,), cache=n // half, node=n // half) for n in range(cores))
    return [
        Processor(
            name=f"p{group.name}",
            backend="null",
            device="NULL",
            units=frozenset(f"core{n}" for n in group.numbers),
            threads=len(group.numbers),
            spread=group.spread,
        )
        for group in core_groups(Topology(cores=known, used=tuple(range(cores))))
    ]


def alike_once(cores: int) -> dict[str, Task]:
    found = {p.likeness: Task("m", p, 1) for p in reversed(processors(cores))}
    return {task.processor.name: task for task in found.values()}


def test_of_six_widths_in_a_node_three_are_measured_and_so_is_the_one_over_both() -> None:
    first, others = points(alike_once(64))
    assert sorted(task.processor.threads for task in first.values()) == [1, 8, 32, 64]
    assert sorted(task.processor.threads for task in others.values()) == [2, 4, 16]


def test_of_few_widths_all_are_measured() -> None:
    first, others = points(alike_once(8))
    assert (len(first), others) == (4, {})


def test_a_width_is_told_from_its_neighbours_by_amdahls_law() -> None:
    first, others = points(alike_once(64))
    known = [
        (task, Measurement(seconds=(SCALING.seconds(task.processor.threads),), load_s=0.5))
        for task in first.values()
    ]
    for task in others.values():
        found = between(task, known)
        assert found is not None
        assert found.interpolated
        assert found.mean_s == pytest.approx(SCALING.seconds(task.processor.threads))
        assert found.load_s == 0.5


def test_without_a_wider_one_that_was_measured_nothing_is_told() -> None:
    first, others = points(alike_once(64))
    narrow = [
        (task, Measurement(seconds=(0.1,))) for task in first.values() if task.processor.threads < 2
    ]
    assert all(between(task, narrow) is None for task in others.values())


def test_a_profile_of_a_large_machine_says_what_is_interpolated() -> None:
    # A backend without versions may be anything: then every processor is measured.
    from coinfer.backends.null import NullBackend

    class Versioned(NullBackend):
        def versions(self) -> dict[str, str]:
            return {"null": "1"}

    profiler = Profiler(effort=Effort(min_runs=2, max_runs=2), backends={"null": Versioned()})
    model = tiny_linear().model
    everyone = processors(64)
    profile = profiler.profile(
        {"m": model},
        everyone,
        batch=1,
        feeds={"m": [model.sample_inputs()]},
        skipped=lambda skip: pytest.fail(str(skip)),
    )
    widths = {p.name: p.threads for p in everyone}
    marked = {widths[key.processor] for key, entry in profile if entry.interpolated}
    assert marked == {2, 4, 16}
    assert len(profile.entries) == len(everyone)
