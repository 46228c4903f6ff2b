"""What the dispatcher does after an event, rule by rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import pytest

from coinfer.core.commands import Abandon, Evict, Reply, Run, SetTimer
from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.events import (
    Arrived,
    Cancelled,
    Closed,
    Finished,
    ModelLoaded,
    ModelUnloaded,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.lane import Lane
from coinfer.core.policy import Decision, Drop, Policy, Start, WaitUntil, overridden
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError, InvariantError, PolicyError
from coinfer.machine.processor import Processor
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors, profile, request

TWO = {"m": {"cpu0": 0.1, "cpu1": 0.1}}
PATIENT = Limits(hang_min_s=math.inf)


class Decides(Policy):
    """A policy made of one function."""

    def __init__(self, decide: Callable[[View], Iterable[Decision]]) -> None:
        self.decide = decide

    def rank(self, request: Request) -> float:
        return request.arrival_s


class Picks(Decides):
    """A policy that starts heads only, and the same one whichever way it is asked."""

    def __init__(self, pick: Callable[[View], tuple[Lane, str] | None]) -> None:
        self.pick = pick

    def decide(self, view: View) -> Iterator[Start]:
        while (picked := self.pick(view)) is not None:
            lane, processor = picked
            yield Start(processor, (lane.head,))


def first_in_first_out(view: View) -> Iterator[Start]:
    while found := view.first_startable():
        lane, able = found
        yield Start(able[0], (lane.head,))


def build(seconds=TWO, *, policy=None, names=("cpu0", "cpu1"), **options) -> VirtualMachine:
    return VirtualMachine(processors(*names), policy or make_policy("fcfs"), seconds, **options)


def replies(commands) -> list[tuple[int, Outcome]]:
    return [(c.request.id, c.outcome) for c in commands if isinstance(c, Reply)]


def timers(machine: VirtualMachine) -> list[float]:
    return [c.at_s for c in machine.commands if isinstance(c, SetTimer)]


class TestWatchdog:
    def hung(self, names=("cpu0", "cpu1")) -> tuple[VirtualMachine, int]:
        machine = build(
            names=names,
            limits=Limits(hang_factor=20.0, hang_min_s=1.0),
            service_s=lambda e: math.inf if e.processor == "cpu0" else e.expected_s,
        )
        return machine, machine.submit("m")

    def test_an_overrun_execution_is_abandoned_and_runs_elsewhere(self) -> None:
        machine, number = self.hung()
        machine.run()
        abandoned = [c for c in machine.commands if isinstance(c, Abandon)]
        assert [c.execution.processor for c in abandoned] == ["cpu0"]
        assert "no result after 2 s, expected 0.1 s" in abandoned[0].reason
        assert machine.outcomes() == {number: Outcome.COMPLETED}
        assert machine.finished_s[number] == pytest.approx(2.1)
        assert list(machine.dispatcher.view.processors) == ["cpu1"]

    def test_other_events_give_nothing_up_as_its_end_may_be_posted_behind_them(self) -> None:
        machine, _ = self.hung()
        machine.now = 30.0  # the process stood still, and requests that came meanwhile are told
        for _ in range(3):
            machine.submit("m")
        assert not [c for c in machine.commands if isinstance(c, Abandon)]
        machine.post(TimerFired())
        assert [c for c in machine.commands if isinstance(c, Abandon)]

    def test_it_is_not_abandoned_before_its_limit(self) -> None:
        machine, _ = self.hung()
        machine.now = 1.999
        machine.post(TimerFired())
        assert not [c for c in machine.commands if isinstance(c, Abandon)]
        assert machine.timer_s == pytest.approx(2.0)

    def test_the_late_result_is_ignored(self) -> None:
        machine, number = self.hung()
        (execution,) = machine.running.values()
        machine.fire_timer()
        before = dict(machine.replies)
        assert machine.post(Finished(execution.id, 9.0)) == []
        assert machine.replies == before
        machine.run()
        assert machine.outcomes() == {number: Outcome.COMPLETED}

    def test_with_nowhere_else_to_go_the_request_fails(self) -> None:
        machine, number = self.hung(names=("cpu0",))
        machine.run()
        assert machine.outcomes() == {number: Outcome.FAILED}
        assert "'m' on processor 'cpu0': no result after 2 s" in machine.replies[number].reason

    def test_a_short_execution_is_watched_although_a_long_one_started_first(self) -> None:
        machine = build(
            {"long": {"cpu0": 100.0}, "short": {"cpu1": 0.1}},
            limits=Limits(hang_factor=20.0, hang_min_s=1.0),
            service_s=lambda e: math.inf if e.model == "short" else e.expected_s,
        )
        machine.submit("long")
        number = machine.submit("short")
        machine.run()
        assert machine.finished_s[number] == pytest.approx(2.0)

    def test_infinite_patience_arms_no_timer(self) -> None:
        machine = build(limits=PATIENT)
        machine.submit("m")
        assert timers(machine) == []


class TestFailure:
    def test_a_failed_request_is_retried_elsewhere_exactly_once(self) -> None:
        machine = build()
        number = machine.submit("m")
        machine.fail(0, "first")
        assert [e.processor for e in machine.executions] == ["cpu0", "cpu1"]
        commands = machine.fail(1, "second")
        assert replies(commands) == [(number, Outcome.FAILED)]
        assert machine.replies[number].reason == (
            "model 'm' on processor 'cpu0': first; then model 'm' on processor 'cpu1': second"
        )

    def test_without_retries_the_first_failure_is_the_answer(self) -> None:
        machine = build(limits=Limits(retries=0))
        number = machine.submit("m")
        machine.fail(0)
        assert machine.outcomes() == {number: Outcome.FAILED}

    def test_a_request_that_failed_on_the_only_processor_is_not_left_waiting(self) -> None:
        machine = build({"m": {"cpu0": 0.1}})
        number = machine.submit("m")
        machine.fail(0, "broken")
        assert machine.outcomes() == {number: Outcome.FAILED}
        reason = machine.replies[number].reason
        assert "broken" in reason
        assert "no processor in service can run model 'm'" in reason

    def test_the_rest_goes_on(self) -> None:
        machine = build()
        numbers = [machine.submit("m") for _ in range(6)]
        machine.fail(0)
        machine.run()
        assert set(machine.outcomes().values()) == {Outcome.COMPLETED}
        assert len(machine.executions) == len(numbers) + 1

    def test_each_request_of_a_failed_batch_is_retried(self) -> None:
        def all_at_once(view: View) -> Iterator[Start]:
            while found := view.first_startable():
                lane, able = found
                together = tuple(lane.in_order())
                yield Start(able[0], together[:1] if lane.key.alone else together)

        machine = build(policy=Decides(all_at_once))
        machine.post(ProcessorLost("cpu1", "later"))
        first = machine.submit("m")
        waiting = [machine.submit("m") for _ in range(3)]
        machine.finish(0)
        assert [r.id for r in machine.executions[1].requests] == waiting
        machine.post(ProcessorRestored("cpu1"))
        machine.fail(1)
        machine.run()
        assert machine.outcomes() == dict.fromkeys([first, *waiting], Outcome.COMPLETED)


class TestProcessorLost:
    def test_requests_that_nobody_else_can_run_fail(self) -> None:
        machine = build({"m": {"cpu0": 0.1}, "other": {"cpu1": 0.1}})
        lost = [machine.submit("m") for _ in range(3)]
        kept = [machine.submit("other") for _ in range(3)]
        commands = machine.post(ProcessorLost("cpu0", "unplugged"))
        assert sorted(replies(commands)) == [(n, Outcome.FAILED) for n in lost]
        assert "unplugged" in machine.replies[lost[0]].reason
        machine.run()
        assert {machine.outcomes()[n] for n in kept} == {Outcome.COMPLETED}

    def test_what_it_ran_is_retried_elsewhere(self) -> None:
        machine = build()
        number = machine.submit("m")
        machine.post(ProcessorLost("cpu0", "unplugged"))
        assert machine.executions[-1].processor == "cpu1"
        machine.run()
        assert machine.outcomes() == {number: Outcome.COMPLETED}

    def test_restored_it_takes_new_work_in_its_old_place(self) -> None:
        machine = build()
        machine.post(ProcessorLost("cpu0", "unplugged"))
        machine.post(ProcessorLost("cpu1", "unplugged"))
        refused = machine.submit("m")
        assert machine.outcomes() == {refused: Outcome.FAILED}
        machine.post(ProcessorRestored("cpu1"))
        machine.post(ProcessorRestored("cpu0"))
        assert list(machine.dispatcher.view.processors) == ["cpu0", "cpu1"]
        number = machine.submit("m")
        machine.run()
        assert machine.outcomes()[number] is Outcome.COMPLETED

    def test_a_restored_processor_takes_what_waits(self) -> None:
        machine = build()
        machine.post(ProcessorLost("cpu1", "unplugged"))
        machine.submit("m")
        machine.submit("m")
        (run,) = [c for c in machine.post(ProcessorRestored("cpu1")) if isinstance(c, Run)]
        assert run.execution.processor == "cpu1"

    def test_unknown_processors_change_nothing(self) -> None:
        machine = build()
        machine.post(ProcessorLost("gpu", "unplugged"))
        machine.post(ProcessorRestored("gpu"))
        assert list(machine.dispatcher.view.processors) == ["cpu0", "cpu1"]


class TestAdmission:
    def test_one_more_than_may_wait_is_rejected(self) -> None:
        machine = build(limits=Limits(max_waiting=2))
        numbers = [machine.submit("m") for _ in range(6)]  # two run, two wait
        assert machine.outcomes() == dict.fromkeys(numbers[4:], Outcome.REJECTED)
        assert "admission limit" in machine.replies[numbers[4]].reason
        machine.finish(0)
        assert machine.submit("m") not in machine.replies

    def test_an_unknown_model_is_rejected(self) -> None:
        machine = build()
        number = machine.submit("other")
        assert machine.replies[number].outcome is Outcome.REJECTED
        assert machine.replies[number].reason == "model 'other' is not loaded"

    def test_a_model_that_no_processor_can_run_fails_at_once(self) -> None:
        machine = build({"m": {"gpu": 0.1}})
        number = machine.submit("m")
        assert machine.outcomes() == {number: Outcome.FAILED}

    @pytest.mark.parametrize("units", [(("a", {"u"}), ("a", {"v"})), (("a", set()),)])
    def test_impossible_processors_are_refused(self, units) -> None:
        bad = [Processor(name=n, backend="null", units=frozenset(u)) for n, u in units]
        with pytest.raises(ConfigurationError, match="'a'"):
            Dispatcher(bad, make_policy("fcfs"))


class TestCancel:
    def test_a_waiting_request_is_answered_at_once(self) -> None:
        machine = build()
        numbers = [machine.submit("m") for _ in range(3)]
        assert replies(machine.post(Cancelled(numbers[2]))) == [(numbers[2], Outcome.CANCELLED)]
        machine.run()
        assert len(machine.executions) == 2

    def test_a_running_request_completes_if_its_last_span_runs(self) -> None:
        machine = build()
        number = machine.submit("m")
        assert machine.post(Cancelled(number)) == []
        machine.run()
        assert machine.outcomes() == {number: Outcome.COMPLETED}

    def test_a_running_request_stops_at_its_next_span(self) -> None:
        machine = build(policy=Decides(unit_by_unit), units={"m": 3})
        number = machine.submit("m")
        machine.post(Cancelled(number))
        assert replies(machine.finish(0)) == [(number, Outcome.CANCELLED)]

    def test_a_cancelled_request_is_not_retried(self) -> None:
        machine = build()
        number = machine.submit("m")
        machine.post(Cancelled(number))
        assert replies(machine.fail(0)) == [(number, Outcome.CANCELLED)]

    def test_an_answered_or_unknown_request_is_not_answered_again(self) -> None:
        machine = build()
        number = machine.submit("m")
        machine.run()
        assert machine.post(Cancelled(number)) == []
        assert machine.post(Cancelled(99)) == []


def unit_by_unit(view: View) -> Iterator[Start]:
    while found := view.first_startable():
        lane, able = found
        yield Start(able[0], (lane.head,), lane.key.position)


class TestModels:
    def test_unloading_rejects_what_waits_and_evicts_after_what_runs(self) -> None:
        machine = build({**TWO, "other": {"cpu0": 0.1}})
        running, waiting = machine.submit("m"), machine.submit("other")
        machine.submit("m")
        late = machine.submit("m")
        commands = machine.post(ModelUnloaded("m"))
        assert replies(commands) == [(late, Outcome.REJECTED)]
        assert not [c for c in commands if isinstance(c, Evict)]
        assert machine.replies[machine.submit("m")].outcome is Outcome.REJECTED
        assert not [c for c in machine.finish(0) if isinstance(c, Evict)]
        assert machine.finish(1)[:2][-1] == Evict("m")
        assert machine.outcomes()[running] is Outcome.COMPLETED
        assert waiting not in machine.replies
        assert list(machine.dispatcher.view.models) == ["other"]

    def test_an_unused_model_is_evicted_at_once_and_only_once(self) -> None:
        machine = build()
        assert machine.post(ModelUnloaded("m")) == [Evict("m")]
        assert machine.post(ModelUnloaded("m")) == []

    def test_a_request_between_two_spans_still_finishes(self) -> None:
        machine = build(
            {"m": {"cpu0": 0.3}, "x": {"cpu0": 0.1}}, policy=Decides(unit_by_unit), units={"m": 3}
        )
        number = machine.submit("m")
        other = machine.submit("x")
        machine.post(ModelUnloaded("m"))
        machine.run()
        assert machine.outcomes() == {number: Outcome.COMPLETED, other: Outcome.COMPLETED}
        assert Evict("m") in machine.commands

    def test_a_model_can_come_back_with_other_times(self) -> None:
        machine = build()
        machine.post(ModelUnloaded("m"))
        machine.post(ModelLoaded("m", 1, profile("m", {"cpu1": 0.5})))
        machine.submit("m")
        assert machine.executions[-1].processor == "cpu1"
        assert machine.executions[-1].expected_s == 0.5

    def test_requests_are_not_stranded_by_a_new_profile(self) -> None:
        machine = build()
        numbers = [machine.submit("m") for _ in range(4)]
        commands = machine.post(ModelLoaded("m", 1, profile("m", {"gpu": 0.5})))
        assert replies(commands) == [(n, Outcome.FAILED) for n in numbers[2:]]

    def test_one_that_comes_back_to_where_it_waited_before_waits_there_once(self) -> None:
        chosen: list[int] = []

        def choose(view: View) -> Iterator[Start]:
            for _, each in list(view.in_order()):
                if each.id in chosen and "cpu0" in view.idle():
                    chosen.remove(each.id)
                    yield Start("cpu0", (each,))

        machine = build(policy=Decides(choose))
        first, second, last = [machine.submit("m") for _ in range(3)]
        chosen.append(last)  # behind two others
        machine.post(TimerFired())
        machine.fail(machine.executions[-1].id)
        machine.post(ModelLoaded("m", 1, profile("m", {"cpu0": 0.1})))  # it failed only there
        machine.post(Cancelled(last))
        chosen += [first, second]
        machine.post(TimerFired())
        machine.run()
        assert machine.outcomes() == {
            first: Outcome.COMPLETED,
            second: Outcome.COMPLETED,
            last: Outcome.CANCELLED,
        }

    def test_estimates_follow_what_is_observed(self) -> None:
        machine = build({"m": {"cpu0": 0.1}}, service_s=lambda e: 0.2)
        for _ in range(60):
            machine.submit("m")
            machine.run()
        assert machine.executions[-1].expected_s == pytest.approx(0.2, rel=0.01)


class TestClosed:
    def test_nothing_is_taken_and_what_waits_is_served(self) -> None:
        machine = build()
        numbers = [machine.submit("m") for _ in range(4)]
        machine.post(Closed(drop_waiting=False))
        late = machine.submit("m")
        machine.run()
        assert machine.outcomes() == {
            late: Outcome.REJECTED,
            **dict.fromkeys(numbers, Outcome.COMPLETED),
        }

    def test_dropping_answers_what_has_not_started(self) -> None:
        machine = build()
        numbers = [machine.submit("m") for _ in range(4)]
        commands = machine.post(Closed(drop_waiting=True))
        assert replies(commands) == [(n, Outcome.REJECTED) for n in numbers[2:]]


def test_a_policy_that_does_not_inherit_is_refused_with_the_remedy() -> None:
    class Mine:
        def decide(self, view: View) -> list[Decision]:
            return []

    with pytest.raises(ConfigurationError, match=r"write `class Mine\(Policy\)`"):
        build({"m": {"cpu0": 0.3}}, policy=Mine())  # type: ignore[arg-type]


def test_a_hook_that_is_not_overridden_is_never_called() -> None:
    policy = make_policy("fcfs")
    assert overridden(policy, "pick") is not None
    assert overridden(policy, "place") is not None
    for hook in ("decide", "queue", "arrived", "started"):
        assert overridden(policy, hook) is None
    assert policy.allows(None, None, "anywhere")  # type: ignore[arg-type]


class TestHeadPolicy:
    def test_what_it_picks_is_started_until_it_picks_nothing(self) -> None:
        def pick(view: View) -> tuple[Lane, str] | None:
            found = view.first_startable()
            return (found[0], found[1][-1]) if found and view.n_waiting > 1 else None

        machine = build({"m": {"cpu0": 0.3, "cpu1": 0.3}}, policy=Picks(pick))
        for _ in range(4):
            machine.submit("m")
        assert [e.processor for e in machine.dispatcher.view.running()] == ["cpu1", "cpu0"]
        assert machine.dispatcher.view.n_waiting == 2

    @pytest.mark.parametrize(
        ("processor", "complaint"), [("cpu1", "cannot run"), ("gpu", "'gpu' is not idle")]
    )
    def test_an_illegal_pick_is_refused_and_all_that_waits_is_answered(
        self, processor: str, complaint: str
    ) -> None:
        policy = Picks(lambda view: (next(iter(view.lanes())), processor))
        machine = build({"m": {"cpu0": 0.3}}, names=("cpu0", "cpu1"), policy=policy)
        machine.submit("m")
        assert complaint in str(machine.dispatcher.fault)
        assert machine.dispatcher.n_unanswered == 0


class TestFaultyPolicy:
    def illegal(self, decision: Callable[[View], Decision]) -> VirtualMachine:
        """Let a policy decide well until two requests run; then decide this."""

        def decide(view: View) -> Iterator[Decision]:
            if view.n_waiting > 2:
                yield decision(view)
            elif len(view.running()) < 2:
                yield from first_in_first_out(view)

        machine = build(
            {"m": {"cpu0": 0.3, "cpu1": 0.3}, "x": {"cpu1": 0.1}},
            names=("cpu0", "cpu1", "spare"),
            policy=Decides(decide),
            units={"m": 3},
        )
        for _ in range(4):
            machine.submit("m", on_late=OnLate.RUN)
        return machine

    @pytest.mark.parametrize(
        ("decision", "complaint"),
        [
            (lambda v: Start("cpu0", (next(v.by_arrival()),)), "'cpu0' is not idle"),
            (lambda v: Start("gpu", (next(v.by_arrival()),)), "'gpu' is not idle"),
            (lambda v: Start("spare", (next(v.by_arrival()),)), "'spare' cannot run"),
            (lambda v: Start("spare", (next(v.by_arrival()),), 7), "cannot run"),
            (lambda v: Start("spare", ()), "needs a request"),
            (lambda v: Start("spare", (next(v.by_arrival()),) * 2), "each request once"),
            (lambda v: Start("spare", tuple(v.by_arrival())), "one model at one position"),
            (lambda v: Start("spare", (request(id=0),)), "request 0 does not wait"),
            (lambda v: Start("spare", (request(id=99),)), "request 99 does not wait"),
            (lambda v: Drop(next(v.by_arrival()), "why not"), "must not be dropped"),
            (lambda v: WaitUntil(v.now), "cannot wait until"),
            (lambda v: WaitUntil(math.nan), "cannot wait until nan"),
            (lambda v: "start something", "start something"),
            (lambda v: 1 / 0, "ZeroDivisionError"),
        ],
    )
    def test_an_illegal_decision_is_refused_and_all_that_waits_is_answered(
        self, decision, complaint: str
    ) -> None:
        machine = self.illegal(decision)
        x = machine.submit("x")
        fault = machine.dispatcher.fault
        assert isinstance(fault, PolicyError)
        assert complaint in str(fault)
        assert "Decides" in str(fault)
        assert machine.outcomes() == {
            2: Outcome.FAILED,
            3: Outcome.FAILED,
            x: Outcome.FAILED,
        }
        assert machine.replies[x].reason == str(fault)
        machine.run()
        assert {machine.outcomes()[n] for n in (0, 1)} == {Outcome.COMPLETED}
        assert machine.replies[machine.submit("m")].outcome is Outcome.REJECTED

    def test_a_processor_on_which_it_failed_may_not_be_chosen_again(self) -> None:
        def stubborn(view: View) -> Iterator[Start]:
            yield Start("cpu0", (next(view.by_arrival()),))

        machine = build(policy=Decides(stubborn))
        number = machine.submit("m")
        machine.fail(0)
        assert machine.outcomes() == {number: Outcome.FAILED}
        assert "failed on 'cpu0' before" in str(machine.dispatcher.fault)

    @pytest.mark.parametrize("hook", ["decide", "pick", "place"])
    def test_a_start_that_the_policy_itself_rules_out_is_a_fault(self, hook: str) -> None:
        class Contradicts(Policy):
            """Never serves anything on cpu1, and starts everything there."""

            def rank(self, request: Request) -> float:
                return request.arrival_s

            def allows(self, view: View, lane: Lane, processor: str) -> bool:
                return processor != "cpu1"

        does = {
            "decide": lambda _, view: iter([Start("cpu1", (next(view.by_arrival()),))]),
            "pick": lambda _, view: (view.first()[0], "cpu1"),
            "place": lambda _, view, lane, request: "cpu1",
        }
        decides = {"decide": does["decide"], hook: does[hook]}
        machine = build(policy=type("Own", (Contradicts,), decides)())
        number = machine.submit("m")
        assert machine.outcomes() == {number: Outcome.FAILED}
        assert "started on 'cpu1'" in str(machine.dispatcher.fault)

    def test_a_request_between_two_spans_is_answered_after_a_fault_without_asking_again(
        self,
    ) -> None:
        asked = []

        def first_then_broken(view: View) -> Iterator[Start]:
            asked.append(view.now)
            if len(asked) > 1:
                raise ValueError("broken")
            yield Start("cpu0", (next(view.by_arrival()),), 0)

        machine = VirtualMachine(
            processors("cpu0", "cpu1"),
            Decides(first_then_broken),
            {"m": {"cpu0": 0.2, "cpu1": 0.2}},
            units={"m": 2},
        )
        started, waiting = machine.submit("m"), machine.submit("m")
        assert machine.outcomes() == {waiting: Outcome.FAILED}
        machine.run()
        assert machine.outcomes() == {started: Outcome.FAILED, waiting: Outcome.FAILED}
        assert "broken" in machine.replies[started].reason
        assert len(asked) == 2

    def test_a_policy_that_returns_nothing_to_iterate_is_a_fault(self) -> None:
        machine = build(policy=Decides(lambda view: None))  # type: ignore[arg-type,return-value]
        number = machine.submit("m")
        assert machine.outcomes() == {number: Outcome.FAILED}

    @pytest.mark.parametrize("ranks", [[ZeroDivisionError], [0.0, "late"], [0.0, None]])
    def test_a_rank_that_raises_or_does_not_compare_is_a_fault(self, ranks) -> None:
        class Ranks(Decides):
            def rank(self, request: Request) -> object:
                rank = ranks[request.id]
                if isinstance(rank, type):
                    raise rank
                return rank

        machine = build(policy=Ranks(lambda view: ()), limits=PATIENT)
        for _ in ranks:
            machine.submit("m")
        assert isinstance(machine.dispatcher.fault, PolicyError)
        assert machine.outcomes() == dict.fromkeys(range(len(ranks)), Outcome.FAILED)
        assert machine.dispatcher.n_unanswered == 0


class TestDeadlines:
    def busy(self) -> VirtualMachine:
        machine = build(limits=PATIENT)
        machine.submit("m")
        machine.submit("m")
        return machine

    def test_a_droppable_request_is_dropped_exactly_at_its_deadline(self) -> None:
        machine = self.busy()
        number = machine.submit("m", deadline_s=0.05, on_late=OnLate.DROP)
        assert machine.timer_s == 0.05
        assert replies(machine.fire_timer()) == [(number, Outcome.DROPPED)]
        assert machine.now == 0.05

    def test_it_is_not_dropped_before(self) -> None:
        machine = self.busy()
        machine.submit("m", deadline_s=0.05, on_late=OnLate.DROP)
        machine.now = math.nextafter(0.05, 0.0)
        assert machine.post(TimerFired()) == [SetTimer(0.05)]

    def test_a_late_request_that_must_run_runs(self) -> None:
        machine = self.busy()
        number = machine.submit("m", deadline_s=0.05)
        machine.run()
        assert machine.outcomes()[number] is Outcome.COMPLETED

    def test_a_request_that_has_started_is_not_dropped(self) -> None:
        machine = build(policy=Decides(unit_by_unit), units={"m": 3}, limits=PATIENT)
        machine.submit("m", deadline_s=0.01, on_late=OnLate.DROP)
        machine.run()
        assert machine.outcomes() == {0: Outcome.COMPLETED}

    def test_a_request_that_arrives_after_its_deadline_is_dropped(self) -> None:
        machine = build()
        machine.now = 1.0
        number = machine.submit("m", deadline_s=0.5, on_late=OnLate.DROP)
        assert machine.outcomes() == {number: Outcome.DROPPED}
        assert not machine.executions


class TestTimers:
    def test_requests_that_are_served_in_time_wake_nobody(self) -> None:
        machine = build(limits=PATIENT)
        for at in range(200):
            machine.submit("m", arrival_s=0.1 * at, deadline_s=0.1 * at + 1.0, on_late=OnLate.DROP)
        machine.run()
        assert timers(machine) == []

    def test_an_overload_sets_at_most_one_timer_per_request(self) -> None:
        machine = build(limits=PATIENT)
        for at in range(2000):
            machine.submit(
                "m", arrival_s=0.01 * at, deadline_s=0.01 * at + 0.5, on_late=OnLate.DROP
            )
        machine.run()
        dropped = list(machine.outcomes().values()).count(Outcome.DROPPED)
        assert dropped > 1000
        assert len(timers(machine)) <= 2000

    def test_the_watchdog_fires_once_in_its_limit_however_much_runs(self) -> None:
        machine = build(limits=Limits(hang_min_s=10.0, hang_factor=1.0), checked=False)
        for _ in range(2000):
            machine.submit("m")
        machine.run()
        assert machine.now == pytest.approx(100.0)
        assert len(timers(machine)) <= 11

    def test_the_earliest_of_several_wishes_counts(self) -> None:
        machine = build(policy=Decides(lambda v: [WaitUntil(3.0), WaitUntil(2.0), WaitUntil(4.0)]))
        machine.submit("m")
        assert timers(machine) == [2.0]

    def test_waiting_is_over_when_the_timer_fires(self) -> None:
        def later(view: View) -> Iterator[Decision]:
            if view.now < 2.0:
                yield WaitUntil(2.0)
            else:
                yield from first_in_first_out(view)

        machine = build(policy=Decides(later))
        number = machine.submit("m")
        machine.run()
        assert machine.executions[0].started_s == 2.0
        assert machine.finished_s[number] == pytest.approx(2.1)
        assert len(timers(machine)) == 2  # the policy's and the watchdog's

    def test_a_timer_that_fires_early_is_set_again(self) -> None:
        machine = build(policy=Decides(lambda view: [WaitUntil(2.0)]))
        machine.submit("m")
        machine.now = 1.0
        assert machine.post(TimerFired()) == [SetTimer(2.0)]

    def test_time_does_not_run_backwards(self) -> None:
        machine = build()
        machine.now = 5.0
        machine.submit("m")
        machine.dispatcher.handle(Arrived(request(id=50, arrival_s=1.0)), 1.0)
        assert machine.dispatcher.view.now == 5.0


class TestView:
    def test_an_overrun_processor_does_not_look_free(self) -> None:
        machine = build(limits=PATIENT)
        machine.submit("m")
        view = machine.dispatcher.view
        assert view.units_free_at() == {"cpu0": pytest.approx(0.1)}
        for now in (0.1, 0.15, 0.5):
            machine.now = now
            machine.post(TimerFired())
            assert view.units_free_at()["cpu0"] > now
        assert view.units_free_at()["cpu0"] == pytest.approx(0.9)

    def test_the_batch_is_in_the_cost(self) -> None:
        machine = build()
        machine.submit("m", batch=4)
        machine.submit("m", batch=1)
        assert [e.expected_s for e in machine.executions] == pytest.approx([0.4, 0.1])
        assert [e.batch for e in machine.executions] == [4, 1]

    def test_requests_of_several_lanes_come_in_order_with_their_own_lane(self) -> None:
        machine = build({"a": {"cpu0": 0.1}, "b": {"cpu0": 0.1}}, names=("cpu0",))
        for model in "abbabaab":
            machine.submit(model)
        pairs = list(machine.dispatcher.view.in_order())
        assert [lane.model for lane, _ in pairs] == list("bbabaab")
        assert all(lane.model == request.model for lane, request in pairs)
        assert [request.id for _, request in pairs] == list(range(1, 8))

    def test_hopeless_is_what_no_processor_can_finish_in_time(self) -> None:
        machine = build({"m": {"cpu0": 0.3, "cpu1": 0.2}}, policy=Decides(lambda view: ()))
        for deadline_s, on_late in ((0.19, OnLate.DROP), (0.19, OnLate.RUN), (0.21, OnLate.DROP)):
            machine.submit("m", deadline_s=deadline_s, on_late=on_late)
        view = machine.dispatcher.view
        assert [view.is_hopeless(lane, r) for lane, r in view.in_order()] == [
            True,
            False,
            False,
        ]


def test_check_tells_of_a_damaged_state() -> None:
    machine = build()
    for _ in range(3):
        machine.submit("m")
    machine.dispatcher._state.used = 0
    with pytest.raises(InvariantError, match="units"):
        machine.dispatcher.check()
