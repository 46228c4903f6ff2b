"""The default policy beside others, on random mixes of networks, simulated.

    python benchmarks/policy_mixes.py [--quick] [--mixes 60] [--requests 4000]

Three to six networks of `lib:synthetic-edge` at 50 to 150 % of the rates that any schedule could
serve. Requests come evenly, at random or in bursts, at rates of 5 to 60 to each other. A quarter
of the networks have no deadline; those of others are 1.5 to 12 times the least that they take, or
one period; half of these are dropped when they are late. In four of ten mixes a third of the
networks have priority. All policies see the same arrivals and the same times. The figures are those
by which `auto` ranks: the first in which a policy is more than 2 % better than the default counts.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from coinfer.bound import sustainable_factor
from coinfer.experiments.policy_candidates import candidates
from coinfer.experiments.promises import Figures, Promises
from coinfer.machine.machine_file import load_machine
from coinfer.plan import Plan, PolicyChoice
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from environment import OtherWork, print_environment
from tables import new_console, new_table
from xrbench import MACHINE

CLEARLY = 0.02
"""By so much a policy is better, as a share."""


class Mix(NamedTuple):
    """What came of a mix.

    Attributes:
        number: Which one, which is its seed.
        load: Its rates as a share of the bound.
        default: The figure of the default that counts, in words; empty if none is better.
        best: The same of the best other policy.
        name: Which one that is.
        gain: By how much it is better.
    """

    number: int
    load: float
    default: str
    best: str
    name: str
    gain: float


def main() -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two mixes, short")
    parser.add_argument("--mixes", type=int, default=60)
    parser.add_argument("--requests", type=int, default=4_000, help="of each, about")
    arguments = parser.parse_args()
    n, requests = (2, 200) if arguments.quick else (arguments.mixes, arguments.requests)
    console = new_console()
    print_environment(console)
    with OtherWork() as other:
        mixes = [_mix(number, requests) for number in range(n)]
    table = new_table(["mix"], ["load", "default", "best", "gain"])
    table.add_column("policy", overflow="fold")
    lost = [mix for mix in mixes if mix.gain > CLEARLY]
    for mix in lost:
        gain = f"{mix.gain:+.0%}" if mix.gain < 100 else "any"
        table.add_row(str(mix.number), f"{mix.load:.0%}", mix.default, mix.best, gain, mix.name)
    console.print(table)
    names = ", ".join(f"{name} {count}" for name, count in Counter(m.name for m in lost).items())
    console.print(f"{len(lost)} of {len(mixes)} where another one is better: {names or 'none'}")
    console.print(other.note)
    return 0


def _mix(number: int, requests: int) -> Mix:
    scenario, plan, load = _drawn(number, requests)
    promises, default = Promises.of(scenario), PolicyChoice()
    base = _figures(scenario, plan, default, promises)
    best, name, gain = base, "", 0.0
    for choice in candidates(scenario, plan)[0]:
        if choice != default:
            found = _figures(scenario, plan, choice, promises)
            if (more := promises.gain(found, base)) > gain:
                best, name, gain = found, choice.text.split(" (assign")[0], more
    return Mix(number, load, *_apart(promises, base, best), name, gain)


def _apart(promises: Promises, one: Figures, other: Figures) -> tuple[str, str]:
    """Return the figures in which two differ first, in words."""
    for a, b, goal in zip(one, other, promises.goals, strict=True):
        if goal.text and min(a, b) < max(a, b) * (1 - goal.margin):
            return goal.text.format(a), goal.text.format(b)
    return "", ""


def _figures(scenario: Scenario, plan: Plan, choice: PolicyChoice, promises: Promises) -> Figures:
    policy = make_policy(choice.name, **choice.options)
    return promises.figures(simulate(scenario, plan, policy).run_counts)


def _drawn(number: int, requests: int) -> tuple[Scenario, Plan, float]:
    """Draw a mix; return it with the plan that serves it, and its load."""
    draw, machine = random.Random(number), load_machine(MACHINE)
    plan = Plan.of(machine)
    names = draw.sample(_unlike(plan), draw.randint(3, 6))
    plan = replace(plan, models={name: plan.models[name] for name in names})
    shares = {name: draw.choice([5.0, 10.0, 15.0, 30.0, 60.0]) for name in names}
    load = draw.choice([0.5, 0.7, 0.85, 1.0, 1.2, 1.5])
    factor = load * (sustainable_factor(machine.profile, machine.processors, shares) or 1.0)
    has_priorities = draw.random() < 0.4
    models: dict[str, Any] = {}
    arrivals: dict[str, Any] = {}
    for name in names:
        rate_per_s = shares[name] * factor
        kind = draw.choice(["periodic", "periodic", "poisson", "gamma"])
        arrivals[name] = {kind: f"{rate_per_s:.4f}/s"}
        if kind == "gamma":
            arrivals[name]["cv"] = draw.choice([2.0, 3.0])
        spec: dict[str, Any] = {"source": "zoo:lenet"}
        models[name] = spec
        wanted = draw.choice(["period", "multiple", "multiple", None])
        if wanted is not None:
            least_s = min(_seconds(plan, name))
            by_period = wanted == "period" and kind == "periodic"
            spec["deadline"] = (
                1 / rate_per_s if by_period else least_s * draw.choice([1.5, 3, 6, 12])
            )
            if draw.random() < 0.5:
                spec["on_late"] = "drop"
        if has_priorities:
            spec["priority"] = draw.choice([0, 0, 1])
    scenario = Scenario.model_validate(
        {
            "name": f"mix {number}",
            "models": models,
            "arrivals": arrivals,
            "warmup": 0.0,
            "duration": requests / (factor * sum(shares.values())),
            "seed": number,
        }
    )
    return scenario, plan, load


def _unlike(plan: Plan) -> Sequence[str]:
    """Return the networks, one of each that take the same times; small ones are left out."""
    unlike: dict[tuple[float, ...], str] = {}
    for name in sorted(plan.models):
        if "lenet" not in name and not name.startswith("background"):
            unlike.setdefault(tuple(round(s, 5) for s in _seconds(plan, name)), name)
    return sorted(unlike.values())


def _seconds(plan: Plan, name: str) -> list[float]:
    found = (plan.profile.expected_s(name, each.name) for each in plan.processors)
    return [seconds for seconds in found if seconds is not None]


if __name__ == "__main__":
    raise SystemExit(main())
