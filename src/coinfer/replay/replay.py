"""Replay a log: the same events at the same moments must lead to the same commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from coinfer.core.dispatcher import Dispatcher
from coinfer.errors import CoinferError, ConfigurationError, UnknownNameError
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
        ConfigurationError: the log cannot be read, the policy's options do not fit any more, or
            what the log tells cannot have happened.
        UnknownNameError: the policy is not installed.
    """
    lines = read_log(path)
    header = cast(LogHeader, next(lines))
    core = _dispatcher(path, header)
    steps = commands = 0
    for step in cast(Iterator[Step], lines):
        steps += 1
        commands += len(step.commands)
        done = _handled(core, step, f"{path}:{steps + 1}")
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


def _dispatcher(path: Path, header: LogHeader) -> Dispatcher:
    try:
        policy = make_policy(header.policy, **header.options)
        return Dispatcher(header.processors, policy, limits=header.limits)
    except UnknownNameError as error:
        raise UnknownNameError(f"{path}:1: {error}") from error
    except CoinferError as error:
        raise ConfigurationError(f"{path}:1: {error}") from error
    except Exception as error:
        # The log is only data: any of its numbers may be another one.
        raise ConfigurationError(
            f"{path}:1: no dispatcher can be made of this header ({error!r}); record the run again"
        ) from error


def _handled(core: Dispatcher, step: Step, where: str) -> list[list[Any]]:
    """Let the dispatcher take a step; return its commands as the log has them."""
    try:
        return [encode_command(each) for each in core.handle(step.event, step.at_s)]
    except Exception as error:
        # The core trusts its driver, and here that is a file: it may tell what cannot happen.
        raise ConfigurationError(
            f"{where}: {type(step.event).__name__} cannot be replayed ({error!r}): the log is "
            "damaged, or was recorded by another version; record the run again"
        ) from error
