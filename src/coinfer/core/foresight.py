"""Foresight: which requests with deadlines are about to come, and which of them would be late.

Only what comes regularly is foreseen, as the frames of a camera do: the next one a mean gap after
the last. Of what comes at random the mean tells too little, and what stopped coming is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from coinfer.core.request import Request
from coinfer.core.view import View

__all__ = ["Forecast", "Foresight"]

_WEIGHT = 0.1
"""Of the last gap in the mean, once there were enough."""

_FEWEST = 3
"""Gaps before anything is foreseen."""

_REGULAR = 0.3
"""Largest mean deviation of the gaps, as a share of the mean; 0.74 if they come at random."""

_PAUSE = 4.0
"""Mean gaps after which they have stopped; what comes then begins anew."""


@dataclass(slots=True)
class _Stream:
    """How the requests of one model come.

    Attributes:
        last_s: When the last one came.
        gaps: How many gaps between them there were.
        gap_s: Mean seconds from one to the next.
        deviation_s: Mean of what a gap differed from the mean before it.
        next_s: When the next one should come.
        until_s: Until when that is foreseen; minus infinity if it is not.
        slack_s: Seconds that the last one had until its deadline when it came.
        batch: Its samples.
        shape: The class of its sizes.
        overtaking_s: Seconds of one that preempts others; infinite if it would be late all the
            same, None: nobody has looked yet.
    """

    last_s: float
    gaps: int = 0
    gap_s: float = 0.0
    deviation_s: float = 0.0
    next_s: float = math.inf
    until_s: float = -math.inf
    slack_s: float = 0.0
    batch: int = 1
    shape: int = 0
    overtaking_s: float | None = None

    def note(self, request: Request, now: float) -> None:
        self.slack_s = request.deadline_s - now
        self.batch, self.shape = request.batch, request.shape
        self.overtaking_s = None
        gap_s = now - self.last_s
        if not gap_s > 0:
            return  # of several at once the first counts
        self.last_s = now
        if self.gaps >= _FEWEST and gap_s > _PAUSE * self.gap_s:
            self.gaps = 0
            self.gap_s = self.deviation_s = 0.0
        else:
            self.gaps += 1
            if self.gaps > 1:
                off_s = abs(gap_s - self.gap_s)
                self.deviation_s += _weight(self.gaps - 1) * (off_s - self.deviation_s)
            self.gap_s += _weight(self.gaps) * (gap_s - self.gap_s)
        is_regular = self.gaps >= _FEWEST and self.deviation_s <= _REGULAR * self.gap_s
        self.next_s = now + self.gap_s
        self.until_s = now + _PAUSE * self.gap_s if is_regular else -math.inf


class Foresight:
    """Watches requests with deadlines come.

    Attributes:
        until_s: Until when anything is foreseen, if nothing comes.
        rates: How many requests come per second, by model of which enough came, however regular.
    """

    def __init__(self) -> None:
        self.until_s = -math.inf
        self.rates: dict[str, float] = {}
        self._streams: dict[str, _Stream] = {}
        # Those that come regularly: of a hundred that come at random they are few.
        self._regular: dict[str, _Stream] = {}

    def note(self, request: Request, now: float) -> None:
        """Take note of a request that came just now."""
        if request.deadline_s < math.inf:
            stream = self._streams.get(request.model)
            if stream is None:
                stream = self._streams[request.model] = _Stream(now)
            stream.note(request, now)
            if stream.gaps >= _FEWEST:
                self.rates[request.model] = 1 / stream.gap_s
            else:
                self.rates.pop(request.model, None)
            if stream.until_s == -math.inf:
                self._regular.pop(request.model, None)
                return
            self._regular[request.model] = stream
            if stream.until_s > self.until_s:
                self.until_s = stream.until_s

    def gap_s(self, model: str) -> float:
        """Return the mean gap between requests of a model, however regular; infinite if unknown."""
        stream = self._streams.get(model)
        return math.inf if stream is None or stream.gaps < _FEWEST else stream.gap_s

    def load(self, view: View) -> float:
        """Return how many units the requests to come that preempt others keep busy, on average."""
        busy = 0.0
        for model, stream in self._regular.items():
            if stream.until_s >= view.now:
                seconds = _overtaking_s(view, model, stream)
                busy += seconds / stream.gap_s if seconds < math.inf else 0.0
        return busy

    def stalled_s(self, view: View, model: str, service_s: float, most_s: float) -> float:
        """Return how long a run takes at least where it stands still for all that preempts it.

        Response-time analysis (Joseph and Pandya, The Computer Journal, 1986), with each stream as
        far away as it can be.

        Args:
            view: What is seen.
            model: Of the run: the next ones of it do not preempt it.
            service_s: How long it would take alone.
            most_s: How much is of interest; more than that may be too little.
        """
        found = [
            (stream.gap_s, seconds)
            for name, stream in self._regular.items()
            if name != model and stream.until_s >= view.now
            if (seconds := _overtaking_s(view, name, stream)) < math.inf
        ]
        total_s, before_s = service_s, 0.0
        while before_s < total_s <= most_s:
            before_s = total_s
            total_s = service_s + sum(total_s // gap_s * seconds for gap_s, seconds in found)
        return total_s

    def is_needed(self, view: View) -> bool:
        """Tell whether anything is foreseen for which something must be kept free.

        That need not be for what preempts others and is in time by that.
        """
        now = view.now
        if now > self.until_s:
            return False
        if not view.preempts:
            return True
        return any(
            stream.until_s >= now and _overtaking_s(view, model, stream) == math.inf
            for model, stream in self._regular.items()
        )

    def forecast(self, view: View) -> Forecast:
        """Return what is foreseen at this moment, without what is in time by preempting others."""
        models, now, preempts = view.models, view.now, view.preempts
        if len(self._streams) > len(models):
            self._streams = {name: self._streams[name] for name in models if name in self._streams}
            for gone in self._regular.keys() - self._streams.keys():
                del self._regular[gone]
            self.rates = {name: rate for name, rate in self.rates.items() if name in models}
        foreseen = [
            (model, stream)
            for model, stream in self._regular.items()
            if stream.until_s >= now
            and not (preempts and _overtaking_s(view, model, stream) < math.inf)
        ]
        return Forecast(foreseen, view)


class Forecast:
    """What is about to come, as seen at one moment. Good for one decision."""

    __slots__ = ("_seconds", "_streams", "_view")

    def __init__(self, streams: Sequence[tuple[str, _Stream]], view: View) -> None:
        self._streams = streams
        self._view = view
        self._seconds: dict[str, dict[str, float]] = {}

    def n_late(self, free_at: Mapping[str, float], taken: Collection[str], until_s: float) -> int:
        """Count the requests to come that would be late if units were taken until some moment.

        It holds each against what is busy, not against the others that are to come. What would be
        late on an idle machine does not count.

        Args:
            free_at: When each busy unit will be free; others are free.
            taken: The units that would be taken.
            until_s: Until when.
        """
        now, processors, late = self._view.now, self._view.processors, 0
        for model, stream in self._streams:
            if stream.next_s >= until_s:
                continue
            # One that comes before this moment is late.
            safe_s = math.inf
            for name, service_s in self._fast_enough(model, stream).items():
                ready_s = -math.inf
                for unit in processors[name].units:
                    unit_s = until_s if unit in taken else free_at.get(unit, -math.inf)
                    if unit_s > ready_s:
                        ready_s = unit_s
                safe_s = min(safe_s, ready_s + service_s - stream.slack_s)
                if safe_s == -math.inf:
                    break  # one is free all the time
            next_s = max(stream.next_s, now)
            if next_s < safe_s < math.inf:
                late += math.ceil((safe_s - next_s) / stream.gap_s)
        return late

    def latest_end_s(
        self, free_at: Mapping[str, float], taken: Collection[str], from_s: float
    ) -> float:
        """Return until when these units may be taken so that no next request is late by it.

        Args:
            free_at: When each busy unit will be free; others are free.
            taken: The units that would be taken.
            from_s: They are until then in any case: what is late by that does not count.
        """
        latest_s = math.inf
        for model, stream in self._streams:
            due_s = max(stream.next_s, self._view.now) + stream.slack_s
            best_s = -math.inf
            for name, service_s in self._fast_enough(model, stream).items():
                units = self._view.processors[name].units
                start_s = due_s - service_s
                if any(free_at.get(unit, -math.inf) > start_s for unit in units):
                    continue
                if units.isdisjoint(taken):
                    best_s = math.inf
                    break
                best_s = max(best_s, start_s)
            if from_s <= best_s < latest_s:
                latest_s = best_s
        return latest_s

    def _fast_enough(self, model: str, stream: _Stream) -> Mapping[str, float]:
        """Return how long a request runs, by processor in service that is fast enough for it."""
        seconds = self._seconds.get(model)
        if seconds is None:
            view, seconds = self._view, {}
            if model in view.models:
                everywhere = view.resident_s(view.entrance(model, stream.batch, stream.shape))
                seconds = {n: s for n, s in everywhere.items() if s <= stream.slack_s}
            self._seconds[model] = seconds
        return seconds


def _overtaking_s(view: View, model: str, stream: _Stream) -> float:
    """Return the seconds of a next one that preempts others; infinite if it is late all the same.

    Of a model that is not loaded any more, none.
    """
    found = stream.overtaking_s
    if found is None:
        found = 0.0
        if model in view.models:
            found = view.overtaking_s(view.entrance(model, stream.batch, stream.shape))
        if found > stream.slack_s:
            found = math.inf
        stream.overtaking_s = found
    return found


def _weight(count: int) -> float:
    """Weigh the last of so many values: all alike while there are few."""
    return max(_WEIGHT, 1 / count)
