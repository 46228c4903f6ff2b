"""Limits: what the dispatcher enforces whatever the policy wants. A value.

This file is never compiled: a compiled value refuses a number that is none with an error that does
not say what to do.
"""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.errors import ConfigurationError

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the dispatcher enforces whatever the policy wants.

    Attributes:
        max_waiting: Requests that may wait; one more is rejected. None: no limit.
        retries: How often a failed request is tried again on another processor.
        hang_factor: An execution that takes this many times its estimate is given up ...
        hang_min_s: ... but not before this many seconds. Infinite: never.
        set_aside_after: Failures in a row that set a processor aside. Infinite: none do.
        probe_s: Seconds after which such a processor is tried again; if its next run fails too, it
            is set aside for twice as long, up to ten minutes.
        max_blocking_s: Seconds that requests which share an execution may keep a processor from
            others, where some model has deadlines. None: twice the longest run of one request.
    """

    max_waiting: int | None = None
    retries: int = 1
    hang_factor: float = 20.0
    hang_min_s: float = 10.0
    set_aside_after: float = 3
    probe_s: float = 30.0
    max_blocking_s: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigurationError: one is none, or makes no sense.
        """
        whole = {"max_waiting": self.max_waiting, "retries": self.retries}
        for name, value in whole.items():
            if value is None and name == "max_waiting":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigurationError(f"{name} must be a whole number, 0 or more")
        for name in ("hang_factor", "hang_min_s", "set_aside_after", "probe_s", "max_blocking_s"):
            number: object = getattr(self, name)
            if number is None and name == "max_blocking_s":
                continue
            if not isinstance(number, int | float) or isinstance(number, bool) or not number >= 0:
                raise ConfigurationError(f"{name} must be a number, 0 or more")
