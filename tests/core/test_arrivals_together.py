"""Events that come together: what starts is decided once all of them are known."""

from __future__ import annotations

import pytest

from coinfer.core.commands import Reply, Run
from coinfer.core.events import Arrived, ArrivedTogether, Finished, FinishedTogether
from coinfer.core.request import OnLate, Outcome
from coinfer.policies import make_policy
from coinfer.replay.codec import decode_event, encode_event
from coinfer.testing.machine import VirtualMachine, processors, request

NAMES = ("a", "b", "c", "d")


def machine(policy: str = "earliest_finish", **options: object) -> VirtualMachine:
    seconds = {name: {"cpu0": 1.0} for name in NAMES}
    return VirtualMachine(processors("cpu0"), make_policy(policy), seconds, **options)  # type: ignore[arg-type]


def come(subject: VirtualMachine, *names: str) -> None:
    """Let requests come together; the last one says that none follows."""
    for name in names:
        subject.submit(name, is_followed=name != names[-1])


def test_members_of_a_fused_variant_that_come_together_share_one_run() -> None:
    subject = machine(fused={"all": (NAMES, {"cpu0": 2.0})})
    come(subject, *NAMES)
    subject.run()
    assert [len(execution.requests) for execution in subject.executions] == [4]


def test_one_after_the_other_the_first_runs_alone() -> None:
    subject = machine(fused={"all": (NAMES, {"cpu0": 2.0})})
    for name in NAMES:
        subject.submit(name)
    subject.run()
    assert [len(execution.requests) for execution in subject.executions] == [1, 3]


@pytest.mark.parametrize("policy", ["earliest_finish", "edf"])
def test_the_most_urgent_of_them_starts_first(policy: str) -> None:
    subject = machine(policy)
    for number, deadline_s in enumerate((9.0, 1.5)):
        kind = Arrived if number else ArrivedTogether
        commands = subject.post(kind(request("a", id=number, deadline_s=deadline_s)))
    (run,) = [each for each in commands if type(each) is Run]
    assert run.execution.requests[0].id == 1
    subject.run()
    assert set(subject.outcomes().values()) == {Outcome.COMPLETED}


def test_one_that_cannot_be_served_is_answered_at_once() -> None:
    subject = machine()
    subject.post(ArrivedTogether(request("a", id=0, deadline_s=0.0, on_late=OnLate.DROP)))
    subject.post(ArrivedTogether(request("unknown", id=1)))
    assert subject.outcomes() == {0: Outcome.DROPPED, 1: Outcome.REJECTED}


def test_what_ended_is_answered_at_once_and_what_starts_is_decided_with_the_next() -> None:
    subject = machine(fused={"all": (NAMES, {"cpu0": 2.0})})
    for name in "aab":
        subject.submit(name)
    (first,) = subject.executions
    commands = subject.finish(first.id, is_followed=True)
    assert [type(each) for each in commands] == [Reply]
    come(subject, "c", "d")
    subject.run()
    assert [len(each.requests) for each in subject.executions] == [1, 4]
    assert set(subject.outcomes().values()) == {Outcome.COMPLETED}


@pytest.mark.parametrize(
    "event",
    [ArrivedTogether(request("a", id=3, deadline_s=0.5)), FinishedTogether(7, 0.25)],
    ids=lambda event: type(event).__name__,
)
def test_they_survive_in_a_log(event: Arrived | Finished) -> None:
    found = decode_event(encode_event(event))
    assert (type(found), found) == (type(event), event)
