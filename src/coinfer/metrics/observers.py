"""Observers: pass every step of the core to several observers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from coinfer.core.commands import Command
from coinfer.core.events import Event

__all__ = ["Observer", "Observers"]


class Observer(Protocol):
    """Sees every step of the core. Called by the owner of the core: must be quick."""

    def observe(self, event: Event, commands: Sequence[Command], now: float, /) -> None:
        """Note an event, the commands it led to and the moment."""
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
