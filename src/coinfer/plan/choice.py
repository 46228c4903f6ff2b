"""Choice: what a pass decided, and the alternatives that lost. For readers; nothing acts on it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Alternative", "Choice"]


class Alternative(NamedTuple):
    """What was not chosen.

    Attributes:
        name: What it is called, e.g. a processor's name.
        why: What it lost by, e.g. `1.31x as long as ov0`.
    """

    name: str
    why: str


class Choice(NamedTuple):
    """One decision of a pass.

    Attributes:
        by: Name of the pass.
        what: What was chosen, in a few words.
        alternatives: What was looked at beside it.

    >>> str(Choice("worth_loading", "ov0", (Alternative("cpu0", "1.31x as long as ov0"),)))
    'ov0; cpu0: 1.31x as long as ov0'
    """

    by: str
    what: str
    alternatives: tuple[Alternative, ...] = ()

    def __str__(self) -> str:
        """Return it in one line."""
        return "; ".join([self.what, *(f"{each.name}: {each.why}" for each in self.alternatives)])
