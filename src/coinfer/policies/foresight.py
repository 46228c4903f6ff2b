"""Foresight: which requests with deadlines are about to come, and which of them would be late.

Only what comes regularly is foreseen, as the frames of a camera do: the next one a mean gap after
the last. Of what comes at random the mean tells too little.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from coinfer.core.request import Request
from coinfer.core.view import View
from coinfer.processor import Processor

__all__ = ["Coming", "Foresight", "n_late"]

_WEIGHT = 0.1
"""Of the last gap in the mean, once there were enough."""

_FEWEST = 3
"""Gaps before anything is foreseen."""

_REGULAR = 0.3
"""Largest mean deviation of the gaps, as a share of the mean; 0.74 if they come at random."""


class _Stream:
    """How the requests of one model come.

    Attributes:
        last_s: When the last one came.
        gaps: How many gaps between them there were.
        gap_s: Mean seconds from one to the next.
        deviation_s: Mean of what a gap differed from the mean before it.
        slack_s: Seconds that the last one had until its deadline when it came.
        batch: Its samples.
    """

    __slots__ = ("batch", "deviation_s", "gap_s", "gaps", "last_s", "slack_s")

    def __init__(self, now: float) -> None:
        self.last_s = now
        self.gaps = 0
        self.gap_s = self.deviation_s = 0.0
        self.slack_s = 0.0
        self.batch = 1

    def note(self, request: Request, now: float) -> None:
        gap_s = now - self.last_s
        if gap_s > 0:  # of several at once the first counts
            self.last_s = now
            self.gaps += 1
            if self.gaps > 1:
                off_s = abs(gap_s - self.gap_s)
                self.deviation_s += _weight(self.gaps - 1) * (off_s - self.deviation_s)
            self.gap_s += _weight(self.gaps) * (gap_s - self.gap_s)
        self.slack_s, self.batch = request.deadline_s - now, request.batch

    @property
    def is_regular(self) -> bool:
        return self.gaps >= _FEWEST and self.deviation_s <= _REGULAR * self.gap_s


def _weight(count: int) -> float:
    """Weigh the last of so many values: all alike while there are few."""
    return max(_WEIGHT, 1 / count)


class Coming(NamedTuple):
    """The requests of a model that are foreseen.

    Attributes:
        next_s: When the next one is due to come; not before now.
        gap_s: Seconds from one to the next.
        slack_s: Seconds from when one comes to its deadline.
        seconds: How long one runs, by processor in service that is fast enough for it.
    """

    next_s: float
    gap_s: float
    slack_s: float
    seconds: Mapping[str, float]


class Foresight:
    """Watches requests with deadlines come.

    It is true if there were any.
    """

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}

    def __bool__(self) -> bool:
        """Tell whether requests with deadlines came."""
        return bool(self._streams)

    def note(self, request: Request, now: float) -> None:
        """Take note of a request that came just now."""
        if request.deadline_s < math.inf:
            stream = self._streams.get(request.model)
            if stream is None:
                stream = self._streams[request.model] = _Stream(now)
            stream.note(request, now)

    def coming(self, view: View) -> Sequence[Coming]:
        """Return what is foreseen at this moment, but for what is late wherever it runs."""
        now, models, found = view.now, view.models, []
        for model, stream in self._streams.items():
            if stream.is_regular and model in models:
                slack_s = stream.slack_s
                everywhere = view.seconds_of(view.entrance(model, stream.batch))
                seconds = {name: s for name, s in everywhere.items() if s <= slack_s}
                if seconds:
                    next_s = max(stream.last_s + stream.gap_s, now)
                    found.append(Coming(next_s, stream.gap_s, slack_s, seconds))
        return found


def n_late(
    coming: Sequence[Coming],
    processors: Mapping[str, Processor],
    free_at: Mapping[str, float],
    taken: Collection[str],
    until_s: float,
) -> int:
    """Count the requests to come that would be late if units were taken until some moment.

    It holds each against what is busy, not against the others that are to come.

    Args:
        coming: What is foreseen.
        processors: By name.
        free_at: When each busy unit will be free; others are free.
        taken: The units that would be taken.
        until_s: Until when.

    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> frames = Coming(next_s=1.0, gap_s=0.5, slack_s=0.3, seconds={"cpu": 0.2})
    >>> n_late([frames], {"cpu": cpu}, {}, cpu.units, 1.0)
    0
    >>> n_late([frames], {"cpu": cpu}, {}, cpu.units, 1.7)
    2
    """
    late = 0
    for next_s, gap_s, slack_s, seconds in coming:
        # One that comes before this moment is late.
        safe_s = math.inf
        for name, service_s in seconds.items():
            ready_s = -math.inf
            for unit in processors[name].units:
                unit_s = until_s if unit in taken else free_at.get(unit, -math.inf)
                if unit_s > ready_s:
                    ready_s = unit_s
            safe_s = min(safe_s, ready_s + service_s - slack_s)
        if next_s < safe_s:
            late += math.ceil((safe_s - next_s) / gap_s)
    return late
