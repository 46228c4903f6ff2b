"""Handover: what handing over a run takes lately, as the events show it. Decides nothing.

It is what passes from the moment at which a run is decided until its end is known, less the time in
which it ran: the decision, the hand to the worker and back, and what the worker still had to do
before. With requests that wait, a processor does nothing else meanwhile, so a run that is spared
saves it. Of a batch before it the worker may have had many answers to give, which are spared by
nothing: so it is the lower quartile that counts.
"""

from __future__ import annotations

__all__ = ["Handover"]

_RUNS = 16
"""Ended runs after which what is known of them takes the place of what was known."""

_LOWER = _RUNS // 4


class Handover:
    """Watches runs end.

    Attributes:
        seconds: What handing over a run takes; 0 until enough have ended.

    >>> handover = Handover()
    >>> for number in range(16):
    ...     handover.observe(0.001 * (16 - number))
    >>> handover.seconds
    0.005
    """

    __slots__ = ("_last", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last: list[float] = []

    def observe(self, seconds: float) -> None:
        """Take note of what one run took from its decision to its end, beside its service time."""
        last = self._last
        last.append(seconds)
        if len(last) == _RUNS:
            last.sort()
            self.seconds = max(last[_LOWER], 0.0)
            last.clear()
