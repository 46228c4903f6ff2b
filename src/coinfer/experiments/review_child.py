"""Review child: the process in which policies are reviewed beside an engine that works.

It reads a review from its standard input and writes one line of JSON to its standard output.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

from coinfer.artefacts.child import answer_of, answering
from coinfer.artefacts.store import MakeError
from coinfer.errors import CoinferError, PolicyError
from coinfer.experiments.policy_review import Advice, Review, review
from coinfer.plan.plan import PolicyChoice
from coinfer.threads.priority import LOWEST

__all__ = ["answer_with", "found_by_child", "main", "reviewed"]

_AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux groups processes by session, niceness counts within a group only; this is the
group's."""


def reviewed(
    asked: Review, limit_s: float, started: Callable[[Popen[bytes]], None] = lambda _: None
) -> Advice:
    """Review in a child process of the lowest priority, of one thread.

    Args:
        asked: What is to be found out.
        limit_s: Seconds that it may take; the process is killed then.
        started: Gets the process as soon as it is there: whoever kills it ends the wait.

    Raises:
        PolicyError: the process failed, was killed or took too long, or a policy failed in it.
    """
    found = found_by_child("coinfer.experiments.review_child", asked, limit_s, started)
    policy = PolicyChoice(name=found["name"], options=found["options"])
    return Advice(policy, found["gain"], found["why"], found["simulated"])


def found_by_child(
    module: str, asked: object, limit_s: float, started: Callable[[Popen[bytes]], None]
) -> Mapping[str, Any]:
    """Return what the `main` of a module answers in a child process of the lowest priority.

    Args:
        module: Its name.
        asked: What the child is asked.
        limit_s: Seconds that it may take; the process is killed then.
        started: Gets the process as soon as it is there.

    Raises:
        PolicyError: the process failed, was killed or took too long, or its answer is `refused`.
    """
    try:
        found = answer_of(
            module, asked, limit_s, niceness=LOWEST, has_one_thread=True, started=started
        )
    except (MakeError, OSError) as error:  # OSError: the system has no process left
        raise PolicyError(str(error)) from error
    if found["refused"]:
        raise PolicyError(found["refused"])
    return found


def main() -> None:
    """Do what the standard input says."""
    answer_with(_answer)


def answer_with(answer_to: Callable[[Any], Mapping[str, Any]]) -> None:
    """Answer what the standard input asks; the main thread of a child process does it."""
    with suppress(OSError):  # not on this system, or not allowed
        _AUTOGROUP.write_text(str(LOWEST))
    answer = answering()
    with suppress(BrokenPipeError):  # nobody waits for it any more
        json.dump(answer_to(pickle.load(sys.stdin.buffer)), answer)
        answer.close()


def _answer(asked: Review) -> dict[str, Any]:
    try:
        advice = review(asked)
    except CoinferError as error:
        return {"refused": " ".join(str(error).split()) or type(error).__name__}
    policy = advice.policy
    return {
        "refused": "",
        "name": policy.name,
        "options": dict(policy.options),
        "gain": advice.gain,
        "why": advice.why,
        "simulated": advice.simulated,
    }
