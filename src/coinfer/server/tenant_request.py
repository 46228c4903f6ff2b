"""TenantRequest: a request of a tenant before and in the engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from coinfer.server.held_future import HeldFuture

__all__ = ["TenantRequest"]


def _nothing() -> None:
    return None


class TenantRequest:
    """A request of a tenant, from its submission to its answer.

    Args:
        tenant: Whose it is.
        model: The engine's name of what is asked for.
        number: Larger than that of any request before it.
        priority: Larger is more urgent, among requests of the same tenant.
        due_s: Moment from which its latency counts, in the engine's time.
        until_s: Moment at which it is dropped if it has not started; infinite: it is not.
        before_s: Its deadline, in the engine's time; infinite: it has none.
        begin: Hands it to the engine.
        left: Called once, when it is not held any longer, or was not at all.

    Attributes:
        is_held: Whether it is held back.
        is_beside: Whether it goes beside the turns, because of what waits only some may start.
        idle_on: Processors on which it might start at once when it went beside the turns.
        is_misplaced: Whether it began on another one.
        charged_s: Seconds of processors that it was expected to take, and that were charged.
        spent_s: Seconds of processors that it took.
        has_started: Whether a processor began with it.
        future: What its caller has if it was held back.
    """

    __slots__ = (
        "before_s",
        "begin",
        "charged_s",
        "due_s",
        "future",
        "has_started",
        "idle_on",
        "is_beside",
        "is_held",
        "is_misplaced",
        "left",
        "model",
        "number",
        "priority",
        "spent_s",
        "tenant",
        "until_s",
    )

    def __init__(
        self,
        tenant: str,
        model: str,
        number: int = 0,
        *,
        priority: int = 0,
        due_s: float = 0.0,
        until_s: float = math.inf,
        before_s: float = math.inf,
        begin: Callable[[float], Future[Any]] | None = None,
        left: Callable[[], None] = _nothing,
    ) -> None:
        self.tenant = tenant
        self.model = model
        self.number = number
        self.priority = priority
        self.due_s = due_s
        self.until_s = until_s
        self.before_s = before_s
        self.begin = begin
        self.left = left
        self.is_held = self.is_beside = self.is_misplaced = self.has_started = False
        self.idle_on: frozenset[str] = frozenset()
        self.charged_s = self.spent_s = 0.0
        self.future: HeldFuture | None = None

    @property
    def order(self) -> tuple[float, float, float]:
        """Smaller goes first, among the requests of the same tenant."""
        return (-self.priority, self.before_s, self.number)
