"""Saturation: the largest factor by which all rates may be multiplied with the promises kept.

A search by bisection over trials, real or simulated. What a trial is, it does not know; `Kept`
says when one is passed.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from coinfer.backends.reused_sessions import reused_sessions
from coinfer.core.policy import Policy
from coinfer.core.request import OnLate
from coinfer.errors import ConfigurationError
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.metrics.latency import LatencySketch
from coinfer.plan.plan import Plan
from coinfer.policies import make_policy
from coinfer.runtime.play import play
from coinfer.runtime.prepared import Prepared
from coinfer.sim.simulate import simulate
from coinfer.workload.arrivals import Closed
from coinfer.workload.cascades import most_per_frame, root_of
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = [
    "Kept",
    "Measure",
    "Quality",
    "Saturation",
    "Trial",
    "find_saturation",
    "frames_of",
    "on_machine",
    "on_this_machine",
    "submittable",
]

_MOST_SUBMITTED_PER_S = 100_000.0
"""More requests than a thread of Python can hand to an engine: 20 us each are usual."""

_MOST_STEPS = 40
"""Strides from the guess: in doublings, more than any machine is away from a scenario."""


class Quality(enum.Enum):
    """What is to be kept, as a share of all frames."""

    QOE = "qoe"
    """Completed, late or not."""
    HIT_RATE = "hit_rate"
    """Completed within the deadline; of the models that have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The promise: in every model whose rate is scaled, this share of the frames at least.

    Frames are the requests, and those never made because what they come after failed.
    """

    quality: Quality
    least: float

    @classmethod
    def of(cls, scenario: Scenario, *, quality: Quality | None = None, least: float = 0.95) -> Kept:
        """Choose what to ask of a scenario: by default the QoE where something may be dropped.

        Where nothing is ever dropped all frames are completed in the end, and the QoE says nothing;
        then it is the share of deadlines that are met.

        Raises:
            ConfigurationError: a share outside 0..1, or the scenario promises nothing of the kind.
        """
        if not 0 < least <= 1:
            raise ConfigurationError(f"the share to keep must be in 0..1, is {least:g}")
        scaled = [scenario.models[name] for name in _scaled_models(scenario)]
        if not scaled:
            raise ConfigurationError(
                f"scenario {scenario.name!r} has no rate to scale: all its loads are closed loops "
                "or finite counts"
            )
        drops = any(spec.on_late is OnLate.DROP for spec in scaled)
        if not any(spec.deadline is not None for spec in scaled):
            raise ConfigurationError(
                f"no model of scenario {scenario.name!r} whose rate can be scaled has a deadline, "
                "so nothing tells when it is saturated; give it one, or see `coinfer bound`"
            )
        if quality is Quality.QOE and not drops:
            raise ConfigurationError(
                f"scenario {scenario.name!r} drops nothing, so its QoE is 1 at any rate; set "
                "`on_late: drop`, or ask for a hit rate"
            )
        return cls(quality=quality or (Quality.QOE if drops else Quality.HIT_RATE), least=least)

    def shares(self, run_counts: RunCounts, scenario: Scenario) -> dict[str, float]:
        """Return the share of each model that it asks about and that had frames."""
        asked = [n for n in _scaled_models(scenario) if self._asks_about(n, scenario)]
        shares = {name: self.share(name, run_counts) for name in asked}
        return {name: share for name, share in shares.items() if share is not None}

    def share(self, model: str, run_counts: RunCounts) -> float | None:
        """Return the share of a model's frames that were what is to be kept; None without any."""
        kept, frames = self.frames(model, run_counts)
        return kept / frames if frames else None

    def frames(self, model: str, run_counts: RunCounts) -> tuple[int, int]:
        """Count the frames of a model that were what is to be kept, and all of its frames."""
        counts = run_counts.models.get(model) or ModelCounts(LatencySketch())
        frames = counts.submitted + run_counts.withheld.get(model, 0)
        return frames - counts.unfinished - self._lost(model, run_counts), frames

    def is_broken(
        self, run_counts: RunCounts, scenario: Scenario, frames: Mapping[str, int]
    ) -> bool:
        """Tell in the midst of a trial whether it can no longer be passed.

        Args:
            run_counts: The counts so far.
            scenario: What is played.
            frames: Of the whole trial, as of `frames_of`.
        """
        # Rounding decides whether a frame at the edge of the window counts.
        most = {n: k + most_per_frame(n, scenario.processes) for n, k in frames.items()}
        return any(
            (count - self._lost(name, run_counts)) / count < self.least
            for name, count in most.items()
            if self._asks_about(name, scenario)
        )

    def _asks_about(self, name: str, scenario: Scenario) -> bool:
        has_deadline = scenario.models[name].deadline is not None
        return has_deadline or self.quality is not Quality.HIT_RATE

    def _lost(self, name: str, run_counts: RunCounts) -> int:
        """Count the frames of a model that were not what is to be kept."""
        counts, withheld = run_counts.models.get(name), run_counts.withheld.get(name, 0)
        if counts is None:
            return withheld
        lost = sum(counts.others.values()) + withheld
        return lost + counts.late if self.quality is Quality.HIT_RATE else lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The scenario at one factor.

    Attributes:
        factor: All open-loop rates were multiplied by it.
        passed: Whether every model kept its promise.
        shares: By model, what it kept.
        shared: By model of which requests shared runs, how many runs served how many.
    """

    factor: float
    passed: bool
    shares: Mapping[str, float]
    shared: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    @property
    def worst(self) -> str:
        """The model that kept the least; empty if none had a frame."""
        return min(self.shares, key=self.shares.__getitem__, default="")

    @property
    def together(self) -> dict[str, float]:
        """By model of which requests shared runs, how many did so on average.

        >>> Trial(factor=1.0, passed=True, shares={}, shared={"m": {2: 3, 6: 1}}).together
        {'m': 3.0}
        """
        return {
            model: sum(size * runs for size, runs in shared.items()) / sum(shared.values())
            for model, shared in self.shared.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """What a search found.

    Attributes:
        factor: The largest factor that passed; None if none did.
        broken_at: The smallest factor above it that did not pass; None if all passed.
        trials: In the order in which they were made.
    """

    factor: float | None
    broken_at: float | None
    trials: tuple[Trial, ...]

    @property
    def precision(self) -> float | None:
        """How far the two factors are apart, relative to the lower one."""
        if self.factor is None or self.broken_at is None:
            return None
        return self.broken_at / self.factor - 1

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` writes."""
        return {**asdict(self), "precision": self.precision}


Measure = Callable[[Scenario], RunCounts]
"""Runs or simulates a scenario."""


def find_saturation(
    scenario: Scenario,
    kept: Kept,
    measure: Measure,
    *,
    guess: float = 1.0,
    stride: float = 2.0,
    precision: float = 0.01,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Saturation:
    """Search from a guess: stride up or down until one factor passes and one does not, bisect.

    It takes for granted that a larger factor is never easier. Where that does not hold (short
    trials, noise of a real machine) the two factors found are still one that passed and one that
    did not.

    Args:
        scenario: What is scaled.
        kept: When a trial is passed.
        measure: Makes a trial.
        guess: Where to begin.
        stride: By how much the factor is multiplied or divided from there: the less, the better the
            guess is.
        precision: When to stop: how far the two may be apart, relative to the lower one.
        on_trial: Called after each trial.

    Raises:
        ConfigurationError: the precision is not positive, or the stride not above 1.
    """
    if not 0 < precision < math.inf:
        raise ConfigurationError(f"the precision must be greater than 0, is {precision:g}")
    if not 1 < stride < math.inf:
        raise ConfigurationError(f"the stride must be greater than 1, is {stride:g}")
    trials: list[Trial] = []

    def passes(factor: float) -> bool:
        counts = measure(scenario.scaled(factor))
        shares = kept.shares(counts, scenario)
        passed = bool(shares) and min(shares.values()) >= kept.least
        shared = {n: dict(sorted(c.shared.items())) for n, c in counts.models.items() if c.shared}
        trials.append(Trial(factor=factor, passed=passed, shares=shares, shared=shared))
        on_trial(trials[-1])
        return passed

    low, high = _bracket(passes, guess, stride)
    while low is not None and high is not None and high > low * (1 + precision):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if passes(middle) else (low, middle)
    return Saturation(factor=low, broken_at=high, trials=tuple(trials))


def _bracket(
    passes: Callable[[float], bool], guess: float, stride: float
) -> tuple[float | None, float | None]:
    """Return a factor that passes and one, a stride above it, that does not."""
    if passes(guess):
        for _ in range(_MOST_STEPS):
            if not passes(guess * stride):
                return guess, guess * stride
            guess *= stride
        return guess, None
    for _ in range(_MOST_STEPS):
        if passes(guess / stride):
            return guess / stride, guess
        guess /= stride
    return None, guess


def on_machine(plan: Plan) -> Measure:
    """Simulate each trial for as long as the same requests take.

    At twice the rates the trial is half as long: all trials have the same frames, only closer
    together, and results of different factors differ by the load and not by the draw.
    """

    def measure(scenario: Scenario) -> RunCounts:
        factor = scenario.rate_factor
        scenario = scenario.model_copy(
            update={
                "duration_s": scenario.duration_s / factor,
                "warmup_s": scenario.warmup_s / factor,
            }
        )
        return simulate(scenario, plan, _policy(scenario)).run_counts

    return measure


@contextmanager
def on_this_machine(ready: Prepared, kept: Kept) -> Iterator[Measure]:
    """Yield what runs a trial here, for the duration of the scenario; models are compiled once.

    Args:
        ready: The plan and its models.
        kept: A trial ends early once it has broken this.

    Raises:
        KeyboardInterrupt: from the trial, if the user interrupts it.
    """
    with reused_sessions(ready.plan.processors, ready.backends) as backends:

        def measure(scenario: Scenario) -> RunCounts:
            frames = frames_of(scenario)
            played = play(
                ready,
                scenario=scenario,
                policy=_policy(scenario),
                enough=lambda run_counts: kept.is_broken(run_counts, scenario, frames),
                backends=backends,
            )
            if played.interrupted:
                raise KeyboardInterrupt
            return played.run_counts

        yield measure


def frames_of(scenario: Scenario) -> dict[str, int]:
    """Count the frames that a scenario will have, of each model whose rate a factor scales.

    Every request is one, also where several come after the same one. Whether requests are completed
    does not matter: those withheld are frames, too.
    """
    load, scaled = Load(scenario), _scaled_models(scenario)
    frames = dict.fromkeys(scaled, 0)
    agenda = [due for due in load.initial() if due.model in frames]
    while agenda:
        due = agenda.pop()
        frames[due.model] += scenario.begin_s <= due.due_s < scenario.end_s
        agenda += load.after_due(due)
        agenda += load.after_answer(due, due.time_s, completed=True)
    return frames


def submittable(scenario: Scenario, factor: float) -> float:
    """Return the factor, or the one at which a caller on this machine could do no more.

    For a search of real trials to begin with: by the bound of a tiny network, a million requests
    per second may be served, which nobody can submit.

    >>> camera = Scenario.model_validate({
    ...     "models": {"m": {"source": "zoo:tiny_mlp", "deadline": "10ms"}},
    ...     "arrivals": {"m": {"periodic": "100/s"}}, "duration": "1s", "warmup": 0})
    >>> submittable(camera, 7.5), submittable(camera, 1e6)
    (7.5, 1000.0)
    """
    per_s = sum(frames_of(scenario).values()) / scenario.duration_s
    return min(factor, _MOST_SUBMITTED_PER_S / per_s) if per_s else factor


def _policy(scenario: Scenario) -> Policy:
    return make_policy(scenario.policy.name, **scenario.policy.options)


def _scaled_models(scenario: Scenario) -> list[str]:
    """Models whose rate a factor scales: not closed loops, nor what comes after one."""
    processes = scenario.processes
    return [
        name for name in processes if not isinstance(processes[root_of(name, processes)], Closed)
    ]
