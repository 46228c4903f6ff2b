"""Each policy's own rule, on the smallest machine that shows it."""

from __future__ import annotations

import math

import pytest

from coinfer.core.dispatcher import Limits
from coinfer.core.events import ModelLoaded, ModelUnloaded, ProcessorLost
from coinfer.core.request import OnLate, Outcome
from coinfer.policies import make_policy
from coinfer.policies.affinity import assign
from coinfer.testing.machine import VirtualMachine, processors, profile
from policies.etri import MODELS, PROCESSORS, SECONDS

CORES = processors("cpu0", "cpu1", all=("cpu0", "cpu1"))
PATIENT = Limits(hang_min_s=math.inf)


def build(policy, seconds, of=None, **options) -> VirtualMachine:
    of = processors(*{name: None for row in seconds.values() for name in row}) if of is None else of
    return VirtualMachine(of, policy, seconds, **options)


def placed(machine: VirtualMachine) -> list[tuple[str, str]]:
    return [(e.model, e.processor) for e in machine.executions]


def order(machine: VirtualMachine) -> list[int]:
    return [r.id for e in machine.executions for r in e.requests]


class TestFirstComeFirstServed:
    def test_the_order_of_arrival_counts_across_models(self) -> None:
        machine = build(make_policy("fcfs"), {"a": {"p": 0.1}, "b": {"p": 0.01}})
        for model in "abab":
            machine.submit(model)
        machine.run()
        assert order(machine) == [0, 1, 2, 3]

    def test_single_cores_are_preferred_to_a_wide_processor(self) -> None:
        machine = build(make_policy("fcfs"), {"m": {"all": 0.06, "cpu0": 0.1, "cpu1": 0.1}}, CORES)
        machine.submit("m")
        assert placed(machine) == [("m", "cpu0")]

    def test_a_request_is_overtaken_only_where_it_cannot_run(self) -> None:
        machine = build(make_policy("fcfs"), {"a": {"p": 0.1}, "b": {"p": 0.1, "q": 0.1}})
        for model in "aab":
            machine.submit(model)
        assert placed(machine) == [("a", "p"), ("b", "q")]


class TestShortestJobFirst:
    def test_the_cheapest_model_goes_first(self) -> None:
        machine = build(make_policy("sjf"), {"long": {"p": 0.1}, "short": {"p": 0.01}})
        for model in ("long", "long", "short", "short"):
            machine.submit(model)
        machine.run()
        assert order(machine) == [0, 2, 3, 1]

    def test_it_takes_the_best_pair_of_model_and_processor(self) -> None:
        machine = build(make_policy("sjf"), {"a": {"p": 0.3, "q": 0.2}, "b": {"p": 0.25, "q": 0.1}})
        machine.post(ProcessorLost("p", "busy"))
        for model in "aab":
            machine.submit(model)
        machine.run()
        assert placed(machine) == [("a", "q"), ("b", "q"), ("a", "q")]

    def test_patience_ends_the_wait_of_a_long_job(self) -> None:
        machine = build(
            make_policy("sjf", patience_s=0.25), {"long": {"p": 0.1}, "short": {"p": 0.1 - 1e-9}}
        )
        machine.submit("short")
        victim = machine.submit("long")
        for _ in range(20):
            machine.submit("short")
        machine.run()
        assert machine.executions[3].requests[0].id == victim


class TestRoundRobin:
    def test_processors_take_turns(self) -> None:
        machine = build(make_policy("round_robin"), {"m": {"p": 0.1, "q": 0.1, "r": 0.1}})
        for _ in range(7):
            machine.submit("m")
            machine.run()
        assert [e.processor for e in machine.executions] == list("pqrpqrp")

    def test_a_turn_passes_to_the_next_that_can_run_something(self) -> None:
        machine = build(make_policy("round_robin"), {"m": {"p": 0.1, "q": 0.1}, "x": {"r": 0.1}})
        for _ in range(4):
            machine.submit("m")
            machine.run()
        assert [e.processor for e in machine.executions] == list("pqpq")


class TestFixed:
    SECONDS = {"a": {"p": 0.1, "q": 0.1}, "b": {"p": 0.1, "q": 0.1}}  # noqa: RUF012

    def test_a_request_waits_for_its_processor_beside_an_idle_one(self) -> None:
        machine = build(make_policy("fixed", assignment={"a": "q", "b": "p"}), self.SECONDS)
        machine.submit("a")
        machine.submit("a")
        assert placed(machine) == [("a", "q")]
        machine.submit("b")
        assert placed(machine) == [("a", "q"), ("b", "p")]
        machine.run()
        assert placed(machine)[2:] == [("a", "q")]

    def test_a_request_that_failed_there_goes_elsewhere(self) -> None:
        machine = build(make_policy("fixed", assignment={"a": "q", "b": "p"}), self.SECONDS)
        number = machine.submit("a")
        machine.fail(0)
        machine.run()
        assert placed(machine) == [("a", "q"), ("a", "p")]
        assert machine.outcomes() == {number: Outcome.COMPLETED}

    @pytest.mark.parametrize(
        ("assignment", "complaint"),
        [
            ({"b": "p"}, "unknown model in the assignment of policy 'fixed' 'a'"),
            ({"a": "pp"}, "unknown processor in the assignment of policy 'fixed' 'pp'. Did you"),
            ({"a": "other"}, "'other' cannot run model 'a'"),
        ],
    )
    def test_an_assignment_that_cannot_be_kept_is_named(self, assignment, complaint: str) -> None:
        machine = build(
            make_policy("fixed", assignment=assignment),
            self.SECONDS,
            processors("p", "q", "other"),
        )
        number = machine.submit("a")
        assert machine.outcomes() == {number: Outcome.FAILED}
        assert complaint in str(machine.dispatcher.fault)


class TestAffinity:
    def test_the_table_gives_the_published_assignment(self) -> None:
        machine = build(make_policy("affinity"), SECONDS)
        assert assign(machine.dispatcher.view) == {
            "mobilenet_v2": "tpu",
            "resnet50": "ncs2",
            "resnet101": "npu",
        }

    def test_with_more_models_than_processors_the_load_is_balanced(self) -> None:
        seconds = {name: {"p": s, "q": s} for name, s in zip("abcd", (4, 3, 2, 1), strict=True)}
        assignment = assign(build(make_policy("affinity"), seconds).dispatcher.view)
        loads = [sum(seconds[m][p] for m in seconds if assignment[m] == p) for p in "pq"]
        assert loads == [5, 5]

    def test_with_very_many_models_the_load_is_still_balanced(self) -> None:
        seconds = {f"m{i:02}": {"p": 1 + i, "q": 1 + i} for i in range(40)}
        assignment = assign(build(make_policy("affinity"), seconds).dispatcher.view)
        loads = [sum(seconds[m][p] for m in seconds if assignment[m] == p) for p in "pq"]
        assert max(loads) <= 4 / 3 * sum(loads) / 2  # Graham's bound for longest first

    def test_processors_that_exclude_each_other_are_one_place(self) -> None:
        seconds = {m: {"cpu0": 0.2, "cpu1": 0.2, "all": 0.12} for m in "ab"}
        assignment = assign(build(make_policy("affinity"), seconds, CORES).dispatcher.view)
        assert sorted(assignment.values()) == ["cpu0", "cpu1"]

    def test_a_model_that_only_the_wide_processor_can_run_runs_there(self) -> None:
        seconds = {"a": {"cpu0": 0.1, "cpu1": 0.1}, "wide": {"all": 0.1}}
        machine = build(make_policy("affinity"), seconds, CORES)
        for model in ("a", "wide", "a", "wide"):
            machine.submit(model)
        machine.run()
        assert {p for m, p in placed(machine) if m == "wide"} == {"all"}

    def test_models_that_fit_on_the_same_place_only_share_it(self) -> None:
        seconds = {"a": {"p": 0.1}, "b": {"p": 0.1}, "c": {"p": 0.1, "q": 0.9}}
        machine = build(make_policy("affinity"), seconds)
        for model in "abcabc":
            machine.submit(model)
        machine.run()
        assert {p for m, p in placed(machine) if m != "c"} == {"p"}

    def test_it_is_made_again_when_a_model_comes_or_goes(self) -> None:
        policy = make_policy("affinity")
        machine = build(policy, {"a": {"p": 0.1, "q": 0.2}})
        machine.submit("a")
        assert policy.assignment == {"a": "p"}
        machine.post(ModelLoaded("b", 1, profile("b", {"p": 0.1, "q": 9.0})))
        machine.submit("b")
        assert policy.assignment == {"a": "q", "b": "p"}
        machine.post(ModelUnloaded("b"))
        machine.run()
        machine.submit("a")
        assert policy.assignment == {"a": "p"}


class TestPriority:
    SECONDS = {"a": {"p": 0.1, "q": 0.1}, "b": {"p": 0.1, "q": 0.1}}  # noqa: RUF012

    def test_a_processor_takes_what_stands_highest_on_its_own_list(self) -> None:
        table = {"p": {"a": 1, "b": 2}, "q": {"a": 2, "b": 1}}
        machine = build(make_policy("priority", table=table), self.SECONDS)
        for model in "aabbaabb":
            machine.submit(model)
        machine.run()
        # The first two came to an idle machine; the last two found no choice.
        assert sorted(placed(machine)[2:6]) == [("a", "p"), ("a", "p"), ("b", "q"), ("b", "q")]

    def test_a_listed_processor_runs_only_what_is_listed(self) -> None:
        machine = build(make_policy("priority", table={"p": {"b": 1}}), self.SECONDS)
        for model in "aaa":
            machine.submit(model)
        machine.run()
        assert {p for _, p in placed(machine)} == {"q"}

    def test_what_failed_on_the_only_processor_that_lists_it_runs_elsewhere(self) -> None:
        table = {"p": {"a": 1}, "q": {"b": 1}}
        machine = build(make_policy("priority", table=table), self.SECONDS)
        number = machine.submit("a")
        machine.fail(0)
        machine.run()
        assert placed(machine) == [("a", "p"), ("a", "q")]
        assert machine.outcomes() == {number: Outcome.COMPLETED}

    def test_the_profiler_makes_the_list_from_what_a_model_loses(self) -> None:
        # "a" loses 10 times on p, "b" 2 times: p prefers b although a is shorter there.
        seconds = {"a": {"p": 0.1, "q": 0.01}, "b": {"p": 0.2, "q": 0.1}}
        machine = build(make_policy("priority", ageing_s=math.inf), seconds)
        for model in ("a", "b", "a", "b"):
            machine.submit(model)
        assert placed(machine)[:2] == [("a", "q"), ("b", "p")]

    def test_a_requests_own_priority_lifts_it(self) -> None:
        table = {"p": {"a": 1, "b": 3}}
        seconds = {"a": {"p": 0.1}, "b": {"p": 0.1}}
        machine = build(make_policy("priority", table=table, ageing_s=math.inf), seconds)
        machine.submit("a")
        low, high = machine.submit("a"), machine.submit("b", priority=3)
        machine.run()
        assert order(machine)[1:] == [high, low]

    @pytest.mark.parametrize(("ageing_s", "starts"), [(0.5, True), (math.inf, False)])
    def test_ageing_prevents_starvation(self, ageing_s: float, starts: bool) -> None:
        table = {"p": {"a": 1, "b": 3}}
        seconds = {"a": {"p": 0.1}, "b": {"p": 0.1}}
        machine = build(make_policy("priority", table=table, ageing_s=ageing_s), seconds)
        machine.submit("a")
        victim = machine.submit("b")
        for at in range(200):
            machine.submit("a", arrival_s=0.05 * at)
        machine.run(until_s=3.0)
        assert (victim in machine.replies) is starts

    def test_an_unknown_processor_in_the_table_is_named(self) -> None:
        machine = build(make_policy("priority", table={"pp": {"a": 1}}), self.SECONDS)
        machine.submit("a")
        assert "unknown processor in the table of policy 'priority' 'pp'" in str(
            machine.dispatcher.fault
        )


class TestEarliestDeadlineFirst:
    def test_the_earliest_deadline_goes_first(self) -> None:
        machine = build(make_policy("edf"), {"m": {"p": 0.1}})
        machine.submit("m")
        late, none, soon = (
            machine.submit("m", deadline_s=5.0),
            machine.submit("m"),
            machine.submit("m", deadline_s=0.5),
        )
        machine.run()
        assert order(machine) == [0, soon, none, late]  # no deadline counts as 1 s

    def test_what_cannot_be_met_is_dropped_only_if_it_may_be(self) -> None:
        machine = build(make_policy("edf"), {"m": {"p": 0.1}})
        dropped = machine.submit("m", deadline_s=0.05, on_late=OnLate.DROP)
        served = machine.submit("m", deadline_s=0.05)
        machine.run()
        assert machine.outcomes() == {dropped: Outcome.DROPPED, served: Outcome.COMPLETED}
        assert "no processor can meet" in machine.replies[dropped].reason

    def test_a_wide_processor_is_used_only_where_the_deadline_needs_it(self) -> None:
        seconds = {"m": {"cpu0": 0.1, "cpu1": 0.1, "all": 0.06}}
        for deadline_s, name in ((0.2, "cpu0"), (0.08, "all"), (0.01, "all")):
            machine = build(make_policy("edf"), seconds, CORES)
            machine.submit("m", deadline_s=deadline_s)
            assert placed(machine) == [("m", name)]


class TestEarliestFinish:
    TRAP = {"m": {"slow": 1.2, "fast": 0.1}}  # noqa: RUF012

    def test_a_slow_free_processor_is_not_given_what_a_busy_one_finishes_sooner(self) -> None:
        machine = build(make_policy("earliest_finish"), self.TRAP)
        for _ in range(3):
            machine.submit("m")
        machine.run()
        assert [e.processor for e in machine.executions] == ["fast"] * 3
        assert machine.now == pytest.approx(0.3)

    def test_it_is_given_what_the_busy_one_would_finish_later(self) -> None:
        machine = build(make_policy("earliest_finish"), self.TRAP)
        for _ in range(24):
            machine.submit("m")
        machine.run()
        assert [e.processor for e in machine.executions].count("slow") == 1
        assert machine.now == pytest.approx(2.3)

    def test_if_the_busy_one_overruns_the_slow_one_takes_over(self) -> None:
        machine = build(
            make_policy("earliest_finish"),
            self.TRAP,
            limits=PATIENT,
            service_s=lambda e: math.inf if e.processor == "fast" else e.expected_s,
        )
        machine.submit("m")
        second = machine.submit("m")
        for _ in range(10):  # no end of the first one is in sight, only timers
            if second in machine.replies:
                break
            machine.step()
        assert machine.replies[second].outcome is Outcome.COMPLETED
        assert machine.finished_s[second] < 4.0

    def test_a_wide_processor_is_used_when_nothing_else_waits(self) -> None:
        seconds = {"m": {"cpu0": 0.1, "cpu1": 0.1, "all": 0.06}}
        machine = build(make_policy("earliest_finish"), seconds, CORES)
        machine.submit("m")
        assert placed(machine) == [("m", "all")]

    def test_a_wide_processor_is_not_used_under_backlog(self) -> None:
        seconds = {"m": {"cpu0": 0.1, "cpu1": 0.1, "all": 0.06}}
        machine = build(make_policy("earliest_finish"), seconds, CORES)
        for _ in range(100):
            machine.submit("m")
        machine.run()
        # The first came to an idle machine, the last found nobody behind it.
        assert {e.processor for e in machine.executions[1:-1]} == {"cpu0", "cpu1"}

    def test_a_wide_processor_that_pays_is_used_under_backlog(self) -> None:
        seconds = {"m": {"cpu0": 0.1, "cpu1": 0.1, "all": 0.04}}
        machine = build(make_policy("earliest_finish"), seconds, CORES)
        for _ in range(100):
            machine.submit("m")
        machine.run()
        assert {e.processor for e in machine.executions} == {"all"}

    def test_the_wide_processor_gets_its_turn_although_single_cores_are_never_both_free(
        self,
    ) -> None:
        seconds = {"m": {"cpu0": 0.1, "cpu1": 0.13}, "wide": {"all": 0.1}}
        machine = build(make_policy("earliest_finish"), seconds, CORES)
        for at in range(100):
            machine.submit("m", arrival_s=0.04 * at)
        number = machine.submit("wide", arrival_s=0.5)
        machine.run(until_s=3.0)
        assert number in machine.replies

    def test_urgency_is_the_deadline_less_the_boost(self) -> None:
        machine = build(make_policy("earliest_finish", boost_s=0.5), {"m": {"p": 0.1}})
        machine.submit("m")
        plain, soon, boosted = (
            machine.submit("m"),
            machine.submit("m", deadline_s=0.8),
            machine.submit("m", priority=1),
        )
        machine.run()
        assert order(machine) == [0, boosted, soon, plain]

    def test_a_processor_that_meets_the_deadline_goes_before_one_that_is_cheaper(self) -> None:
        seconds = {"m": {"cpu0": 0.1, "cpu1": 0.1, "all": 0.06}}
        machine = build(make_policy("earliest_finish"), seconds, CORES)
        machine.submit("m")
        for _ in range(5):
            machine.submit("m", deadline_s=0.08)
        machine.finish(0)
        machine.run()
        assert machine.executions[1].processor == "all"

    def test_what_cannot_be_met_is_dropped(self) -> None:
        machine = build(make_policy("earliest_finish"), {"m": {"p": 0.1}})
        dropped = machine.submit("m", deadline_s=0.05, on_late=OnLate.DROP)
        assert machine.outcomes() == {dropped: Outcome.DROPPED}

    FRAMES = {  # noqa: RUF012
        "long": {"cpu0": 0.1, "cpu1": 0.1, "all": 0.06},
        "frame": {"cpu0": 0.01, "cpu1": 0.01, "all": 0.009},
    }

    def with_frames(self, *arrivals_s: float, at_s: float, **options) -> VirtualMachine:
        """Frames with 20 ms of time come; and at some moment a long request."""
        fields = {name: options.pop(name) for name in ("deadline_s",) if name in options}
        machine = build(make_policy("earliest_finish", **options), self.FRAMES, CORES)
        for arrival_s in arrivals_s:
            machine.submit("frame", arrival_s=arrival_s, deadline_s=arrival_s + 0.02)
        machine.submit("long", arrival_s=at_s, **fields)
        machine.run(until_s=at_s)
        return machine

    EVERY_50_MS = (0.0, 0.05, 0.1, 0.15, 0.2)

    def test_a_core_is_left_for_a_frame_that_is_due(self) -> None:
        # The next is due at 0.25, and would be late on what is free after 0.26.
        machine = self.with_frames(*self.EVERY_50_MS, at_s=0.215)
        assert placed(machine)[-1] == ("long", "cpu0")
        machine.submit("frame", arrival_s=0.25, deadline_s=0.27)
        machine.run(until_s=0.25)
        assert placed(machine)[-1] == ("frame", "cpu1")

    def test_both_cores_are_taken_if_they_are_free_again_in_time(self) -> None:
        machine = self.with_frames(0.0, 0.1, 0.2, 0.3, at_s=0.315)
        assert placed(machine)[-1] == ("long", "all")

    def test_its_own_deadline_counts_as_much_as_a_frame(self) -> None:
        machine = self.with_frames(*self.EVERY_50_MS, at_s=0.215, deadline_s=0.29)
        assert placed(machine)[-1] == ("long", "all")

    def test_it_need_not_foresee(self) -> None:
        machine = self.with_frames(*self.EVERY_50_MS, at_s=0.215, foresee=False)
        assert placed(machine)[-1] == ("long", "all")

    def test_nothing_is_kept_for_what_comes_at_random(self) -> None:
        machine = self.with_frames(0.0, 0.01, 0.08, 0.09, 0.2, at_s=0.215)
        assert placed(machine)[-1] == ("long", "all")

    @pytest.mark.parametrize("urgent_s", [0.5, 60.0])
    def test_it_waits_no_longer_than_for_what_is_foreseen_or_its_urgency(self, urgent_s) -> None:
        # Frames run on the npu only; so does the long one, unless it waits for the core.
        seconds = {"long": {"cpu": 0.1, "npu": 0.15}, "frame": {"npu": 0.01}, "hog": {"cpu": 5.0}}
        policy = make_policy("earliest_finish", patience_s=urgent_s)
        machine = build(policy, seconds, limits=PATIENT)
        machine.submit("hog")
        for at in range(10 if urgent_s > 1 else 60):
            machine.submit("frame", arrival_s=0.1 * at, deadline_s=0.1 * at + 0.02)
        machine.submit("long", arrival_s=0.515)
        machine.run()
        [step] = [e for e in machine.executions if e.model == "long"]
        # The last frame of ten comes at 0.9, and is foreseen to come again for four gaps.
        assert step.processor == "npu"
        assert step.started_s == pytest.approx(1.3 if urgent_s > 1 else 1.015, abs=0.05)

    def test_nor_for_what_comes_no_more(self) -> None:
        machine = self.with_frames(*self.EVERY_50_MS, at_s=0.215)
        machine.post(ModelUnloaded("frame"))
        machine.run()
        machine.submit("long", arrival_s=1.0)
        machine.run(until_s=1.0)
        assert placed(machine)[-1] == ("long", "all")


def test_the_table_is_complete() -> None:
    assert set(SECONDS) == set(MODELS)
    assert all(set(row) == set(PROCESSORS) for row in SECONDS.values())
