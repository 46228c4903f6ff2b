"""Watchers: those that only look on while an engine works. One that fails is detached."""

from __future__ import annotations

from collections.abc import Sequence

from coinfer.core.commands import Command
from coinfer.core.events import Event
from coinfer.metrics.observers import Observer, Timekeeper
from coinfer.runtime.engine_warnings import EngineWarnings

__all__ = ["Watchers"]


class Watchers:
    """An observer and a timekeeper, or neither. They are foreign code, and must do no damage.

    Attributes:
        observer: Sees every step of the core.
        timekeeper: Is told the moments between the steps.
    """

    __slots__ = ("_warnings", "observer", "timekeeper")

    def __init__(self, warnings: EngineWarnings) -> None:
        self.observer: Observer | None = None
        self.timekeeper: Timekeeper | None = None
        self._warnings = warnings

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """Show the observer a step of the core; the owner does."""
        observer = self.observer
        if observer is None:
            return
        try:
            observer.observe(event, commands, now)
        except BaseException as error:  # noqa: BLE001 - foreign code that only looks on
            self.observer = None
            name = type(observer).__name__
            self._warnings.append(f"observer {name} failed and was detached: {error!r}")

    def tell(self, what: str, *moment: object) -> None:
        """Tell the timekeeper a moment; any thread does."""
        timekeeper = self.timekeeper
        if timekeeper is None:
            return
        try:
            getattr(timekeeper, what)(*moment)
        except BaseException as error:  # noqa: BLE001 - foreign code that only looks on
            self.timekeeper = None
            name = type(timekeeper).__name__
            self._warnings.append(f"timekeeper {name} failed and was detached: {error!r}")
