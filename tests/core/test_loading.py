"""What is loaded next into a memory with a budget, and what makes room for it."""

from __future__ import annotations

import pytest

from coinfer.core.commands import Evict, Load
from coinfer.core.events import MemoryGiven
from coinfer.core.eviction import room_from
from coinfer.core.place import Loadable, Place
from coinfer.core.pool import Pool
from coinfer.core.request import Outcome
from coinfer.machine.span import Span
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors

SECONDS = {name: {"cpu0": 0.1} for name in "abc"}
SIZES = dict.fromkeys("abc", 100)


def machine(budget: int, policy: str = "fcfs", **fields: object) -> VirtualMachine:
    given: dict[str, object] = {"sizes": SIZES, "load_s": 0.05, **fields}
    seconds = given.pop("seconds", SECONDS)
    names = given.pop("names", ("cpu0",))
    return VirtualMachine(
        processors(*names),  # type: ignore[misc]
        make_policy(policy),
        seconds,  # type: ignore[arg-type]
        budget=budget,
        **given,  # type: ignore[arg-type]
    )


def fill(subject: VirtualMachine) -> None:
    while subject.loading is not None:
        assert subject.step()


def moves(subject: VirtualMachine) -> list[str]:
    """Return what was loaded and evicted, as `+a` and `-a`."""
    found = []
    for command in subject.commands:
        if isinstance(command, Load):
            found.append(f"+{command.variant}{_units(command.span)}")
        elif isinstance(command, Evict) and command.place >= 0:
            found.append(f"-{command.model}{_units(command.span)}")
    return found


def _units(span: Span) -> str:
    return "" if span == Span() else f"{span.first}{span.last}"


class TestPool:
    def test_what_is_used_moves_to_the_end_and_takes_its_room_once(self) -> None:
        pool = Pool(10)
        pool.use("a", 4)
        pool.use("b", 4)
        pool.use("a", 4)
        assert (list(pool.held), pool.taken, pool.lacks(4), pool.fits(2)) == (
            ["b", "a"],
            8,
            2,
            True,
        )
        pool.drop("c")
        pool.drop("a")
        assert pool.taken == 4

    def test_a_copy_goes_its_own_way(self) -> None:
        pool = Pool(1)
        copy = pool.copy()
        copy.use("a", 1)
        assert (pool.held, copy.fits(1)) == ({}, False)


def places(*sizes: int) -> list[Place]:
    return [Place(n, Loadable(Span(), ("p",), "host", size, 0.1)) for n, size in enumerate(sizes)]


def test_no_more_is_evicted_than_makes_room() -> None:
    small, large = places(1, 10)
    worth = {small: 0.0, large: 1.0}.__getitem__
    assert room_from([[small, large]], 10, worth) == [large]
    assert room_from([[small], [large]], 11, worth) == [small, large]
    assert room_from([[small, large]], 12, worth) is None


def test_there_is_room_for_all_so_nothing_happens() -> None:
    subject = machine(300)
    fill(subject)
    assert moves(subject) == ["+a", "+b", "+c"]
    assert not subject.dispatcher._state.residency.is_tight
    for name in "cab":
        subject.submit(name)
    subject.run()
    assert moves(subject) == ["+a", "+b", "+c"]


def test_what_waits_for_one_model_is_done_before_another_takes_its_room() -> None:
    subject = machine(100)
    fill(subject)
    for name in "abcabcabc":
        subject.submit(name)
    subject.run()
    assert moves(subject) == ["+a", "-a", "+b", "-b", "+c"]
    assert subject.now == pytest.approx(3 * 0.05 + 9 * 0.1)


def test_the_next_model_is_loaded_while_another_one_runs() -> None:
    subject = machine(200)
    fill(subject)
    begun_s = subject.now
    for name in "aaacc":
        subject.submit(name)
    subject.run()
    assert moves(subject) == ["+a", "+b", "-b", "+c"]
    assert subject.now - begun_s == pytest.approx(0.5), "nobody waited for a load"


def test_an_endless_stream_keeps_no_other_model_out() -> None:
    subject = machine(100)
    fill(subject)
    for at in range(100):
        subject.submit("a", arrival_s=at * 0.1)
    waits = subject.submit("b")
    subject.run(until_s=3.0)
    assert subject.outcomes()[waits] is Outcome.COMPLETED


def test_what_is_asked_for_seldom_goes_first() -> None:
    subject = machine(200)
    fill(subject)
    for name in "aaaab":
        subject.submit(name)
    subject.run()
    subject.submit("c")
    subject.run()
    assert moves(subject)[-2:] == ["-b", "+c"]


def test_a_model_larger_than_the_budget_runs_span_by_span() -> None:
    subject = machine(60, seconds={"large": {"cpu0": 0.3}}, units={"large": 3}, sizes={"large": 90})
    fill(subject)
    numbers = [subject.submit("large") for _ in range(3)]
    subject.run()
    assert {subject.outcomes()[n] for n in numbers} == {Outcome.COMPLETED}
    assert any(move.startswith("-large") for move in moves(subject))


def test_a_load_that_fails_is_tried_again_and_then_its_requests_fail_with_the_reason() -> None:
    subject = machine(100)
    fill(subject)
    lost, kept = subject.submit("b"), subject.submit("a")
    for _ in range(2):
        while subject.loading is None or subject.loading.variant != "b":
            assert subject.step()
        subject.end_load("the disk is full")
    subject.run()
    assert subject.outcomes() == {lost: Outcome.FAILED, kept: Outcome.COMPLETED}
    reason = subject.replies[lost].reason
    assert "model 'b' on processor cpu0: it cannot be loaded: the disk is full" in reason


def test_a_smaller_budget_lets_what_runs_end_and_refuses_what_has_no_room_any_more() -> None:
    subject = machine(200)
    fill(subject)
    running, waits = subject.submit("a"), subject.submit("b")
    subject.post(MemoryGiven({"host": 50}))
    assert [load.variant for load in subject.resident.values()] == ["a"], "b did not run"
    subject.run()
    assert subject.outcomes() == {running: Outcome.COMPLETED, waits: Outcome.FAILED}
    assert "loading it needs 100 B, more than memory has" in subject.replies[waits].reason
    assert not subject.resident


def test_what_was_loaded_before_there_was_a_budget_is_evicted_then_but_not_while_it_runs() -> None:
    subject = VirtualMachine(
        processors("cpu0"), make_policy("fcfs"), SECONDS, sizes=SIZES, load_s=0.05
    )
    running, waits = subject.submit("a"), subject.submit("b")
    subject.limit(100)
    assert moves(subject) == ["-b", "-c"], "a runs"
    others = [subject.submit(name) for name in "cab"]
    subject.run()
    assert {subject.outcomes()[n] for n in (running, waits, *others)} == {Outcome.COMPLETED}
    assert len(subject.resident) == 1
    subject.post(MemoryGiven({"host": 300}))
    fill(subject)
    assert len(subject.resident) == 3


def test_beside_urgent_requests_the_loader_rests_as_long_as_it_worked() -> None:
    subject = machine(100)
    fill(subject)
    ended_s = subject.now
    for _ in range(3):
        subject.submit("a", deadline_s=1000.0)
    subject.submit("b")
    subject.post(MemoryGiven({"host": 200}))
    assert subject.loading is None
    while subject.loading is None:
        assert subject.step()
    assert subject.now == pytest.approx(ended_s + 0.05)


@pytest.mark.parametrize("policy", [name for name in policy_names() if name != "fixed"])
@pytest.mark.parametrize("budget", [100, 150, 250])
def test_every_policy_gets_through_with_too_little_memory(policy: str, budget: int) -> None:
    subject = VirtualMachine(
        processors("cpu0", "cpu1"),
        make_policy(policy),
        {"a": {"cpu0": 0.1, "cpu1": 0.1}, "b": {"cpu0": 0.1, "cpu1": 0.2}, "c": {"cpu1": 0.3}},
        units={"c": 3},
        budget=budget,
        sizes={"a": 100, "b": 90, "c": 150},
    )
    numbers = [subject.submit(name) for name in "abc" * 5]
    subject.run()
    assert {subject.outcomes()[n] for n in numbers} == {Outcome.COMPLETED}


def test_lru_evicts_what_was_used_longest_ago_and_a_limit_counts_models() -> None:
    subject = machine(200)
    subject.post(MemoryGiven({"host": 200}, "lru"))
    fill(subject)
    for name in "aaab":
        subject.submit(name)
    subject.run()
    subject.submit("c")
    subject.run()
    assert moves(subject)[-2:] == ["-a", "+c"]
    subject.post(MemoryGiven({"host": 200}, "lru", 1))
    subject.submit("a")
    subject.run()
    assert [load.variant for load in subject.resident.values()] == ["a"]


@pytest.mark.parametrize("budget", [100, 200])
def test_under_lru_all_that_come_at_once_are_answered(budget: int) -> None:
    """What is loaded for one is used once, though others came before it and need its room."""
    subject = machine(budget)
    subject.post(MemoryGiven({"host": budget}, "lru"))
    fill(subject)
    numbers = [subject.submit(name, is_followed=True) for name in "aabbcc"]
    numbers.append(subject.submit("a"))
    subject.run()
    assert [subject.outcomes().get(n) for n in numbers] == [Outcome.COMPLETED] * 7


def test_under_lru_what_was_loaded_at_the_start_is_used_before_it_goes() -> None:
    subject = machine(200)
    subject.post(MemoryGiven({"host": 200}, "lru"))
    fill(subject)
    there = [load.variant for load in subject.resident.values()]
    [missing] = set("abc") - set(there)
    for name in (missing, *there):
        subject.submit(name, is_followed=name != there[-1])
    subject.run()
    assert sum(move.startswith("-") for move in moves(subject)) == 1
    assert moves(subject).count(f"+{missing}") == 1


@pytest.mark.parametrize("gap_s", [0.0, 5e-5])
def test_of_what_comes_within_a_moment_all_is_served_that_is_loaded(gap_s: float) -> None:
    subject = machine(100)
    fill(subject)
    for number in range(32):
        subject.submit("ab"[number % 2], arrival_s=10 + gap_s * number, is_followed=number < 31)
    subject.run()
    assert moves(subject) == ["+a", "-a", "+b"]


def test_but_not_for_ever() -> None:
    subject = machine(100)
    fill(subject)
    for number in range(160):
        subject.submit("ab"[number % 2], arrival_s=10 + 5e-5 * number, is_followed=number < 159)
    subject.run()
    assert moves(subject)[:6] == ["+a", "-a", "+b", "-b", "+a", "-a"]
    assert len(moves(subject)) <= 9


class TestPins:
    def test_they_are_loaded_at_the_start_and_stay(self) -> None:
        subject = machine(200, pinned=("c",))
        fill(subject)
        assert "c" in {load.variant for load in subject.resident.values()}
        for name in "abababab":
            subject.submit(name)
            subject.run()
        assert "-c" not in moves(subject)
        assert moves(subject).count("-a") > 1

    def test_lru_does_not_evict_them_either(self) -> None:
        subject = machine(200, pinned=("c",))
        subject.post(MemoryGiven({"host": 200}, "lru"))
        fill(subject)
        for name in "abab":
            subject.submit(name)
            subject.run()
        assert "-c" not in moves(subject)

    def test_a_budget_that_becomes_too_small_for_them_lets_them_go(self) -> None:
        subject = machine(200, pinned=("c",))
        fill(subject)
        subject.post(MemoryGiven({"host": 50}))
        assert not subject.resident
        subject.post(MemoryGiven({"host": 200}))
        fill(subject)
        assert "c" in {load.variant for load in subject.resident.values()}

    def test_what_has_no_room_beside_them_any_more_is_refused(self) -> None:
        subject = machine(200, pinned=("c",))
        fill(subject)
        subject.post(MemoryGiven({"host": 150}))
        lost, kept = subject.submit("a"), subject.submit("c")
        subject.run()
        assert subject.outcomes() == {lost: Outcome.FAILED, kept: Outcome.COMPLETED}
        assert "loading it needs 100 B, more than memory has" in subject.replies[lost].reason


def beside_a_core(budget: int, policy: str = "earliest_finish", **fields: object) -> VirtualMachine:
    """A device with a budget beside a core that needs nothing loaded and is much slower."""
    return machine(
        budget,
        policy,
        names=("core", "device"),
        seconds={name: {"core": 1.0, "device": 0.1} for name in "abc"},
        ready=["core"],
        **fields,
    )


class TestSlowWays:
    """A network that has no room on a device could go on, slowly, on a core."""

    @pytest.mark.parametrize("policy", ["earliest_finish", "fcfs", "edf", "least_slack"])
    def test_no_model_is_left_to_a_slow_core_for_ever(self, policy: str) -> None:
        subject = beside_a_core(100, policy)
        fill(subject)
        for at in range(60):
            subject.submit("abc"[at % 3], arrival_s=at * 0.2)
        subject.run()
        ran = {e.variant for e in subject.executions if e.processor == "device"}
        assert ran == {"a", "b", "c"}
        assert subject.now < 20, "the core alone would take 40 s for two of them"

    def test_a_load_that_takes_longer_than_the_slow_way_is_not_worth_it(self) -> None:
        subject = beside_a_core(100, load_s=1.0)
        fill(subject)
        for at in range(20):
            subject.submit("ab"[at % 2], arrival_s=1 + at * 1.0)
        subject.run()
        assert moves(subject) == ["+a"]

    def test_many_that_wait_are_worth_a_longer_load_but_not_one(self) -> None:
        for waiting, expected in ((1, ["+a"]), (20, ["+a", "-a", "+b"])):
            subject = beside_a_core(100, load_s=0.5)
            fill(subject)
            for _ in range(50):
                subject.submit("a", arrival_s=1.0)
            for _ in range(waiting):
                subject.submit("b", arrival_s=8.0)
            subject.run()
            assert moves(subject) == expected, waiting

    def test_what_is_loaded_stays_as_long_as_both_loads_take(self) -> None:
        subject = beside_a_core(100, "fcfs", load_s=0.3)
        fill(subject)
        for at in range(400):
            subject.submit("ab"[at % 2], arrival_s=at * 0.05)
        subject.run()
        loads = [command for command in subject.commands if isinstance(command, Load)]
        assert len(loads) > 3
        assert len(loads) * 0.3 < 0.55 * subject.now, "loading takes half of the time at most"

    @pytest.mark.parametrize("policy", ["earliest_finish", "fcfs", "edf", "least_slack"])
    def test_what_can_run_nowhere_else_is_not_sent_away_for_one_that_is_slow(
        self, policy: str
    ) -> None:
        subject = machine(
            100,
            policy,
            names=("core", "device"),
            seconds={"a": {"core": 5.0, "device": 0.005}, "b": {"device": 0.005}},
            sizes={"a": 60, "b": 60},
            ready=["core"],
            load_s=1.0,
            checked=False,
        )
        for at in range(1000):
            subject.submit("b", arrival_s=5 + at * 0.01, deadline_s=5.1 + at * 0.01)
        for _ in range(2):
            subject.submit("a", arrival_s=10.0)
        subject.run()
        assert moves(subject)[:4] == ["+a", "-a", "+b"]

    def test_a_request_given_to_what_was_evicted_is_given_away_anew(self) -> None:
        subject = machine(
            60,
            "shortest_expected_latency",
            names=("cpu", "gpu"),
            seconds={"a": {"cpu": 0.5, "gpu": 0.05}, "b": {"gpu": 0.05, "cpu": 0.2}},
            units={"a": 2, "b": 2},
            sizes={"a": 40, "b": 60},
            load_s=0.02,
        )
        for name, at_s in (("a", 0.0), ("a", 0.05), ("b", 0.05), ("b", 0.05)):
            subject.submit(name, arrival_s=at_s)
        subject.run(until_s=60.0)
        assert not subject.unanswered
