"""Observers: pass every step of the core to several observers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from coinfer.core.commands import Command
from coinfer.core.events import Event

__all__ = ["Observer", "Observers", "Timekeeper"]


class Observer(Protocol):
    """Sees every step of the core. Called by the owner of the core: must be quick."""

    def observe(self, event: Event, commands: Sequence[Command], now: float, /) -> None:
        """Note an event, the commands it led to and the moment."""
        ...


class Timekeeper(Protocol):
    """Is told the moments that lie between the steps of the core. Any thread calls it, quickly."""

    def handed_over(self, execution_id: int, at_s: float, /) -> None:
        """Note that an execution is given to its processor's worker."""
        ...

    def ended(self, execution_id: int, at_s: float, service_s: float | None, /) -> None:
        """Note that an execution ended, and how long it ran; None if it failed."""
        ...

    def answered(self, request_id: int, at_s: float, /) -> None:
        """Note that the caller gets the answer."""
        ...


class Observers:
    """Several observers as one; each sees a step before the next one does.

    >>> from coinfer.core.events import TimerFired
    >>> from coinfer.metrics.recorder import Recorder
    >>> Observers(Recorder(), Recorder()).observe(TimerFired(), (), 0.0)
    """

    __slots__ = ("_all",)

    def __init__(self, *observers: Observer) -> None:
        self._all = observers

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """Hand on a step."""
        for observer in self._all:
            observer.observe(event, commands, now)
