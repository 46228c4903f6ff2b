"""When late: deadlines missed beyond the bound, with and without a cheaper variant.

    python benchmarks/when_late.py [--variant int8|compressed] [--folder FOLDER] [--quick]

A network learns the digits of scikit-learn. Its variant is what coinfer makes of it in int8, or a
copy that was decomposed and retrained on its answers.
Requests of 64 pictures come at random at 120 % of what the original alone could serve at best, each
with a deadline, and may be dropped when that is lost. Both networks are planned as variants of one
model. `use: never` and `use: when_late` take turns with the same arrivals, simulated and run. Needs
torch and scikit-learn.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coinfer.experiments.certificate import certify
from coinfer.planner.prepare import prepare
from coinfer.profiling import Profiler, default_cache
from coinfer.retraining import Recipe, accuracy, decompose, exported, train
from coinfer.runtime.play import play
from coinfer.runtime.prepared import Prepared
from coinfer.sim.simulate import simulate
from coinfer.workload.scenario import Scenario
from digits import Digits, network
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table

FEWER = 0.4
"""Share of the misses that must be gone."""

LOAD = 1.2
SAMPLES = 64
DEADLINE = 8.0
"""Times the original takes on the fastest processor."""

MAX_ERRORS = {"int8": 0.02, "compressed": 0.5}
"""Largest ||out - ref|| / ||ref||. A retrained network answers alike, with other scores."""


class Outcome(NamedTuple):
    """What became of a run: requests, those late, dropped or otherwise lost, and the mean error."""

    submitted: int
    missed: int
    cheaper: int
    error: float


def main() -> int:
    """Train, plan, play and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None, help="keep the networks here")
    parser.add_argument("--quick", action="store_true", help="short: shows that it works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", choices=MAX_ERRORS, default="int8")
    arguments = parser.parse_args()
    return measured(
        variant=arguments.variant,
        folder=arguments.folder,
        rounds=arguments.rounds,
        is_quick=arguments.quick,
    )


def measured(
    *,
    variant: str = "int8",
    folder: Path | None = None,
    rounds: int = 3,
    is_quick: bool = False,
) -> int:
    """Train what is not there, plan, play and print."""
    console = new_console()
    print_environment(console)
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "small.onnx").is_file():
            console.print(_train(folder, epochs=1 if is_quick else 10))
        if is_quick:
            return _compare(console, folder, variant, 2, 1)
        return _compare(console, folder, variant, 10, rounds)


def _train(folder: Path, *, epochs: int) -> str:
    """Make the original, the small network and the samples; say how good both are."""
    data, original = Digits.load(0), network(0)
    recipe = Recipe(epochs=epochs, learning_rate=3e-3)
    train(original, None, data.training, data.validation, recipe=recipe)
    small = copy.deepcopy(original)
    found = decompose(small, data.images[:1], ranks="ratio:0.25")
    train(small, original, data.training, data.validation, recipe=recipe)
    for name, module in (("digits", original), ("small", small)):
        model = exported(module, data.images[:2], name=name, inputs=["image"], outputs=["scores"])
        (folder / f"{name}.onnx").write_bytes(model.to_bytes())
    np.savez(folder / "samples.npz", image=data.images[-448:].numpy())
    return (
        f"{found.macs_removed:.0%} of the operations removed; right answers: original "
        f"{accuracy(original, data.test):.1%}, small {accuracy(small, data.test):.1%}"
    )


def _compare(console: Any, folder: Path, variant: str, seconds: float, rounds: int) -> int:
    ready = {use: _prepared(folder, variant, use, seconds) for use in ("never", "when_late")}
    rate, deadline_s = _load(ready["never"])
    ways = {use: _at(each, rate, deadline_s) for use, each in ready.items()}
    table = new_table(["", "variants"], ["requests", "missed", "share", "cheaper", "mean error"])
    requirements = []
    with OtherWork() as other:
        for mode in ("simulated", "run"):
            totals = {}
            for number in range(rounds):
                for use, ready in ways.items():
                    totals.setdefault(use, []).append(_played(mode, ready, number))
            for use, each in totals.items():
                table.add_row(mode, use, *_figures(each))
            misses = {use: sum(one.missed for one in each) for use, each in totals.items()}
            requirements.append(
                Requirement(
                    what=f"{mode}: misses that are left with `when_late`",
                    value=100 * misses["when_late"] / max(1, misses["never"]),
                    required=100 * (1 - FEWER),
                    at_most=True,
                    unit=" %",
                )
            )
    console.print(f"{rate:.0f} requests/s, deadline {deadline_s * 1e3:.1f} ms")
    console.print(table)
    console.print(other.note)
    return print_requirements(console, requirements)


def _figures(rows: list[Outcome]) -> list[str]:
    submitted, missed = sum(r.submitted for r in rows), sum(r.missed for r in rows)
    cheaper = sum(r.cheaper for r in rows)
    error = sum(r.error * r.submitted for r in rows) / submitted
    shares = [f"{missed / submitted:.1%}", f"{cheaper / submitted:.1%}", f"{error:.4f}"]
    return [f"{submitted:,}", f"{missed:,}", *shares]


def _played(mode: str, ready: Prepared, seed: int) -> Outcome:
    scenario = ready.scenario.with_options(seed=seed)
    if mode == "run":
        played = play(ready, scenario=scenario)
        counts = played.run_counts.models["digits"]
    else:
        counts = simulate(scenario, ready.plan).run_counts.models["digits"]
    cheaper = sum(n for name, n in counts.variants.items() if name != "digits")
    errors = ready.plan.variant_errors
    total = sum(n * errors[name] for name, n in counts.variants.items())
    error = total / counts.completed if counts.completed else 0.0
    return Outcome(counts.submitted, counts.submitted - counts.hits, cheaper, error)


def _prepared(folder: Path, variant: str, use: str, seconds: float) -> Prepared:
    graph = "auto" if variant == "int8" else str(folder / "small.onnx")
    model: dict[str, Any] = {
        "source": str(folder / "digits.onnx"),
        "inputs": {"npz": str(folder / "samples.npz")},
        "deadline": "1s",
        "on_late": "drop",
        "batch": {"samples": SAMPLES, "max": "off"},
        "variants": {"use": use, variant: graph, "max_error": MAX_ERRORS[variant]},
    }
    scenario = Scenario.model_validate(
        {
            "name": "digits",
            "models": {"digits": model},
            "arrivals": {"digits": {"poisson": 1}},
            "duration": f"{seconds}s",
            "policy": "edf",
        }
    )
    return prepare(scenario, Profiler(cache=default_cache()), surroundings=True)


def _load(ready: Prepared) -> tuple[float, float]:
    """Return 120 % of the most requests per second that the original serves, and the deadline."""
    most = certify(ready.scenario, ready.plan.machine).bound.throughput_per_s
    fastest_s = min(entry.mean_s for _, entry in ready.plan.profile.restricted(["digits"]))
    return LOAD * most, DEADLINE * fastest_s


def _at(ready: Prepared, rate: float, deadline_s: float) -> Prepared:
    """Put a scenario under the load."""
    scenario = ready.scenario.with_options(rate_factor=rate)
    spec = scenario.models["digits"].model_copy(update={"deadline": deadline_s})
    changed = scenario.model_copy(update={"models": {"digits": spec}})
    return Prepared(
        scenario=changed,
        plan=ready.plan,
        models=ready.models,
        feeds=ready.feeds,
        backends=ready.backends,
    )


if __name__ == "__main__":
    raise SystemExit(main())
