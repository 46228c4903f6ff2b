"""Policy controller: when what was seen is reviewed, and whether the policy changes then.

It looks at the counts of requests now and then. A review is due every `interval_s`, and as soon as
the load has drifted (`metrics.rate_drift`): as many windows in a row had requests of a kind at more
than 1.5 times the rate of the last review, or less. A model that becomes urgent is another kind.
Reviewed are the requests of these windows only: what came before may be another load.

The policy changes only for a gain above the margin, so two that are near a tie do not alternate.
What was measured under the policies before is remembered until the load drifts. If under the
present one both a smaller share of the requests is answered in time than under one of them, and
fewer per second, each by more than the margin, the simulation is wrong for this load: the one that
did best comes back, and stays until the load drifts. That is decided after as many windows, and
after each one before if the difference is larger than chance could make it. So it may be where
requests follow from answers, or where more and more wait, which the simulation of half a minute
does not know.

It knows no clock and no thread, and simulates nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coinfer.core.request import Request
from coinfer.experiments.auto_policy import AutoPolicy
from coinfer.experiments.policy_review import Advice
from coinfer.experiments.policy_search import OFF_BY
from coinfer.metrics.rate_drift import IN_A_ROW, WINDOW_S, RateDrift
from coinfer.plan.choice import Choice
from coinfer.plan.plan import PolicyChoice
from coinfer.workload.seen_requests import SeenRequests, kind_of

__all__ = ["Due", "Measured", "PolicyController", "Record", "Tally", "Verdict"]

_FEWEST = 50
"""Requests below which a review says nothing."""

_LAST_ROUND = 40
"""The last round of a search simulates about this share of its budget on each policy, so no more
requests are kept than that."""

_CLEARLY = 3.0
"""Standard errors by which a trial must be worse to end before all its windows are over."""

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


class Tally(NamedTuple):
    """Requests of a model that were answered since the start.

    Attributes:
        good: Those that were completed, and in time if they had a deadline.
        answered: All, whatever the answer.
    """

    good: int
    answered: int


class Measured(NamedTuple):
    """What was measured in some windows.

    Attributes:
        good: Answers that were good.
        answered: All; at least one.
        seconds: In how long.
    """

    good: int
    answered: int
    seconds: float

    @property
    def share(self) -> float:
        """That of the answers that were good."""
        return self.good / self.answered

    @property
    def per_s(self) -> float:
        """Good ones per second."""
        return self.good / self.seconds

    def is_worse(self, other: Measured, margin: float, errors: float = 0.0) -> bool:
        """Tell whether both figures are below the other ones by more than a margin.

        Args:
            other: Measured under another policy.
            margin: As a share.
            errors: By how many standard errors of the difference more, as if requests were
                independent of each other and came at random.

        >>> Measured(70, 100, 10.0).is_worse(Measured(240, 300, 30.0), 0.03)
        True
        >>> Measured(70, 100, 10.0).is_worse(Measured(240, 300, 30.0), 0.03, errors=3.0)
        False
        """
        least, both = 1 - margin, (self, other)
        share_error = math.sqrt(sum(each.share * (1 - each.share) / each.answered for each in both))
        rate_error = math.sqrt(sum(each.good / each.seconds**2 for each in both))
        return (
            self.share < other.share * least - errors * share_error
            and self.per_s < other.per_s * least - errors * rate_error
        )


class Record(NamedTuple):
    """What was measured under a policy.

    Attributes:
        policy: The policy.
        measured: In the last windows in which it decided.
    """

    policy: PolicyChoice
    measured: Measured


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
        self._looks: deque[_Look] = deque(maxlen=IN_A_ROW + 1)
        self._is_fresh = False
        self._records: list[Record] = []
        self._trusts_simulation = True

    def due_in_s(self, now: float) -> float:
        """Return the seconds until `look` wants to be called; 0 if it does now."""
        return max(0.0, self._next_look_s - now)

    def look(
        self, now: float, tallies: Mapping[str, Tally], present: PolicyChoice
    ) -> Due | Verdict | None:
        """Look at what came and what was answered.

        Args:
            now: The moment.
            tallies: What was answered up to now, by model.
            present: The policy that decides.

        Returns:
            What is to be reviewed, if anything is; or which policy comes back after a trial.
        """
        self._next_look_s = now + self._look_s
        counts = {_name(kind): count for kind, count in self.seen.counts.copy().items()}
        self._looks.append(_Look(now, self._total(tallies), counts))
        if self._is_fresh and not self._has_settled():
            return self._given_up(present)
        self._drift.planned = {**dict.fromkeys(counts, 0.0), **self._rates} if self._rates else {}
        has_drifted = bool(self._drift.note(counts, now))
        best, measured = self._best(), self._measured()
        if (
            best is not None
            and measured is not None
            and measured.is_worse(best.measured, self.settings.margin)
        ):
            return self._back(best, present, measured)
        if has_drifted:
            self._records, self._trusts_simulation = [], True
        is_due = now >= self._next_review_s and self._trusts_simulation
        if not (has_drifted or is_due):
            return None
        requests = self.seen.since(now - self._window_s)
        if len(requests) < _FEWEST:
            return None
        self._next_review_s = now + self.settings.interval_s
        seconds = max(now - min(request.arrival_s for request in requests), 1e-9)
        self._begin(requests, seconds)
        return Due(requests, seconds, has_drifted)

    def _total(self, tallies: Mapping[str, Tally]) -> Tally:
        """Add up what counts first: models whose requests have deadlines, if there are any."""
        timed = {model for model, _, has_deadline in self.seen.counts.copy() if has_deadline}
        counted = [tally for model, tally in tallies.items() if model in timed or not timed]
        return Tally(sum(each.good for each in counted), sum(each.answered for each in counted))

    def _best(self) -> Record | None:
        """Return what was measured under the policy that did best; None if there is nothing."""
        return max(
            self._records, key=lambda each: (each.measured.share, each.measured.per_s), default=None
        )

    def _given_up(self, present: PolicyChoice) -> Verdict | None:
        """End a trial before all its windows are over, if it is clear that it goes wrong."""
        best, measured = self._best(), self._measured(1)
        if best is None or measured is None:
            return None
        if not measured.is_worse(best.measured, self.settings.margin, _CLEARLY):
            return None
        return self._back(best, present, measured)

    def _measured(self, windows: int = IN_A_ROW) -> Measured | None:
        """Return what was measured in the last windows; None if there are fewer than so many."""
        if len(self._looks) <= windows:
            return None
        first, last = self._looks[0], self._looks[-1]
        good = last.tally.good - first.tally.good
        answered = last.tally.answered - first.tally.answered
        return Measured(good, answered, last.at_s - first.at_s) if answered else None

    def _has_settled(self) -> bool:
        """Tell whether there are whole windows since a change; compare with these from now on.

        Where requests follow from answers, they come at other rates under another policy.
        """
        if len(self._looks) <= IN_A_ROW:
            return False
        first, last = self._looks[0], self._looks[-1]
        self._rates = {
            kind: (count - first.counts.get(kind, 0)) / (last.at_s - first.at_s)
            for kind, count in last.counts.items()
        }
        self._drift = RateDrift({}, far=OFF_BY)
        self._is_fresh = False
        return True

    def _note_change(self) -> None:
        self._next_look_s = -math.inf  # what is measured from now on counts
        self._looks.clear()
        self._is_fresh = True

    def _back(self, best: Record, present: PolicyChoice, measured: Measured) -> Verdict:
        """Let a policy come back that did better."""
        self._records, self._trusts_simulation = [], False
        self._note_change()
        what = (
            f"{best.policy.text}, again, until the load drifts: under {present.text} "
            f"{measured.share:.1%} of the answers were good, {measured.per_s:.4g}/s, and under it "
            f"{best.measured.share:.1%}, {best.measured.per_s:.4g}/s"
        )
        return Verdict(best.policy, Choice("auto", what))

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
            measured = self._measured()
            if measured is not None:
                self._records.append(Record(present, measured))
            self._note_change()
            what = f"{advice.policy.text}, {gain} than {present.text} on {came}: {advice.why}"
            return Verdict(advice.policy, Choice("auto", what))
        limit = f"{self.settings.margin:.1%}"
        what = f"{present.text}, which none beats by more than {limit} on {came}: {advice.why}"
        return Verdict(present, Choice("auto", what))


class _Look(NamedTuple):
    """What there was at a moment: answers, and requests by kind."""

    at_s: float
    tally: Tally
    counts: Mapping[str, int]


def _name(kind: tuple[str, int, bool]) -> str:
    model, priority, has_deadline = kind
    return f"{model} {priority} {has_deadline}"
