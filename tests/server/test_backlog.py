"""The backlog forgets what ended, however it ended."""

from __future__ import annotations

import pytest

from coinfer.core.commands import Abandon, Command, Execution, Reply, Run
from coinfer.core.events import Arrived, Event, Failed, Finished, ProcessorLost, TimerFired
from coinfer.core.request import Outcome, Request
from coinfer.machine.span import Span
from coinfer.server.backlog import Backlog

FIRST, SECOND = (Request(number, "m", arrival_s=0.0) for number in (1, 2))
EXECUTION = Execution(7, "m", Span(0, 0), "cpu", (FIRST,), 0.0, 0.01)


@pytest.fixture
def backlog() -> Backlog:
    """One request runs, and another one waits."""
    made = Backlog()
    made.observe(Arrived(FIRST), [Run(EXECUTION)], 0.0)
    made.observe(Arrived(SECOND), [], 0.0)
    return made


@pytest.mark.parametrize(
    ("event", "commands"),
    [
        (Finished(7, 0.5), []),
        (Failed(7, "no"), []),
        (ProcessorLost("cpu", "died"), []),
        (TimerFired(), [Abandon(EXECUTION, "hangs")]),
    ],
    ids=["finished", "failed", "processor lost", "abandoned"],
)
def test_an_execution_that_ended_does_not_run(
    backlog: Backlog, event: Event, commands: list[Command]
) -> None:
    backlog.observe(event, commands, 1.0)
    assert not backlog._running
    assert backlog.n_waiting == 1


def test_a_request_that_is_answered_without_a_run_does_not_wait(backlog: Backlog) -> None:
    backlog.observe(Finished(7, 0.5), [], 0.5)
    assert backlog.wait_s(0) == 0.5
    assert backlog.wait_s(1) == 0.0  # a more urgent one goes first
    backlog.observe(TimerFired(), [Reply(SECOND, Outcome.DROPPED, "late")], 1.0)
    assert (backlog.n_waiting, backlog.wait_s(0)) == (0, 0.0)
