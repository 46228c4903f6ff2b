"""Use: when a variant that is less accurate than the original may answer requests of its model."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Use"]


class Use(StrEnum):
    """When a less accurate variant serves.

    Members:
        ALWAYS: Wherever it can run: nothing more accurate is asked for.
        WHEN_LATE: Only requests that a more accurate one would answer too late.
        NEVER: Not at all.
    """

    ALWAYS = "always"
    WHEN_LATE = "when_late"
    NEVER = "never"
