"""Replay a log: the same events at the same moments must lead to the same commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from coinfer.core.dispatcher import Dispatcher
from coinfer.policies import make_policy
from coinfer.replay.codec import encode_command
from coinfer.replay.event_log import LogHeader, Step, read_log

__all__ = ["Difference", "Replayed", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first step at which a replay commanded something else.

    Attributes:
        step: Its number in the log, from 1.
        at_s: The moment.
        event: Name of the event.
        recorded: The commands in the log.
        replayed: The commands of the fresh dispatcher.
    """

    step: int
    at_s: float
    event: str
    recorded: list[Any]
    replayed: list[Any]

    def __str__(self) -> str:
        """Return it in one line."""
        recorded, replayed = json.dumps(self.recorded), json.dumps(self.replayed)
        return (
            f"step {self.step} at {self.at_s!r} s ({self.event}): "
            f"recorded {recorded}, replayed {replayed}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay found.

    Attributes:
        header: What the dispatcher was made of.
        steps: Steps that were compared.
        commands: Commands in them.
        difference: The first difference, where the replay ends; None if there is none.
    """

    header: LogHeader
    steps: int
    commands: int
    difference: Difference | None = None


def replay(path: Path) -> Replayed:
    """Feed a log's events to a fresh dispatcher with a fresh policy, and compare the commands.

    Raises:
        ConfigurationError: the log cannot be read, or the policy's options do not fit any more.
        UnknownNameError: the policy is not installed.
    """
    lines = read_log(path)
    header = cast(LogHeader, next(lines))
    policy = make_policy(header.policy, **header.options)
    core = Dispatcher(header.processors, policy, limits=header.limits)
    steps = commands = 0
    for step in cast(Iterator[Step], lines):
        steps += 1
        commands += len(step.commands)
        done = [encode_command(each) for each in core.handle(step.event, step.at_s)]
        if done != step.commands:
            found = Difference(
                step=steps,
                at_s=step.at_s,
                event=type(step.event).__name__,
                recorded=step.commands,
                replayed=done,
            )
            return Replayed(header=header, steps=steps, commands=commands, difference=found)
    return Replayed(header=header, steps=steps, commands=commands)
