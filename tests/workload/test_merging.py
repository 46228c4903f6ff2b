"""Merging blocks of times: the order of a heap that holds the next time of each process."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coinfer.workload.load import Load
from coinfer.workload.scenario_file import parse_scenario
from coinfer.workload.times import merged

# Few different moments, so that many fall together, also at the borders of blocks.
_TIMES = st.lists(st.integers(0, 6), max_size=12).map(sorted)
_PROCESSES = st.lists(st.tuples(_TIMES, st.integers(1, 4)), min_size=1, max_size=4)


def _blocks(times: list[int], size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(times), size):
        yield np.array(times[start : start + size], dtype=np.float64)


@given(_PROCESSES, st.sampled_from([0.0, 3.0, 5.5, np.inf]))
def test_times_come_in_order_and_what_falls_together_in_the_order_of_the_processes(
    processes: list[tuple[list[int], int]], end_s: float
) -> None:
    expected = sorted(
        (time, at, number)
        for at, (times, _) in enumerate(processes)
        for number, time in enumerate(times)
        if time < end_s
    )
    blocks = merged([_blocks(times, size) for times, size in processes], end_s)
    assert [each for block in blocks for each in zip(*block, strict=True)] == expected


def _load(arrivals: str) -> Load:
    return Load(
        parse_scenario(f"""
models: {{a: "zoo:lenet", b: "zoo:lenet", c: "zoo:lenet"}}
arrivals: {arrivals}
duration: 20
""")
    )


def test_a_load_in_order_is_what_asking_step_by_step_gives() -> None:
    arrivals = "{a: {periodic: 500/s}, b: {periodic: 250/s}, c: {poisson: 700/s}}"
    stepwise = _load(arrivals)
    agenda, expected = stepwise.initial(), []
    heapq.heapify(agenda)
    while agenda:
        due = heapq.heappop(agenda)
        expected.append(due)
        for following in stepwise.after_due(due):
            heapq.heappush(agenda, following)
    dues = _load(arrivals).in_order()
    assert dues is not None
    assert list(dues) == expected


def test_a_load_that_answers_drive_is_not_known_in_advance() -> None:
    assert _load("{a: {periodic: 50/s}, b: {closed: 2}, c: {after: a}}").in_order() is None
