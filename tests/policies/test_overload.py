"""Overload where nothing may be dropped: what is late does not make the rest late, nor starves."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from coinfer.core.policy import Rerank
from coinfer.core.request import Request
from coinfer.policies import make_policy
from coinfer.policies.earliest_finish import EarliestFinish
from coinfer.testing.machine import VirtualMachine, processors

SERVICE_S, DEADLINE_S = 0.01, 0.05
N = 600


def overloaded(load: float, policy: str = "earliest_finish", **options: object) -> VirtualMachine:
    """A camera that asks for more than one processor can do."""
    machine = VirtualMachine(
        processors("cpu0"), make_policy(policy, **options), {"m": {"cpu0": SERVICE_S}}
    )
    for at in range(N):
        arrival_s = at * SERVICE_S / load
        machine.submit("m", arrival_s=arrival_s, deadline_s=arrival_s + DEADLINE_S)
    machine.run()
    return machine


def latencies(machine: VirtualMachine) -> list[float]:
    return [machine.finished_s[n] - machine.replies[n].request.arrival_s for n in range(N)]


@pytest.mark.parametrize("load", [1.1, 1.2, 1.5])
def test_what_is_late_does_not_make_the_rest_late(load: float) -> None:
    took = latencies(overloaded(load))
    assert sum(each <= DEADLINE_S + 1e-9 for each in took) > 0.8 * N / load


def test_what_is_late_is_answered_while_the_overload_lasts() -> None:
    """A tenth of the work is kept for it, and the oldest goes first."""
    machine = overloaded(1.2)
    assert len(machine.finished_s) == N
    last_s = machine.replies[N - 1].request.arrival_s
    late = [n for n, took in enumerate(latencies(machine)) if took > DEADLINE_S]
    early = [n for n in late if machine.replies[n].request.arrival_s < last_s / 4]
    assert early
    assert all(machine.finished_s[n] < last_s for n in early)
    ends = [machine.finished_s[n] for n in early]
    assert ends == sorted(ends)


def beside_too_much(**options: object) -> VirtualMachine:
    """A camera that takes a third of a processor, beside so many others that they take it all."""
    machine = VirtualMachine(
        processors("cpu0"),
        make_policy("earliest_finish", **options),
        {"frame": {"cpu0": SERVICE_S}, "rest": {"cpu0": SERVICE_S}},
    )
    for at in range(N):
        arrival_s = at * 3 * SERVICE_S
        machine.submit("frame", arrival_s=arrival_s, deadline_s=arrival_s + 3 * SERVICE_S)
        for more in (0.0, 1.0, 2.0):
            machine.submit("rest", arrival_s=arrival_s + (more + 0.5) * SERVICE_S)
    machine.run()
    return machine


def test_what_has_no_deadline_and_waits_for_long_does_not_make_frames_late() -> None:
    machine = beside_too_much()
    frames = [r.request for r in machine.replies.values() if r.request.deadline_s < math.inf]
    kept = sum(machine.finished_s[each.id] <= each.deadline_s + 1e-9 for each in frames)
    assert len(frames) == N
    assert kept > 0.8 * N


def test_what_has_no_deadline_gets_all_that_frames_leave_and_does_not_starve() -> None:
    machine = beside_too_much()
    rest = [r.request for r in machine.replies.values() if r.request.deadline_s == math.inf]
    end_s = N * 3 * SERVICE_S
    assert sum(machine.finished_s[each.id] < end_s for each in rest) > 1.95 * N
    early = [each for each in rest if each.arrival_s < end_s / 10]
    assert all(machine.finished_s[each.id] < end_s for each in early)


@pytest.mark.parametrize("first_s", [None, SERVICE_S])
def test_without_deadlines_order_stays(first_s: float | None) -> None:
    """That the first of all had one changes nothing for what comes long after it."""
    machine = VirtualMachine(
        processors("cpu0"), make_policy("earliest_finish"), {"m": {"cpu0": SERVICE_S}}
    )
    machine.submit("m", deadline_s=math.inf if first_s is None else first_s)
    for at in range(N):
        machine.submit("m", arrival_s=2.0 + at * SERVICE_S / 2)
    machine.run()
    assert [e.requests[0].id for e in machine.executions] == list(range(N + 1))


def test_what_is_kept_of_a_fast_processor_does_not_grow_with_slow_ones_beside_it() -> None:
    """A second of a processor that takes ten times as long is not worth a second of a fast one."""
    slow = [f"cpu{at}" for at in range(4)]
    seconds = {"frame": {"npu": 0.009}, "rest": {"npu": 0.009, **dict.fromkeys(slow, 0.09)}}
    machine = VirtualMachine(processors("npu", *slow), make_policy("earliest_finish"), seconds)
    frames = []
    for at in range(N):
        due_s = at * 0.01
        frames.append(machine.submit("frame", arrival_s=due_s, deadline_s=due_s + 0.02))
        machine.submit("rest", arrival_s=due_s)
    machine.run()
    in_time = sum(machine.finished_s[n] <= 0.01 * at + 0.02 for at, n in enumerate(frames))
    assert in_time > 0.85 * N


def test_what_is_late_and_alone_is_served_at_once() -> None:
    machine = VirtualMachine(
        processors("cpu0"), make_policy("earliest_finish"), {"m": {"cpu0": SERVICE_S}}
    )
    number = machine.submit("m", deadline_s=SERVICE_S / 2)
    machine.run()
    assert machine.finished_s[number] == pytest.approx(SERVICE_S)


def test_the_same_holds_in_one_of_two_queues() -> None:
    took = latencies(overloaded(1.2, "two_queues", deadline="earliest_finish"))
    assert sum(each <= DEADLINE_S + 1e-9 for each in took) > 0.7 * N


def test_nothing_is_kept_of_requests_that_are_answered() -> None:
    machine = overloaded(1.2)
    policy = machine.dispatcher.policy
    assert isinstance(policy, EarliestFinish)
    for at in range(200):
        machine.submit("m", arrival_s=machine.now + 1, deadline_s=machine.now + 1 + at * 1e-4)
    machine.run()
    assert len(policy._late_due_s) == len(policy._late) <= 1


def test_a_request_in_the_middle_of_its_lane_is_ranked_anew() -> None:
    class Fickle(EarliestFinish):
        """Puts the second of three requests last, once."""

        moved = False

        def rank(self, request):
            return 9.0 if self.moved and request.id == 1 else float(request.id)

        def decide(self, view):
            if view.n_waiting == 3 and not self.moved:
                self.moved = True
                yield Rerank(next(r for r in view.by_arrival() if r.id == 1))
            yield from super().decide(view)

    machine = VirtualMachine(processors("cpu0"), Fickle(), {"m": {"cpu0": SERVICE_S}})
    for _ in range(4):
        machine.submit("m")
    machine.run()
    assert [e.requests[0].id for e in machine.executions] == [0, 2, 3, 1]


@pytest.mark.parametrize("cores", [2, 8])
def test_what_needs_all_cores_at_once_does_not_starve_beside_frames(cores: int) -> None:
    """Each core is busy for 60 % of the time, and at no moment are all of them idle."""
    names = [f"cpu{n}" for n in range(cores)]
    machine = VirtualMachine(
        processors(*names, all=names),
        make_policy("earliest_finish"),
        {"frame": dict.fromkeys(names, 2 * SERVICE_S), "rest": {"all": SERVICE_S}},
    )
    gap_s = 2 * SERVICE_S / 0.6 / cores
    for at in range(int(5.0 / gap_s)):
        machine.submit("frame", arrival_s=at * gap_s, deadline_s=at * gap_s + 4 * SERVICE_S)
    rest = [machine.submit("rest", arrival_s=1.0 + 0.3 * at) for at in range(4)]
    machine.run()
    for n in rest:
        assert machine.finished_s[n] - machine.replies[n].request.arrival_s < 1.5
    kept = [machine.finished_s[n] <= r.request.deadline_s for n, r in machine.replies.items()]
    assert sum(kept) > 0.95 * len(kept)


def test_what_has_no_deadline_does_not_wait_behind_all_frames_that_are_late() -> None:
    """Frames ask for 1.2 times what there is; the others for as much as is kept for them."""
    machine = VirtualMachine(
        processors("cpu0"),
        make_policy("earliest_finish"),
        {"frame": {"cpu0": SERVICE_S}, "rest": {"cpu0": SERVICE_S}},
    )
    for at in range(N):
        arrival_s = at * SERVICE_S / 1.2
        machine.submit("frame", arrival_s=arrival_s, deadline_s=arrival_s + DEADLINE_S)
    rest = [machine.submit("rest", arrival_s=0.25 * at) for at in range(12)]
    machine.run()
    for n in rest:
        assert machine.finished_s[n] - machine.replies[n].request.arrival_s < 1.5


def test_one_answered_long_before_it_is_due_does_not_change_the_order_of_others() -> None:
    machine = VirtualMachine(
        processors("cpu0"), make_policy("earliest_finish"), {"m": {"cpu0": SERVICE_S}}
    )
    machine.submit("m", deadline_s=1000.0)
    for at in range(N):
        machine.submit("m", arrival_s=2.5 + at * SERVICE_S / 2)
    machine.run()
    assert [e.requests[0].id for e in machine.executions] == list(range(N + 1))


def test_few_are_ranked_anew_at_one_moment_however_many_wait() -> None:
    moments = Counter[float]()
    machine = VirtualMachine(
        processors("cpu0"),
        make_policy("earliest_finish"),
        {"frame": {"cpu0": SERVICE_S / 10}, "rest": {"cpu0": SERVICE_S / 5}},
        checked=False,
    )
    rank = EarliestFinish.rank

    def counted(itself: EarliestFinish, request: Request) -> float:
        moments[machine.now] += request.arrival_s < machine.now
        return rank(itself, request)

    for at in range(60):
        machine.submit("frame", arrival_s=at * 0.05, deadline_s=at * 0.05 + 0.04)
    for _ in range(800):
        machine.submit("rest", arrival_s=0.501)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EarliestFinish, "rank", counted)
        machine.run()
    assert 0 < max(moments.values()) < 40
    frames = [r.request for r in machine.replies.values() if r.request.deadline_s < math.inf]
    assert all(machine.finished_s[each.id] <= each.deadline_s for each in frames)
