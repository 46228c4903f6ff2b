"""Simulated against measured: the same arrivals on this machine and in virtual time.

    python benchmarks/fidelity.py [SCENARIO] [--loads 0.5 0.75 0.9] [--duration 30s] [--repeats 3]
                                  [--calibrate 20s] [--asleep]

The scenario's networks get Poisson arrivals at shares of the bound for its mix. The machine model
is what `coinfer simulate` uses: the profile, the slowdown of processors that run together, cold
starts, and the engine's hand-over, each measured beforehand; and the same corrected by a short run
right before each of those that it is compared with, as with `coinfer simulate --calibrate`. A
third simulation takes the times from the very run that it is compared with: what is wrong there is
not the times. Each load is run several times with other arrivals, and the requests of all runs
make one figure.

Before and after everything that is measured the machine itself is timed (`steadiness`). If it
changed by more than 10 % meanwhile, or if for some seconds of a run the same work took a quarter
longer than in the rest of it, that is measured again; how often is printed. If it changed since the
first time, the first simulation is told: it takes its times at the pace that the machine had before
and after the run. The profile is measured three times at most: on a machine that never stays as it
is, the last counts, and the first column says little. Cores are kept awake
(`coinfer.hardware.awake`): the host of a virtual machine may otherwise put two of them on one
physical core whenever they wake.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.table import Table

from coinfer.bound import Bound
from coinfer.experiments.calibration import Calibrated, calibrate, fitted
from coinfer.experiments.certificate import certify
from coinfer.hardware.awake import awake
from coinfer.hardware.cores import available_cores
from coinfer.machine.machine import Machine
from coinfer.machine.profile import Profile
from coinfer.metrics.recorder import Recorder
from coinfer.plan import PolicyChoice
from coinfer.planner.prepare import prepare
from coinfer.policies import make_policy
from coinfer.profiling import Profiler, default_cache
from coinfer.runtime.play import play
from coinfer.runtime.prepared import Prepared
from coinfer.sim import simulate
from coinfer.units import parse_seconds
from coinfer.workload.arrivals import After, Poisson
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, print_environment
from steadiness import Canary, Pace, Watch, unevenness
from tables import new_console

EXAMPLE = Path(__file__).parents[1] / "examples" / "three-networks.yaml"
LIMITS = {
    "per s": 0.03,
    "p50 ms": 0.15,
    "p99 ms": 0.30,
    "service ms": math.inf,
    "per run": math.inf,
}
"""Largest relative error of what is predicted. The mean service time shows where an error comes
from: it is off if the profile or the slowdown is, and right if only the queueing is. So do the
requests per run, where some shared runs."""

MODELS = ("as measured", "calibrated", "in hindsight")
CALIBRATED = 1


class Figure(NamedTuple):
    """One figure, measured, and simulated on several machine models."""

    load: float
    model: str
    what: str
    measured: float
    simulated: tuple[float, ...]

    def error(self, at: int) -> float:
        """Relative error of one of the simulations."""
        return self.simulated[at] / self.measured - 1

    def is_met(self, at: int) -> bool:
        """Whether the error of one of the simulations is within the limit."""
        return abs(self.error(at)) <= LIMITS[self.what]


class Pool:
    """What several runs of one load made, real ones or simulated ones, as one sample."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._served: Counter[str] = Counter()
        self._latencies: dict[str, list[float]] = defaultdict(list)
        self._services: dict[str, list[float]] = defaultdict(list)
        self._sizes: dict[str, list[int]] = defaultdict(list)

    def add(self, recorder: Recorder) -> None:
        """Take the requests that were due in the window, as `coinfer.metrics.counts` counts."""
        start_s, end_s = recorder.window.start_s, recorder.window.end_s
        self._seconds += end_s - start_s
        for request in recorder.requests():
            if request.latency_s is None or request.finished_s is None:
                continue
            if start_s <= request.due_s < end_s:
                self._latencies[request.model].append(request.latency_s)
            if start_s <= request.finished_s < end_s:
                self._served[request.model] += 1
        for execution in recorder.executions():
            if execution.service_s is not None:
                self._services[execution.model].append(execution.service_s)
                self._sizes[execution.model].append(len(execution.request_ids))

    def figures(self) -> Iterator[tuple[str, str, float]]:
        """Yield (model, what, value); of all models together first."""
        yield "all", "per s", self._served.total() / self._seconds
        for model in sorted(self._latencies):
            yield model, "per s", self._served[model] / self._seconds
            for what, share in (("p50 ms", 0.5), ("p99 ms", 0.99)):
                yield model, what, float(np.quantile(self._latencies[model], share)) * 1e3
            yield model, "service ms", statistics.fmean(self._services[model]) * 1e3
            yield model, "per run", statistics.fmean(self._sizes[model])


class Ground(NamedTuple):
    """The machine as it was measured while it was steady, for a scenario."""

    base: Scenario
    ready: Prepared

    @classmethod
    def measured(cls, base: Scenario) -> Ground:
        """Measure it."""
        return cls(base, prepare(base, surroundings=True))

    @property
    def machine(self) -> Machine:
        """The machine as it was measured."""
        return self.ready.plan.machine

    def bound(self) -> Bound:
        """Return the bound for the scenario's mix."""
        return certify(self.base, self.machine).bound


class Trial(NamedTuple):
    """A run, and the machine as it was calibrated right before."""

    run: Recorder
    calibrated: Calibrated

    @classmethod
    def made(cls, wanted: Scenario, ground: Ground, calibrate_s: float) -> Trial:
        """Calibrate, and run."""
        calibrated = calibrate(ground.ready, seconds=calibrate_s)
        played = play(ground.ready, scenario=wanted, keep_records=True)
        return cls(played.recorder, calibrated)


def main() -> int:
    """Run, simulate, compare; the exit status is 1 if a limit is missed."""
    arguments = _arguments()
    console = new_console()
    print_environment(console)
    base = load_scenario(arguments.scenario)
    with (
        OtherWork() as others,
        awake(() if arguments.asleep else available_cores()) as refusal,
        Canary(prepare(base, Profiler(cache=default_cache()))) as canary,
    ):
        console.print(
            "cores may go idle" if arguments.asleep else refusal or "cores are kept awake"
        )
        watch = Watch(canary, console.print, follows=True)
        calibrate_s = parse_seconds(arguments.calibrate)
        ground = watch.first("profile", lambda: Ground.measured(base))
        bound = ground.bound()
        console.print(
            f"bound {bound.throughput_per_s:.2f}/s; hand-over {ground.machine.overhead_s * 1e6:.0f}"
            f" us; slowdown {ground.machine.contention.factors}"
        )
        pools = {load: [Pool() for _ in range(1 + len(MODELS))] for load in arguments.loads}
        for seed in range(arguments.repeats):
            for load in arguments.loads:
                wanted = with_rates(base, bound, load, parse_seconds(arguments.duration), seed)
                name = f"run {seed + 1} at {load:.0%}"
                trial = watch.steady(
                    name,
                    partial(Trial.made, wanted, ground, calibrate_s),
                    lambda trial: unevenness(trial.run),
                )
                console.print(f"  {name}: pace {watch.pace}, {trial.calibrated}")
                recorders = [trial.run, *simulated(wanted, ground, trial, watch.pace)]
                for pool, recorder in zip(pools[load], recorders, strict=True):
                    pool.add(recorder)
    figures = [figure for load, pool in pools.items() for figure in compared(load, pool)]
    console.print(table(figures))
    console.print(f"{arguments.repeats} runs of {arguments.duration} per load; {watch.note}")
    console.print(others.note)
    judged = [figure for figure in figures if LIMITS[figure.what] < math.inf]
    for at, name in enumerate(MODELS):
        missed = sum(not figure.is_met(at) for figure in judged)
        console.print(f"{name}: {missed} of {len(judged)} outside the limits")
    return 0 if all(figure.is_met(CALIBRATED) for figure in judged) else 1


def with_rates(base: Scenario, bound: Bound, load: float, duration_s: float, seed: int) -> Scenario:
    """Copy a scenario with Poisson arrivals at a share of the bound; what follows others does."""
    given = base.arrivals if isinstance(base.arrivals, Mapping) else {}
    arrivals = {
        model: each if isinstance(each := given.get(model), After) else Poisson(poisson=load * rate)
        for model, rate in bound.per_model_per_s.items()
    }
    return base.model_copy(
        update={"arrivals": arrivals, "duration_s": duration_s, "warmup_s": 2.0, "seed": seed}
    )


def simulated(wanted: Scenario, ground: Ground, trial: Trial, pace: Pace) -> Iterator[Recorder]:
    """Yield the records of the simulations of a run."""
    name, options = wanted.policy.name, wanted.policy.options
    executions = trial.run.executions()
    plan = ground.ready.plan
    chosen = replace(plan, policy=PolicyChoice(name=name, options=options))
    hindsight = fitted(chosen, wanted, executions)
    machines = (at_pace(ground.machine, pace), trial.calibrated.machine, hindsight.machine)
    for machine in machines:
        policy = make_policy(name, **options)
        yield simulate(wanted, replace(plan, machine=machine), policy, keep_records=True).recorder


def at_pace(machine: Machine, pace: Pace) -> Machine:
    """Copy a machine with the times that it has at a pace."""
    shares = {processor.name: pace.of(processor) for processor in machine.processors}
    entries = {
        key: replace(entry, seconds=tuple(shares[key.processor] * s for s in entry.seconds))
        for key, entry in machine.profile
    }
    return replace(machine, profile=Profile(entries))


def compared(load: float, pools: Sequence[Pool]) -> Iterator[Figure]:
    """Yield the figures of all models together and of each."""
    for (model, what, measured), *others in zip(*(pool.figures() for pool in pools), strict=True):
        figure = Figure(load, model, what, measured, tuple(value for _, _, value in others))
        if what != "per run" or max(measured, *figure.simulated) > 1:
            yield figure


def table(figures: list[Figure]) -> Table:
    """One row per figure; an error outside of the limit is marked."""
    found = Table(box=box.SIMPLE_HEAD, highlight=False)
    found.add_column("load")
    found.add_column("model")
    found.add_column("figure")
    for header in ("measured", *MODELS, "limit"):
        found.add_column(header, justify="right")
    for figure in figures:
        found.add_row(
            f"{figure.load:.0%}",
            figure.model,
            figure.what,
            f"{figure.measured:.2f}",
            *(
                f"{value:.2f} {figure.error(at):+.1%}{' ' if figure.is_met(at) else '!'}"
                for at, value in enumerate(figure.simulated)
            ),
            f"{limit:.0%}" if (limit := LIMITS[figure.what]) < math.inf else "",
        )
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--loads", nargs="+", type=float, default=[0.5, 0.75, 0.9])
    parser.add_argument("--duration", default="30s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--calibrate", default="20s")
    parser.add_argument("--asleep", action="store_true", help="let cores go idle")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
