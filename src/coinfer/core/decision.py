"""Decision: what a policy wants to happen, as values. The dispatcher checks each and applies it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from coinfer.core.request import Request
from coinfer.machine.span import Fork

__all__ = ["Decision", "Drop", "Rerank", "Start", "StartFork", "WaitUntil"]


class Start(NamedTuple):
    """Start an execution on an idle processor, as `View.offer` would offer it.

    Attributes:
        processor: Name of an idle processor that can run it.
        requests: One waiting request: the offer says which others ride along. Several, of one model
            at one position, are a batch of the policy's own.
        last: Last unit of the span; None means the processor's step of the lane: to the model's
            end, or as far as its best way to the end goes.
    """

    processor: str
    requests: tuple[Request, ...]
    last: int | None = None


class StartFork(NamedTuple):
    """Start two executions of one request at once, on two idle processors.

    Attributes:
        request: A waiting request that stands at the first unit of a fork of its model.
        left: The processor of the fork's left span.
        right: The processor of its right span; it shares no compute unit with the other.
        fork: Which spans.
    """

    request: Request
    left: str
    right: str
    fork: Fork


class Drop(NamedTuple):
    """Answer a waiting request without running it. Only where its `on_late` allows it."""

    request: Request
    reason: str


class Rerank(NamedTuple):
    """Order a waiting request anew in its lane: the policy's `rank` of it has changed."""

    request: Request


class WaitUntil(NamedTuple):
    """Decide again at `at_s` at the latest, whatever else happens."""

    at_s: float


Decision: TypeAlias = Start | StartFork | Drop | Rerank | WaitUntil
