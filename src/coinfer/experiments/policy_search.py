"""Policy search: which policy keeps a scenario's promises best, found by simulating.

Successive halving (Karnin, Koren and Somekh, "Almost optimal exploration in multi-armed bandits",
ICML 2013): all candidates are simulated on a short piece of the load, the better half on a longer
one, until few are left; those few are then also tried with what the plan allows to leave out. All
of a round see the same arrivals and the same service times (common random numbers), so they differ
by what they decide.

Each is simulated twice: with the times as they were measured, and with each execution 1.5 times as
long or as short at random. Both count alike, and what is worse than the default in either is out:
what wins only on exact times does not win. As good as the default is not better than it.

What a plan is and which candidates there are it is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coinfer.errors import PolicyError
from coinfer.experiments.promises import Figures, Promises, mean
from coinfer.experiments.shortening import most_requests, shortened
from coinfer.plan.choice import Alternative
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.policies import make_policy
from coinfer.sim.simulate import simulate
from coinfer.workload.scenario import Scenario

__all__ = ["OFF_BY", "Found", "PolicySearch", "Tried", "Way"]

OFF_BY = 1.5
"""By how much times may be off without the choice being wrong."""

_FINALISTS = 4
_FEWEST = 50
"""Requests below which a trial says nothing, whatever the budget."""


class Way(NamedTuple):
    """A policy on one form of the plan.

    Attributes:
        policy: Which policy decides.
        form: Name of the form; empty for the plan as it is.
    """

    policy: PolicyChoice
    form: str = ""

    def __str__(self) -> str:
        """Return what readers call it."""
        return f"{self.policy.text}, {self.form}" if self.form else self.policy.text


class Tried(NamedTuple):
    """What came of a way in its last round.

    Attributes:
        way: What was tried.
        requests: On how many.
        exact: The figures with the times as they were measured.
        off: The same with times that are off.
    """

    way: Way
    requests: int
    exact: Figures
    off: Figures

    @property
    def figures(self) -> Figures:
        """The mean of both."""
        return mean([self.exact, self.off])


class Found(NamedTuple):
    """What a search found.

    Attributes:
        tried: All ways, the chosen one first: those of the last round, then those that were left
            out before it, the last ones first.
        finalists: How many were in the last round.
        refused: What could not be simulated, and why.
        requests: How many were simulated.
    """

    tried: tuple[Tried, ...]
    finalists: int
    refused: tuple[Alternative, ...]
    requests: int


@dataclass(slots=True, kw_only=True)
class PolicySearch:
    """A search for one scenario. It is used once.

    Attributes:
        scenario: What is to be served, as it is run.
        forms: The plan by the name of its form: as it is under the empty name, and with what may be
            left out left out.
        budget: How many requests may be simulated, roughly: how many a closed loop asks for shows
            afterwards.
        tell: Called before each simulation with how many requests were simulated.
    """

    scenario: Scenario
    forms: Mapping[str, Plan]
    budget: int
    tell: Callable[[int], None] = lambda _: None
    promises: Promises = field(init=False)
    _in_all: float = field(init=False)
    _spent: int = field(default=0, init=False)
    _refused: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Find out what is promised, and how many requests there are at most."""
        self.promises = Promises.of(self.scenario)
        self._in_all = most_requests(self.scenario, self.forms[""])

    def find(self, policies: Sequence[PolicyChoice]) -> Found:
        """Find the best of these policies; the first one is the default, which ties go to.

        Raises:
            PolicyError: the default failed.
        """
        default, ways = Way(policies[0]), [Way(policy) for policy in policies]
        rounds = 1 + max(0, math.ceil(math.log2(len(ways) / _FINALISTS)))
        out: list[Tried] = []
        while rounds > 1:
            share = self._share(len(ways), rounds)
            ranked = self._ranked(ways, share)
            keep = _FINALISTS if share == 1 else max(_FINALISTS, len(ranked) // 2)
            kept = [t for at, t in enumerate(ranked) if at < keep or t.way == default]
            out = [each for each in ranked if each not in kept] + out
            ways = [default, *(each.way for each in kept if each.way != default)]
            rounds = 1 if keep == _FINALISTS else rounds - 1
        ways += [Way(way.policy, form) for form in self.forms if form for way in ways]
        final = self._ranked(ways, self._share(len(ways), 1))
        refused = tuple(Alternative(name, why) for name, why in self._refused.items())
        return Found((*final, *out), len(final), refused, self._spent)

    def _share(self, n_ways: int, rounds: int) -> float:
        """Return how much of the load each is tried on, of what is left for so many rounds."""
        requests = max(_FEWEST, (self.budget - self._spent) / (2 * n_ways * rounds))
        return min(1.0, requests / self._in_all) if self._in_all else 1.0

    def _ranked(self, ways: Sequence[Way], share: float) -> list[Tried]:
        """Try all on the same piece of the load; return them in order, the best one first."""
        load, before = shortened(self.scenario, share), self._spent
        tried = [each for way in ways if (each := self._tried(way, load, ways[0])) is not None]
        self._in_all = (self._spent - before) / (2 * len(ways) * share)
        out = [each for each in tried if self._loses(each, tried[0])]
        ranked = []
        for group in ([each for each in tried if each not in out], out):
            while group:
                ranked.append(group.pop(self.promises.best([each.figures for each in group])))
        return ranked

    def _loses(self, one: Tried, default: Tried) -> bool:
        worse = self.promises.is_worse
        return worse(one.exact, default.exact) or worse(one.off, default.off)

    def _tried(self, way: Way, load: Scenario, default: Way) -> Tried | None:
        """Simulate a way with times as measured and with times that are off; None if it fails."""
        if str(way) in self._refused:
            return None
        self.tell(self._spent)
        before = self._spent
        try:
            exact, off = (self._figures(way, load, off_by) for off_by in (1.0, OFF_BY))
        except PolicyError as error:
            if way == default:
                raise
            self._refused[str(way)] = str(error)
            return None
        return Tried(way, (self._spent - before) // 2, exact, off)

    def _figures(self, way: Way, load: Scenario, off_by: float) -> Figures:
        policy = make_policy(way.policy.name, **way.policy.options)
        counts = simulate(load, self.forms[way.form], policy, off_by=off_by).run_counts
        self._spent += sum(each.submitted for each in counts.models.values())
        return self.promises.figures(counts)
