"""Policy controller: when what was seen is reviewed, and whether the policy changes then.

It looks at the counts of requests now and then. A review is due every `interval_s`, and as soon as
the load has drifted (`metrics.rate_drift`): as many windows in a row had requests of a kind at more
than 1.5 times the rate of the last review, or less. A model that becomes urgent is another kind.
Reviewed are the requests of these windows only: what came before may be another load.

The policy changes only for a gain above the margin, so two that are near a tie do not alternate.
It knows no clock and no thread, and simulates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from coinfer.core.request import Request
from coinfer.experiments.auto_policy import AutoPolicy
from coinfer.experiments.policy_review import Advice
from coinfer.experiments.policy_search import OFF_BY
from coinfer.metrics.rate_drift import IN_A_ROW, WINDOW_S, RateDrift
from coinfer.plan.choice import Choice
from coinfer.plan.plan import PolicyChoice
from coinfer.workload.seen_requests import SeenRequests, kind_of

__all__ = ["Due", "PolicyController", "Verdict"]

_FEWEST = 50
"""Requests below which a review says nothing."""

_LAST_ROUND = 40
"""The last round of a search simulates about this share of its budget on each policy, so no more
requests are kept than that."""

_LOOKS = 6
"""To an interval, at least: a drift is seen in half of one."""


class Due(NamedTuple):
    """What is to be reviewed now.

    Attributes:
        requests: What was seen.
        seconds: In how long.
        has_drifted: Whether that is why.
    """

    requests: Sequence[Request]
    seconds: float
    has_drifted: bool


class Verdict(NamedTuple):
    """What follows from a review.

    Attributes:
        policy: Which policy decides from now on; it may be the one that did.
        why: For readers.
    """

    policy: PolicyChoice
    why: Choice


class PolicyController:
    """Decides for one engine, or one simulation.

    Args:
        settings: How often, and for what gain.
        begin_s: The moment at which it begins to see requests.

    Attributes:
        seen: Is told of each request that comes.
        reviews: How many reviews came to an end.
        settings: As given.
    """

    def __init__(self, settings: AutoPolicy, begin_s: float) -> None:
        self.settings = settings
        self.seen = SeenRequests(max(_FEWEST, settings.budget // _LAST_ROUND))
        self.reviews = 0
        self._look_s = min(WINDOW_S, settings.interval_s / _LOOKS)
        self._window_s = IN_A_ROW * self._look_s
        self._next_look_s = begin_s + self._look_s
        self._next_review_s = begin_s + settings.interval_s
        self._rates: dict[str, float] = {}
        self._drift = RateDrift({}, far=OFF_BY)

    def due_in_s(self, now: float) -> float:
        """Return the seconds until `look` wants to be called; 0 if it does now."""
        return max(0.0, self._next_look_s - now)

    def look(self, now: float) -> Due | None:
        """Look at what came; return what is to be reviewed, if anything is."""
        self._next_look_s = now + self._look_s
        counts = {_name(kind): count for kind, count in self.seen.counts.copy().items()}
        self._drift.planned = {**dict.fromkeys(counts, 0.0), **self._rates} if self._rates else {}
        has_drifted = bool(self._drift.note(counts, now))
        if not has_drifted and now < self._next_review_s:
            return None
        requests = self.seen.since(now - self._window_s)
        if len(requests) < _FEWEST:
            return None
        self._next_review_s = now + self.settings.interval_s
        seconds = max(now - min(request.arrival_s for request in requests), 1e-9)
        self._begin(requests, seconds)
        return Due(requests, seconds, has_drifted)

    def _begin(self, requests: Sequence[Request], seconds: float) -> None:
        """Compare from now on with the rates of what is reviewed."""
        self._rates = {}
        for request in requests:
            kind = _name(kind_of(request))
            self._rates[kind] = self._rates.get(kind, 0.0) + 1 / seconds
        self._drift = RateDrift({}, far=OFF_BY)

    def judge(self, due: Due, present: PolicyChoice, advice: Advice) -> Verdict:
        """Say what follows from a review.

        Args:
            due: What was reviewed.
            present: The policy that decides.
            advice: What was found.
        """
        self.reviews += 1
        came = f"the {len(due.requests):,} requests of the last {due.seconds:.3g} s"
        if due.has_drifted:
            came += ", in which the load drifted"
        if advice.policy != present and advice.gain > self.settings.margin:
            gain = f"{advice.gain:.1%} better" if advice.gain < math.inf else "better"
            what = f"{advice.policy.text}, {gain} than {present.text} on {came}: {advice.why}"
            return Verdict(advice.policy, Choice("auto", what))
        limit = f"{self.settings.margin:.1%}"
        what = f"{present.text}, which none beats by more than {limit} on {came}: {advice.why}"
        return Verdict(present, Choice("auto", what))


def _name(kind: tuple[str, int, bool]) -> str:
    model, priority, has_deadline = kind
    return f"{model} {priority} {has_deadline}"
