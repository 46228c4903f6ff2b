"""Failed runs are counted, and slow a processor's estimate if their requests end well elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coinfer.core.commands import Command, Execution, Reply, Run
from coinfer.core.decision import Start
from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.estimates import FAILURE, MOST_BLAMED
from coinfer.core.events import Arrived, Event, Failed, Finished, ModelLoaded
from coinfer.core.policy import Policy
from coinfer.core.request import Outcome, Request
from coinfer.core.view import View
from coinfer.machine.profile import Profile
from coinfer.policies import make_policy
from coinfer.testing.machine import processors


class Story:
    """A dispatcher with two processors of nearly equal speed; the test plays the driver."""

    def __init__(self, policy: Policy | None = None, *, retries: int = 1) -> None:
        self.core = Dispatcher(
            processors("p0", "p1"),
            policy or make_policy("shortest_expected_latency"),
            limits=Limits(set_aside_after=float("inf"), retries=retries),
        )
        self.now, self.asked = 0.0, 0
        self.tell(ModelLoaded("m", 1, Profile.from_seconds({"m": {"p0": 1.0, "p1": 1.05}})))

    def tell(self, event: Event) -> list[Command]:
        self.now += 0.5
        commands = self.core.handle(event, self.now)
        self.core.check()
        return commands

    def ask(self) -> Execution:
        self.asked += 1
        return started(self.tell(Arrived(Request(self.asked, "m", self.now))))

    def fail_and_retry(self) -> tuple[str, str]:
        """Let a request fail once; return where it ran."""
        first = self.ask()
        second = started(self.tell(Failed(first.id, "oops")))
        self.tell(Finished(second.id, second.expected_s))
        return first.processor, second.processor

    def expected_s(self, processor: str) -> float:
        lane = self.core.view.entrance("m", 1)
        return lane.seconds[processor]

    def counts(self) -> dict[str, tuple[int, int]]:
        counts = self.core.failures.counts.values()
        return {each.processor: (each.runs, each.retried) for each in counts}


def started(commands: list[Command]) -> Execution:
    (execution,) = [each.execution for each in commands if isinstance(each, Run)]
    return execution


def test_a_processor_where_a_request_failed_is_less_attractive_afterwards() -> None:
    story = Story()
    assert story.fail_and_retry() == ("p0", "p1")
    assert story.expected_s("p0") == pytest.approx(FAILURE * 1.0)
    assert story.expected_s("p1") == 1.05
    assert story.ask().processor == "p1"
    assert story.counts() == {"p0": (1, 1)}


def test_runs_that_end_well_make_it_attractive_again() -> None:
    story = Story()
    story.fail_and_retry()
    keeps_p1_busy = story.ask()
    for _ in range(12):
        execution = story.ask()
        assert execution.processor == "p0"
        story.tell(Finished(execution.id, 1.0))
    story.tell(Finished(keeps_p1_busy.id, 1.05))
    assert story.ask().processor == "p0"


def test_a_request_that_fails_everywhere_is_held_against_nobody() -> None:
    story = Story()
    first = story.ask()
    second = started(story.tell(Failed(first.id, "oops")))
    (reply,) = [c for c in story.tell(Failed(second.id, "oops")) if isinstance(c, Reply)]
    assert reply.outcome is Outcome.FAILED
    assert (story.expected_s("p0"), story.expected_s("p1")) == (1.0, 1.05)
    assert story.counts() == {"p0": (1, 1), "p1": (1, 0)}


def test_without_retries_nothing_counts_as_tried_again() -> None:
    story = Story(retries=0)
    story.tell(Failed(story.ask().id, "oops"))
    assert story.counts() == {"p0": (1, 0)}
    assert story.expected_s("p0") == 1.0


def test_failures_raise_an_estimate_up_to_a_limit_only() -> None:
    story = Story()
    profile = Profile.from_seconds({"m": {"p0": 1.0, "p1": 1000.0}})
    story.tell(ModelLoaded("m", 1, profile))
    for _ in range(60):
        story.fail_and_retry()
    assert story.expected_s("p0") == MOST_BLAMED
    assert story.counts() == {"p0": (60, 60)}


class Pairs(Policy):
    """Starts two requests at once, on the first processor."""

    def decide(self, view: View) -> Iterator[Start]:
        for lane in view.lanes():
            if len(lane) > 1 and not lane.key.alone:
                yield Start("p0", tuple(lane.in_order()))


def test_a_failed_run_of_several_requests_is_counted_and_blamed_on_nobody() -> None:
    story = Story(Pairs())
    assert not story.tell(Arrived(Request(10, "m", 0.0)))
    both = started(story.tell(Arrived(Request(11, "m", 0.0))))
    assert len(both.requests) == 2
    story.tell(Failed(both.id, "oops"))
    assert story.counts() == {"p0": (1, 1)}
    assert story.expected_s("p0") == 1.0


def test_the_count_is_a_sentence() -> None:
    story = Story()
    story.fail_and_retry()
    (count,) = story.core.failures.counts.values()
    assert str(count) == (
        "m: failed on processor 'p0' and was tried again once; the last reason: oops"
    )
