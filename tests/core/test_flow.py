"""How long a shared run may last: as long as the other processors have enough to do."""

from __future__ import annotations

import pytest

from coinfer.core.flow import Flow
from coinfer.core.lane import Lane
from coinfer.core.state import State
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors

CORES = tuple(f"cpu{number}" for number in range(4))


def machine(cores: tuple[str, ...] = CORES, fixed_share: float = 0.1) -> VirtualMachine:
    return VirtualMachine(
        processors(*cores),
        make_policy("fcfs"),
        {"m": dict.fromkeys(cores, 1.0)},
        batchings={"m": Batching(16)},
        fixed_share=fixed_share,
    )


def sizes(subject: VirtualMachine) -> list[int]:
    return [len(execution.requests) for execution in subject.executions]


def test_a_burst_is_over_as_soon_as_all_cores_can_be_done_with_it() -> None:
    subject = machine()
    for number in range(32):
        subject.submit("m", is_followed=number < 31)
    subject.run()
    assert sum(sizes(subject)) == 32
    # One run each takes 8 s on four cores; 16 on each of two of them would take 14.5 s.
    assert subject.now <= 8.0
    assert max(sizes(subject)) > 1  # and yet they share


def test_alone_on_one_core_all_share_as_before() -> None:
    subject = machine(CORES[:1])
    for number in range(16):
        subject.submit("m", is_followed=number < 15)
    subject.run()
    assert sizes(subject) == [16]


def test_where_requests_keep_coming_runs_are_as_large_as_they_may_be() -> None:
    subject = machine()
    for number in range(600):  # six per second and core where one takes a second
        subject.submit("m", arrival_s=number / 24)
    subject.run(until_s=25.0)
    begun = [len(e.requests) for e in subject.executions if e.started_s > 12.0]
    assert min(begun) == 16


@pytest.fixture
def watched() -> tuple[State, Lane, Flow]:
    dispatcher = machine().dispatcher
    return dispatcher._state, dispatcher.view.entrance("m"), Flow(dispatcher._state)


def test_what_is_to_come_is_what_came_before_until_it_is_overdue(
    watched: tuple[State, Lane, Flow],
) -> None:
    state, lane, flow = watched
    assert flow.comes_s(10.0) == 0.0  # nobody knows
    for moment in range(6):
        state.now = float(moment)
        for _ in range(3):  # at once: one event
            flow.note(lane)
    assert flow.comes_s(0.5) == 0.0  # before the next
    assert flow.comes_s(5.0) == pytest.approx(12.0)
    state.now = 8.0
    assert flow.comes_s(1.0) == pytest.approx(3.0)
    state.now = 38.0
    assert flow.comes_s(5.0) == 0.0


def test_nothing_is_expected_for_longer_than_it_has_been_coming(
    watched: tuple[State, Lane, Flow],
) -> None:
    state, lane, flow = watched
    for number in range(25):
        state.now = 0.1 * number
        flow.note(lane)
    assert flow.comes_s(1.0) == pytest.approx(9.0)
    assert flow.comes_s(2.5) == 0.0


def test_a_burst_in_what_comes_steadily_is_soon_over(
    watched: tuple[State, Lane, Flow],
) -> None:
    state, lane, flow = watched
    for number in range(60):
        state.now = float(number)
        flow.note(lane)
    for number in range(1, 31):
        state.now = 59 + 0.001 * number
        flow.note(lane)
    assert flow.comes_s(10.0) < 20  # by the mean of the last ones there would be 400


def test_what_came_long_ago_is_forgotten(watched: tuple[State, Lane, Flow]) -> None:
    state, lane, flow = watched
    for number in range(1000):
        state.now += 1.0 if number < 100 else 0.1
        flow.note(lane)
        flow.comes_s(1.0)
    assert flow.comes_s(10.0) < 60
    for _ in range(8000):
        state.now += 0.1
        flow.note(lane)
        flow.comes_s(1.0)
    assert flow.comes_s(10.0) == pytest.approx(99.0, rel=0.02)


def test_what_comes_within_a_moment_is_dealt_out_as_what_comes_at_once() -> None:
    found = []
    for gap_s in (0.0, 1e-4):
        subject = VirtualMachine(
            processors("cpu0", "cpu1"),
            make_policy("earliest_finish"),
            {"m": dict.fromkeys(("cpu0", "cpu1"), 1.0), "n": dict.fromkeys(("cpu0", "cpu1"), 0.3)},
            batchings={"m": Batching(16)},
            fixed_share=0.1,
        )
        for number in range(16):
            subject.submit("mn"[number % 2], arrival_s=gap_s * number, is_followed=number < 15)
        subject.run()
        found.append(subject.now)
    # One run of 8 of the one takes 7.3 s, while the other core has 2.4 s of the other to do.
    assert max(found) < 5.7


def test_units_count_by_how_fast_they_are() -> None:
    wide = Processor(name="both", backend="null", units=frozenset({"a", "b"}), threads=2)
    npu = Processor(name="npu", backend="null", units=frozenset({"n"}))
    a, b = (Processor(name=n, backend="null", units=frozenset({n})) for n in "ab")
    seconds = {"a": 1.0, "b": 1.0, "both": 0.6, "npu": 0.25}
    subject = VirtualMachine([a, b, wide, npu], make_policy("fcfs"), {"m": seconds})
    flow = Flow(subject.dispatcher._state)
    work_s, least_s, like = flow.beside_s(subject.dispatcher.view.entrance("m"))
    assert (work_s, least_s) == (0.0, 0.25)
    assert like == pytest.approx(1.5)  # the NPU, and two cores of a quarter of its speed


def test_what_is_out_of_service_is_no_measure() -> None:
    subject = VirtualMachine(
        processors("npu", "cpu"),
        make_policy("fcfs"),
        {"m": {"npu": 0.1, "cpu": 1.0}},
        batchings={"m": Batching(16)},
        fixed_share=0.5,
    )
    subject.lose("npu")
    for number in range(16):
        subject.submit("m", is_followed=number < 15)
    subject.run()
    assert sizes(subject) == [16]  # one each would take twice as long


def test_the_load_is_what_comes_of_what_the_units_can_do(
    watched: tuple[State, Lane, Flow],
) -> None:
    state, lane, flow = watched
    like = flow.beside_s(lane)[2]
    assert flow.load(lane) == 0.0  # nobody knows
    for moment in range(6):
        state.now = 0.5 * moment
        flow.note(lane)
    assert flow.load(lane) == pytest.approx(2.0 / like)
    state.now = 100.0
    assert flow.load(lane) == 0.0
