"""Variants: which one serves a request, and that it stays the same from the first unit on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from coinfer.core.events import LoadedVariant, ModelLoaded, ModelUnloaded
from coinfer.core.lane import LaneKey
from coinfer.core.policy import Policy
from coinfer.core.request import OnLate, Outcome
from coinfer.machine.batching import Batching
from coinfer.machine.span import Fork
from coinfer.machine.variant_use import Use
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import VirtualMachine, processors, profile
from core.forking import Forking

ORIGINAL = {"cpu0": 1.0}
OPTIONS: dict[str, dict[str, Any]] = {"fixed": {"assignment": {"m": "cpu0"}}}


def less(
    name: str = "c",
    seconds: Mapping[str, float] = {"cpu0": 0.4},
    *,
    error: float = 0.02,
    use: Use = Use.WHEN_LATE,
    units: int = 1,
    forks: tuple[Fork, ...] = (),
    batching: Batching | None = None,
    share: float = 0.0,
) -> LoadedVariant:
    name = f"m@{name}"
    most = 1 if batching is None else batching.most
    known = profile(name, seconds, units=units, most=most, fixed_share=share)
    return LoadedVariant(name, error, use, units, known, forks, {}, batching)


def machine(
    *variants: LoadedVariant,
    policy: Policy | str = "fcfs",
    seconds: Mapping[str, float] = ORIGINAL,
    names: tuple[str, ...] = ("cpu0",),
    **options: Any,
) -> VirtualMachine:
    made = make_policy(policy, **OPTIONS.get(policy, {})) if isinstance(policy, str) else policy
    return VirtualMachine(
        processors(*names), made, {"m": seconds}, variants={"m": variants}, **options
    )


def served(subject: VirtualMachine) -> list[str]:
    return [execution.variant for execution in subject.executions]


class TestWhichServes:
    @pytest.mark.parametrize("policy", policy_names())
    def test_a_cheaper_one_serves_only_where_the_original_would_be_late(self, policy: str) -> None:
        subject = machine(less(), policy=policy)
        for _ in range(3):
            subject.submit(deadline_s=1.9)
        subject.run()
        assert served(subject) == ["m", "m@c", "m@c"]
        assert max(subject.finished_s.values()) == pytest.approx(1.8)

    def test_of_several_the_most_accurate_that_is_in_time(self) -> None:
        subject = machine(less("i", {"cpu0": 0.1}, error=0.1), less("c", error=0.02))
        for in_s in (1.25, 1.75, 1.8):
            subject.submit(deadline_s=in_s)
        subject.run()
        assert served(subject) == ["m", "m@c", "m@i"]

    def test_what_is_late_in_any_case_is_served_by_what_is_done_first(self) -> None:
        subject = machine(less(), less("i", {"cpu0": 0.7}, error=0.1))
        subject.submit(deadline_s=0.2)
        subject.run()
        assert served(subject) == ["m@c"]

    def test_one_that_is_slower_here_is_not_put_in(self) -> None:
        subject = machine(less(seconds={"cpu0": 1.2}))
        subject.submit(deadline_s=0.2)
        subject.run()
        assert served(subject) == ["m"]

    def test_a_quarter_of_its_time_must_be_left(self) -> None:
        subject = machine(less())
        subject.submit(deadline_s=1.24)
        subject.run()
        assert served(subject) == ["m@c"]

    def test_without_a_deadline_nothing_is_late(self) -> None:
        subject = machine(less())
        for _ in range(9):
            subject.submit()
        subject.run()
        assert set(served(subject)) == {"m"}

    def test_always_is_always_and_another_may_be_put_in_for_it(self) -> None:
        subject = machine(
            less(use=Use.ALWAYS), less("i", {"cpu0": 0.1}, error=0.1, use=Use.WHEN_LATE)
        )
        subject.submit()
        subject.submit(deadline_s=0.5)
        subject.run()
        assert served(subject) == ["m@c", "m@i"]

    def test_it_is_loaded_on_the_processor_that_the_policy_chose_or_not_put_in(self) -> None:
        subject = machine(less(), seconds={"cpu0": 1.0, "cpu1": 0.9}, names=("cpu0", "cpu1"))
        subject.submit(deadline_s=0.5)
        subject.submit(deadline_s=0.5)
        subject.run()
        assert {e.processor: e.variant for e in subject.executions} == {"cpu0": "m@c", "cpu1": "m"}

    def test_the_time_to_load_it_counts(self) -> None:
        subject = machine(less(seconds={"cpu0": 0.4})._replace(swap_s={"cpu0": 0.8}))
        subject.submit(deadline_s=1.3)
        subject.submit(deadline_s=1.9)
        subject.run()
        assert served(subject) == ["m", "m"]


BLIND = {"affinity", "comparative_advantage", "fixed", "priority", "round_robin"}
"""These give models to processors, or take turns, by another rule than by the times of offers."""


class TestWhereItServes:
    """Of two processors of which one runs the original, and the other the variant, faster."""

    SECONDS: Mapping[str, float] = {"cpu0": 1.0, "cpu1": 2.0}
    LESS: Mapping[str, float] = {"cpu0": 0.8, "cpu1": 0.3}

    def served(self, policy: Policy | str, in_s: float, **options: Any) -> tuple[str, str]:
        subject = machine(
            less(seconds=self.LESS),
            policy=policy,
            seconds=self.SECONDS,
            names=tuple(self.SECONDS),
            **options,
        )
        subject.submit(deadline_s=in_s)
        subject.run()
        (execution,) = subject.executions
        return execution.processor, execution.variant

    @pytest.mark.parametrize("policy", [n for n in policy_names() if n not in BLIND])
    def test_it_goes_where_it_alone_is_in_time(self, policy: str) -> None:
        assert self.served(policy, 0.5) == ("cpu1", "m@c")

    @pytest.mark.parametrize("policy", [n for n in policy_names() if n not in BLIND])
    def test_the_original_goes_where_it_is_in_time(self, policy: str) -> None:
        assert self.served(policy, 1.3) == ("cpu0", "m")

    @pytest.mark.parametrize("policy", policy_names())
    def test_no_policy_starts_what_cannot_start(self, policy: str) -> None:
        """Cut in another way than the original, it has other spans."""
        subject = machine(
            less(seconds=self.LESS, units=3, forks=(Fork(0, 1, 1),)),
            less("i", {"cpu1": 0.2}, error=0.1),
            policy=policy,
            seconds=self.SECONDS,
            names=tuple(self.SECONDS),
            units={"m": 2},
        )
        numbers = [subject.submit(deadline_s=in_s) for in_s in (0.3, 0.5, 0.9, 1.3, 9.0)]
        subject.run()
        assert subject.dispatcher.fault is None
        assert {subject.outcomes()[number] for number in numbers} == {Outcome.COMPLETED}

    def test_who_is_in_time_by_waiting_waits(self) -> None:
        subject = machine(
            less(seconds=self.LESS),
            policy="earliest_finish",
            seconds=self.SECONDS,
            names=tuple(self.SECONDS),
        )
        subject.submit(deadline_s=1.3)
        subject.now = 0.8
        subject.submit(deadline_s=0.8 + 1.5)
        subject.run()
        runs = [(each.processor, each.variant) for each in subject.executions]
        assert runs == [("cpu0", "m"), ("cpu0", "m")]

    def test_what_must_be_loaded_first_counts(self) -> None:
        variant = less(seconds=self.LESS)._replace(swap_s={"cpu1": 0.4})
        subject = machine(
            variant, policy="earliest_finish", seconds=self.SECONDS, names=tuple(self.SECONDS)
        )
        subject.submit(deadline_s=0.5)
        subject.run()
        subject.submit(deadline_s=subject.now + 2.6)
        subject.submit(deadline_s=subject.now + 2.6)  # the original is on cpu1 now
        subject.run()
        subject.submit(deadline_s=subject.now + 0.5)
        subject.run()
        runs = [(each.processor, each.variant) for each in subject.executions]
        assert runs[0] == ("cpu1", "m@c")
        assert runs[-1][1] == "m@c"

    def test_a_batch_of_the_policy_is_served_as_its_most_urgent_request(self) -> None:
        class AllAtOnce(Policy):
            def decide(self, view: Any) -> Any:
                from coinfer.core.policy import Start

                if view.n_waiting == 2:
                    lane, _ = view.first()
                    yield Start("cpu0", tuple(lane.in_order()))

        for in_s, variant in ((9.0, "m"), (1.0, "m@c")):
            subject = machine(less(seconds={"cpu0": 0.2}), policy=AllAtOnce())
            subject.submit(deadline_s=9.0)
            subject.submit(deadline_s=in_s)
            subject.run()
            assert served(subject) == [variant]


class TestHopeless:
    @pytest.mark.parametrize("policy", ["edf", "earliest_finish", "least_slack", "two_queues"])
    def test_only_what_no_variant_serves_in_time_is_dropped(self, policy: str) -> None:
        subject = machine(less(), policy=policy)
        kept = subject.submit(deadline_s=0.5, on_late=OnLate.DROP)
        lost = subject.submit(deadline_s=0.6, on_late=OnLate.DROP)
        subject.run()
        outcomes = subject.outcomes()
        assert (outcomes[kept], outcomes[lost]) == (Outcome.COMPLETED, Outcome.DROPPED)


class TestProcessors:
    def test_if_nothing_runs_the_original_a_cheaper_one_serves(self) -> None:
        subject = machine(
            less(seconds={"cpu0": 0.4}), seconds={"cpu1": 1.0}, names=("cpu0", "cpu1")
        )
        subject.submit()
        subject.lose("cpu1")
        subject.submit()
        subject.run()
        assert set(subject.outcomes().values()) == {Outcome.COMPLETED}
        assert served(subject) == ["m", "m@c", "m@c"]

    def test_if_nothing_runs_what_is_wanted_always_the_original_serves(self) -> None:
        subject = machine(
            less(seconds={"cpu0": 0.4}, use=Use.ALWAYS),
            seconds={"cpu1": 1.0},
            names=("cpu0", "cpu1"),
        )
        subject.lose("cpu0")
        subject.submit()
        subject.run()
        assert served(subject) == ["m"]

    def test_what_failed_is_tried_elsewhere_in_any_variant(self) -> None:
        both = {"cpu0": 1.0, "cpu1": 1.0}
        subject = machine(less(seconds=dict.fromkeys(both, 0.4)), seconds=both, names=tuple(both))
        number = subject.submit(deadline_s=1.3)
        subject.now = 0.5
        subject.fail(subject.executions[0].id)
        subject.run()
        assert served(subject) == ["m", "m@c"]
        assert subject.outcomes()[number] is Outcome.COMPLETED


class TestSpans:
    def test_it_is_fixed_from_the_first_span_on(self) -> None:
        class OneUnit(Policy):
            def decide(self, view: Any) -> Any:
                from coinfer.core.policy import Start

                while found := view.first_startable():
                    lane, able = found
                    yield Start(able[0], (lane.head,), lane.key.position)

        subject = machine(
            less(units=2), less("i", {"cpu0": 0.1}, error=0.1), policy=OneUnit(), units={"m": 3}
        )
        subject.submit(deadline_s=1.3)  # in time when it starts
        subject.submit(deadline_s=0.9, arrival_s=0.0)
        lane = subject.dispatcher._state.lane(LaneKey("m"))
        assert [each.variant for each in (lane, *lane.cheaper)] == ["m", "m@c", "m@i"]
        subject.run()
        spans: dict[int, list[tuple[str, int]]] = {}
        for each in subject.executions:
            spans.setdefault(each.requests[0].id, []).append((each.variant, each.span.first))
        assert spans[0] == [("m", 0), ("m", 1), ("m", 2)]
        assert len({variant for variant, _ in spans[1]}) == 1
        assert spans[1][0][0] != "m"

    def test_a_fork_that_would_be_late_is_not_taken(self) -> None:
        both = {"cpu0": 1.0, "cpu1": 1.0}
        subject = machine(
            less(seconds=dict.fromkeys(both, 0.1)),
            policy=Forking(),
            seconds=both,
            names=tuple(both),
            units={"m": 2},
            forks={"m": (Fork(0, 1, 1),)},
        )
        subject.submit(deadline_s=9.0)
        subject.run()
        assert served(subject) == ["m", "m"]
        subject.submit(deadline_s=subject.now + 0.2)
        subject.run()
        assert served(subject) == ["m", "m", "m@c"]

    def test_who_does_not_fork_goes_to_the_sooner_of_both_processors(self) -> None:
        both = {"cpu0": 1.0, "cpu1": 1.0}
        subject = machine(
            less(seconds={"cpu0": 0.4, "cpu1": 0.1}),
            policy=Forking(),
            seconds=both,
            names=tuple(both),
            units={"m": 2},
            forks={"m": (Fork(0, 1, 1),)},
        )
        subject.submit(deadline_s=0.2)
        subject.run()
        assert [(e.processor, e.variant) for e in subject.executions] == [("cpu1", "m@c")]

    def test_a_fork_of_a_cheaper_one_goes_on_in_it(self) -> None:
        both = {"cpu0": 1.0, "cpu1": 1.0}
        subject = machine(
            less(seconds=dict.fromkeys(both, 0.3), units=3, forks=(Fork(0, 1, 1),), use=Use.ALWAYS),
            policy=Forking(),
            seconds=both,
            names=tuple(both),
        )
        subject.submit()
        subject.run()
        assert set(served(subject)) == {"m@c"}
        assert subject.reached == {0: 3}


class TestRiders:
    def test_they_ride_in_one_variant(self) -> None:
        subject = machine(
            less(batching=Batching(8), share=0.9),
            batchings={"m": Batching(8)},
            fixed_share=0.9,
        )
        subject.submit(deadline_s=1.3)
        late = [subject.submit(deadline_s=1.6) for _ in range(3)]
        in_time = subject.submit(deadline_s=9.0)
        subject.run()
        runs = [(e.variant, sorted(r.id for r in e.requests)) for e in subject.executions]
        assert runs == [("m", [0]), ("m@c", late), ("m", [in_time])]

    def test_one_that_does_not_batch_takes_no_riders(self) -> None:
        subject = machine(less(), batchings={"m": Batching(8)}, fixed_share=0.9)
        subject.submit(deadline_s=1.3)
        for _ in range(2):
            subject.submit(deadline_s=1.9)
        subject.run()
        runs = [(e.variant, len(e.requests)) for e in subject.executions]
        assert runs == [("m", 1), ("m@c", 1), ("m@c", 1)]


class TestBookKeeping:
    def test_each_learns_its_own_times(self) -> None:
        subject = machine(
            less(),
            service_s=lambda each: {"m": 1.0, "m@c": 0.5}[each.variant],
        )
        for in_s in (0.5, 9.0, 9.0):
            subject.submit(deadline_s=in_s)
        subject.run()
        estimates = subject.dispatcher._state.estimates
        lane = subject.dispatcher._state.lane(LaneKey("m"))
        assert estimates.expected_s("m", "cpu0", lane.rest, 1) == pytest.approx(1.0)
        assert estimates.expected_s("m@c", "cpu0", lane.rest, 1) == pytest.approx(0.41)

    def test_its_name_is_no_model(self) -> None:
        subject = machine(less())
        assert list(subject.dispatcher.view.models) == ["m"]
        number = subject.submit("m@c")
        assert subject.outcomes()[number] is Outcome.REJECTED

    def test_what_is_under_way_ends_in_it_when_the_model_is_loaded_without(self) -> None:
        subject = machine(less(units=2), seconds=ORIGINAL)
        number = subject.submit(deadline_s=0.5)
        subject.post(ModelLoaded("m", 1, profile("m", ORIGINAL)))
        subject.submit(deadline_s=0.5)
        subject.run()
        assert served(subject) == ["m@c", "m"]
        assert subject.reached[number] == 2

    def test_nothing_is_left_of_a_model_that_goes(self) -> None:
        subject = machine(less(batching=Batching(4)), less("i", {"cpu0": 0.1}, error=0.5))
        subject.submit(deadline_s=0.5)
        subject.run()
        subject.post(ModelUnloaded("m"))
        state = subject.dispatcher._state
        assert not state.units
        assert not state.variants
        assert not state.uses
        assert not state._known
        assert not state.routes
        assert not state.batchings

    def test_one_variant_leaves_nothing_to_settle(self) -> None:
        subject = machine(policy="earliest_finish")
        subject.submit(deadline_s=math.inf)
        assert subject.dispatcher._state.lane(LaneKey("m")).is_plain
        assert not subject.dispatcher._state.offered
