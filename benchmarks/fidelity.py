"""Simulated against measured: the same arrivals on this machine and in virtual time.

    python benchmarks/fidelity.py [SCENARIO] [--loads 0.5 0.75 0.9] [--duration 30s]
                                  [--calibrate 20s]

The scenario's networks get Poisson arrivals at shares of the bound for its mix. The machine model
is what `coinfer simulate` uses: the profile, the slowdown of processors that run together, cold
starts, and the engine's hand-over, each measured beforehand and kept in the cache; and the same
corrected by a short run right before, as with `coinfer simulate --calibrate`. A third simulation
takes the times from the very run that it is compared with: what is wrong there is not the times.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from coinfer.metrics.recorder import Recorder
from coinfer.metrics.summary import Summary, summarise
from coinfer.metrics.tally import Tallies
from coinfer.planner.calibration import calibrate, fitted
from coinfer.planner.certificate import certify
from coinfer.planner.preparation import Preparation, prepare
from coinfer.planner.stage import measured_machine
from coinfer.policies import make_policy
from coinfer.profiling import default_cache
from coinfer.runtime.play import play
from coinfer.sim import Machine, simulate
from coinfer.units import parse_seconds
from coinfer.workload.arrivals import Poisson
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, print_environment

EXAMPLE = Path(__file__).parents[1] / "examples" / "three-networks.yaml"
LIMITS = {"per s": 0.03, "p50 ms": 0.15, "p99 ms": 0.30, "service ms": math.inf}
"""Largest relative error of what is predicted. The mean service time shows where an error comes
from: it is off if the profile or the slowdown is, and right if only the queueing is."""

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


def main() -> int:
    """Run, simulate, compare; the exit status is 1 if a limit is missed."""
    arguments = _arguments()
    console = Console(width=110)
    print_environment(console)
    base = load_scenario(arguments.scenario)
    ready = prepare(base, cache=default_cache())
    machine = measured_machine(ready, cache=default_cache())
    whole = Machine(processors=ready.processors, profile=ready.measured)
    bound = certify(base, whole).bound
    console.print(
        f"bound {bound.throughput_per_s:.2f}/s; hand-over {machine.overhead_s * 1e6:.0f} us"
    )
    console.print(f"slowdown {machine.contention.to_json()}", highlight=False)
    figures: list[Figure] = []
    with OtherWork() as others:
        found = calibrate(base, ready, machine, seconds=parse_seconds(arguments.calibrate))
        console.print(str(found), highlight=False)
        for load in arguments.loads:
            rates = {model: load * rate for model, rate in bound.per_model_per_s.items()}
            wanted = with_rates(base, rates, parse_seconds(arguments.duration))
            figures += compare(load, wanted, ready, (machine, found.machine))
    console.print(table(figures))
    console.print(others.note)
    judged = [figure for figure in figures if LIMITS[figure.what] < math.inf]
    for at, name in enumerate(MODELS):
        missed = sum(not figure.is_met(at) for figure in judged)
        console.print(f"{name}: {missed} of {len(judged)} outside the limits", highlight=False)
    return 0 if all(figure.is_met(CALIBRATED) for figure in judged) else 1


def with_rates(base: Scenario, rates: dict[str, float], duration_s: float) -> Scenario:
    """Copy a scenario with Poisson arrivals."""
    arrivals = {model: Poisson(poisson=rate) for model, rate in rates.items()}
    return base.model_copy(update={"arrivals": arrivals, "duration_s": duration_s, "warmup_s": 2.0})


def compare(
    load: float, wanted: Scenario, ready: Preparation, machines: Sequence[Machine]
) -> Iterator[Figure]:
    """Run and simulate; yield the figures of all models together and of each."""
    name, options = wanted.policy.name, wanted.policy.options
    played = play(
        wanted,
        ready.loads,
        ready.processors,
        ready.profile,
        make_policy(name, **options),
        ready.feeds,
        keep_records=True,
    )
    hindsight = fitted(
        machines[0], wanted, played.recorder.executions(), make_policy(name, **options)
    )
    simulated = [
        simulate(wanted, machine, make_policy(name, **options), keep_records=True)
        for machine in (*machines, hindsight.machine)
    ]
    real, *virtual = (
        summary(t, wanted, ready) for t in (played.tallies, *(s.tallies for s in simulated))
    )
    yield Figure(
        load,
        "all",
        "per s",
        real.totals.throughput_per_s,
        tuple(each.totals.throughput_per_s for each in virtual),
    )
    for model, row in real.models.items():
        others = [each.models[model] for each in virtual]
        yield Figure(
            load, model, "per s", row.throughput_per_s, tuple(o.throughput_per_s for o in others)
        )
        for what, q in (("p50 ms", "p50"), ("p99 ms", "p99")):
            predicted = tuple(getattr(other.latency_ms, q) for other in others)
            yield Figure(load, model, what, getattr(row.latency_ms, q), predicted)
        services = tuple(service_ms(each.recorder, model) for each in simulated)
        yield Figure(load, model, "service ms", service_ms(played.recorder, model), services)


def service_ms(recorder: Recorder, model: str) -> float:
    """Mean service time of a model, on whichever processors it ran."""
    seconds = [
        record.service_s
        for record in recorder.executions()
        if record.model == model and record.service_s is not None
    ]
    return statistics.fmean(seconds) * 1e3


def summary(tallies: Tallies, wanted: Scenario, ready: Preparation) -> Summary:
    """Make the figures."""
    return summarise(
        tallies, scenario=wanted.name, mode="", policy="", seed=0, processors=ready.processors
    )


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
    parser.add_argument("--calibrate", default="20s")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
