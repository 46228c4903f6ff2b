"""Verdicts: how the cases of the suite end. A case returns, or raises one of two exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Never

__all__ = ["FailedError", "NotOfferedError", "Result", "Verdict", "expect", "fail", "not_offered"]


class Verdict(StrEnum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_OFFERED = "not offered"


class FailedError(Exception):
    """The server did not do what the protocol says."""


class NotOfferedError(Exception):
    """The case asks for something that the server, or the model, does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one case.

    Attributes:
        case: Its name.
        about: What it asks for, in a sentence.
        model: The model that it was run with; empty: none.
        verdict: How it ended.
        reason: Why it did not pass; empty if it did.
    """

    case: str
    about: str
    model: str
    verdict: Verdict
    reason: str = ""


def fail(reason: str) -> Never:
    """End a case: the server is wrong."""
    raise FailedError(reason)


def not_offered(reason: str) -> Never:
    """End a case: there is nothing to be judged."""
    raise NotOfferedError(reason)


def expect(holds: bool, reason: str) -> None:
    """End a case with this reason unless the condition holds."""
    if not holds:
        raise FailedError(reason)
