"""Turn: the event that is being handled: its moment, and the commands that it has led to so far."""

from __future__ import annotations

import math

from coinfer.core.commands import Command

__all__ = ["Turn"]


class Turn:
    """What the parts of the dispatcher share while one event is handled.

    Attributes:
        now: The moment, in the driver's seconds; it never runs backwards.
        commands: What is to be done, in order; a fresh list for every event.
    """

    __slots__ = ("commands", "now")

    def __init__(self) -> None:
        self.now = -math.inf
        self.commands: list[Command] = []
