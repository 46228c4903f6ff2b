"""Calibration: a short run on the engine tells how far the measured times are from real ones.

A model is measured in a loop of its own. Among others, in the order that a policy makes, with
rests, and beside the threads of the engine, it takes longer or shorter, and a virtual machine is
not every minute as fast. So the same load is run and simulated, and what took `f` times as long as
simulated is scaled by `f`: per model and processor, apart for executions after a rest. Only like is
compared with like: executions of the same span, batch and sizes, as a run and its simulation do not
send the same ones everywhere. As times decide who runs where, this is repeated until it no longer
changes much.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from coinfer.errors import ConfigurationError
from coinfer.experiments.certificate import certify
from coinfer.machine.cold import IDLE_S, Cold
from coinfer.machine.machine import Machine
from coinfer.machine.processor import ordinary
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.metrics.records import ExecutionRecord
from coinfer.plan.plan import Plan
from coinfer.plan.work import Work
from coinfer.runtime.play import play
from coinfer.runtime.prepared import Prepared
from coinfer.sim import simulate
from coinfer.workload.arrivals import Poisson
from coinfer.workload.request_shapes import NO_WORKS
from coinfer.workload.scenario import Scenario

__all__ = ["Calibrated", "calibrate", "calibration_load", "check_seconds", "fitted"]

LOAD = 0.65
"""Share of the bound that is offered: at times something rests, and at times all is busy."""

_MOST_PER_S = 500.0
"""More than this is not offered: the thread that submits would be what is measured."""

_WARMUP_S = 2.0
_REPEATS = 4
_FEWEST = 8
"""Executions below which a mean says nothing: then the processor's other models must do."""

_RESTED_S = IDLE_S / 4

_Pair: TypeAlias = tuple[str, str]


class Calibrated(NamedTuple):
    """What a calibration found.

    Attributes:
        machine: The machine with corrected times.
        factors: By (model, processor), how many times longer it takes than it was measured to.
        warnings: What went wrong in the run that it rests on.
    """

    machine: Machine
    factors: Mapping[_Pair, float]
    warnings: tuple[str, ...] = ()

    def prepared(self, ready: Prepared) -> Prepared:
        """Copy what was calibrated with the corrected times, and say so among the warnings."""
        plan = dataclasses.replace(ready.plan, machine=self.machine)
        return ready.planned(plan.warned(*self.warnings, str(self)))

    def __str__(self) -> str:
        """Say between which factors the corrections lie."""
        if not self.factors:
            return "the calibration saw too few executions: nothing was corrected"
        least, most = min(self.factors.values()), max(self.factors.values())
        return f"calibrated: executions take {least:.2f} to {most:.2f} of their measured times"


def calibration_load(
    scenario: Scenario, machine: Machine, seconds: float, works: Mapping[str, Work] = NO_WORKS
) -> Scenario:
    """Return the load of a calibration: the scenario's mix, Poisson arrivals below the bound."""
    bound = certify(scenario, machine, works).bound
    share = min(LOAD, _MOST_PER_S / bound.throughput_per_s)
    rates = bound.per_model_per_s
    arrivals = {model: Poisson(poisson=share * rate) for model, rate in rates.items() if rate > 0}
    return scenario.model_copy(
        update={
            "arrivals": arrivals,
            "duration_s": seconds,
            "warmup_s": _WARMUP_S,
            "score": None,
        }
    )


def check_seconds(seconds: float) -> None:
    """Refuse a calibration that takes no time.

    Raises:
        ConfigurationError: it says how long one should be.
    """
    if not seconds > 0:
        raise ConfigurationError(
            f"a calibration of {seconds:g} s sees nothing; give it some seconds, e.g. 20s, or "
            "leave it out"
        )


def calibrate(ready: Prepared, *, seconds: float) -> Calibrated:
    """Run a load for some seconds and correct the plan's machine by what it shows.

    Args:
        ready: A scenario whose mix is run, its models, and this machine as it was measured.
        seconds: How long to run; 20 give some hundred executions of networks of some 10 ms.

    Raises:
        ConfigurationError: the run is to take no time.
        KeyboardInterrupt: from the run, if the user interrupts it.
    """
    check_seconds(seconds)
    load = calibration_load(ready.as_run, ready.plan.machine, seconds, ready.plan.works)
    played = play(ready, scenario=load, keep_records=True)
    if played.interrupted:
        raise KeyboardInterrupt
    found = fitted(ready.plan, load, played.recorder.executions())
    return found._replace(warnings=played.warnings)


def fitted(plan: Plan, load: Scenario, measured: Iterable[ExecutionRecord]) -> Calibrated:
    """Correct a machine so that a simulation of a load takes the times that were measured.

    Args:
        plan: On whose machine and under whose policy the load ran.
        load: What was run.
        measured: The executions of that run.
    """
    machine = plan.machine
    names = {p.name for p in ordinary(machine.processors)}
    units = {p.name: p.units for p in machine.processors}
    real = _Times.of(measured, units)
    if not real.seconds:
        return Calibrated(machine, {})
    corrected = dataclasses.replace(machine, overhead_s=real.overhead_s)
    factors: dict[_Pair, float] = {}
    for _ in range(_REPEATS):
        done = simulate(
            load,
            dataclasses.replace(plan, machine=corrected),
            deterministic=True,
            keep_records=True,
        )
        virtual = _Times.of(done.recorder.executions(), units)
        entries, cold = dict(corrected.profile.entries), dict(corrected.cold)
        for pair in {(key.model, key.processor) for key in entries if key.processor in names}:
            warm, rested = real.ratios(virtual, pair)
            factors[pair] = factors.get(pair, 1.0) * warm
            each = cold.get(pair, Cold())
            cold[pair] = each._replace(after_idle=max(1.0, each.after_idle * rested / warm))
            for key, entry in corrected.profile:
                if (key.model, key.processor) == pair:
                    seconds = tuple(warm * each_s for each_s in entry.seconds)
                    entries[key] = dataclasses.replace(entry, seconds=seconds)
        corrected = dataclasses.replace(corrected, profile=Profile(entries), cold=cold)
    return Calibrated(corrected, {pair: factors[pair] for pair in sorted(factors)})


class _Kind(NamedTuple):
    """Executions of one kind take equally long: what they run, at which batch and sizes."""

    span: Span
    batch: int
    sizes: int

    @classmethod
    def of(cls, execution: ExecutionRecord) -> _Kind:
        """Return the kind of an execution."""
        return cls(execution.span, execution.batch, execution.sizes)


class _Times(NamedTuple):
    """Service times by model, processor and whether the processor had rested; then by kind."""

    seconds: Mapping[tuple[str, str, bool], Mapping[_Kind, Sequence[float]]]
    overhead_s: float

    @classmethod
    def of(
        cls, executions: Iterable[ExecutionRecord], units: Mapping[str, frozenset[str]]
    ) -> _Times:
        """Sort executions that ended well.

        The first run of each kind in a session is left out: it allocates.
        """
        ended = [each for each in executions if each.service_s is not None]
        seconds: dict[tuple[str, str, bool], dict[_Kind, list[float]]] = {}
        overheads: list[float] = []
        used_s: dict[str, float] = {}
        seen: set[tuple[str, str, _Kind]] = set()
        for each in sorted(ended, key=lambda record: record.started_s):
            assert each.service_s is not None
            mine = units[each.processor]
            rest_s = each.started_s - max(used_s.get(unit, -math.inf) for unit in mine)
            used_s |= dict.fromkeys(mine, each.finished_s)
            kind = _Kind.of(each)
            if (first := (each.model, each.processor, kind)) not in seen:
                seen.add(first)
                continue
            key = (each.model, each.processor, rest_s > _RESTED_S)
            seconds.setdefault(key, {}).setdefault(kind, []).append(each.service_s)
            overheads.append(each.finished_s - each.started_s - each.service_s)
        return cls(seconds, max(0.0, _middle(overheads)))

    def ratios(self, other: _Times, pair: _Pair) -> tuple[float, float]:
        """Return how many times longer executions take here than there: warm, and after a rest."""
        usual = self._ratio(other, pair) or self._usual(other, pair[1])
        warm, rested = (self._ratio(other, pair, [rest]) or usual for rest in (False, True))
        return warm, rested

    def _usual(self, other: _Times, processor: str) -> float:
        """Return the geometric mean over the models that ran often enough on a processor."""
        models = sorted({key[0] for key in self.seconds})
        each = [self._ratio(other, (model, processor)) for model in models]
        known = [ratio for ratio in each if ratio is not None]
        return statistics.geometric_mean(known) if known else 1.0

    def _ratio(
        self, other: _Times, pair: _Pair, rests: Iterable[bool] = (False, True)
    ) -> float | None:
        """Compare executions of like kind, after a rest or not; None if there are too few.

        There, the mean of each kind counts as often as the kind ran here.
        """
        count, mine_s, theirs_s = 0, 0.0, 0.0
        for rest in rests:
            theirs = other.seconds.get((*pair, rest), {})
            for kind, mine in self.seconds.get((*pair, rest), {}).items():
                if kind in theirs:
                    count += len(mine)
                    mine_s += math.fsum(mine)
                    theirs_s += len(mine) * statistics.fmean(theirs[kind])
        return mine_s / theirs_s if count >= _FEWEST else None


def _middle(seconds: Sequence[float]) -> float:
    """Return the mean without the longest of a hundred: a pause of the process is no hand-over."""
    kept = sorted(seconds)[: math.ceil(0.99 * len(seconds))]
    return statistics.fmean(kept) if kept else 0.0
