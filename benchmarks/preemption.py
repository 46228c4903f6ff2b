"""When an urgent request preempts: at once, at the last moment, or as coinfer does. Simulated.

    python benchmarks/preemption.py [--mixes 40] [--quick]

Random mixes on two equal cores: two to five urgent models with deadlines, periodic or Poisson, 30
to 90 % of the machine together, beside two closed loops without deadlines, or none. Per rule:
the share of urgent requests that miss their deadlines, mean and worst mix, and the seconds per
second that the loops get. Times are exact: what is compared is the rule, not the estimates.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from coinfer.core import preemption
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from tables import new_console, new_table

CORES = ("core0", "core1")
DURATION_S = 20.0
URGENT_S = (0.003, 0.006, 0.01, 0.02, 0.04, 0.08)
LOOPS_S = (0.02, 0.05, 0.1, 0.2)


class Rule(NamedTuple):
    """What is tried.

    Attributes:
        title: For the table.
        express: Whether there are express processors at all.
        margin: In place of `preemption.MARGIN`.
        at_once: Whether what only gets on later is preempted at once.
        bounded: Whether that is so only if no other urgent model can be late by it.
    """

    title: str
    express: bool = True
    margin: float = preemption.MARGIN
    at_once: bool = True
    bounded: bool = True


RULES = (
    Rule("no preemption", express=False),
    Rule("wait until the last moment", margin=0.0, at_once=False),
    Rule("wait until a quarter is left", margin=0.25, at_once=False),
    Rule("wait until half is left", margin=0.5, at_once=False),
    Rule("always at once", bounded=False),
    Rule("coinfer, without a margin", margin=0.0),
    Rule("coinfer"),
)


class Mix(NamedTuple):
    """One random mix: its scenario, and how long each model takes."""

    scenario: Scenario
    seconds: Mapping[str, float]


class Found(NamedTuple):
    """What came of a mix under a rule."""

    missed: float
    loops: float


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixes", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="2 mixes: shows that it works")
    arguments = parser.parse_args()
    console = new_console()
    for loops in (2, 0):
        mixes = [_mix(seed, loops) for seed in range(2 if arguments.quick else arguments.mixes)]
        table = new_table(["rule"], ["missed", "missed, worst mix", "the loops get"])
        for rule in RULES:
            found = [_tried(mix, rule) for mix in mixes]
            missed = [each.missed for each in found]
            table.add_row(
                rule.title,
                f"{statistics.fmean(missed):.2%}",
                f"{max(missed):.1%}",
                f"{statistics.fmean(each.loops for each in found):.3f}" if loops else "",
            )
        console.print(f"{len(mixes)} mixes beside {loops} closed loops")
        console.print(table)


def _mix(seed: int, loops: int) -> Mix:
    draw = random.Random(seed)
    models: dict[str, Any] = {}
    arrivals: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    load = len(CORES) * draw.uniform(0.3, 0.9)
    weights = [draw.random() for _ in range(draw.randint(2, 5))]
    for number, weight in enumerate(weights):
        name = f"urgent{number}"
        seconds[name] = draw.choice(URGENT_S) * draw.uniform(0.8, 1.2)
        rate = load * weight / sum(weights) / seconds[name]
        deadline_s = draw.choice((1.0, 1.5, 2.0)) * max(1 / rate, 1.5 * seconds[name])
        if draw.random() > 0.7:  # shorter than the gaps
            deadline_s = draw.uniform(2, 6) * seconds[name]
        models[name] = {"source": "zoo:lenet", "deadline": deadline_s}
        arrivals[name] = {draw.choice(("periodic", "poisson")): rate}
    for number in range(loops):
        name = f"loop{number}"
        seconds[name] = draw.choice(LOOPS_S)
        models[name], arrivals[name] = {"source": "zoo:lenet"}, {"closed": 1}
    fields = {"models": models, "arrivals": arrivals, "duration": DURATION_S, "seed": seed}
    return Mix(Scenario.model_validate(fields), seconds)


def _tried(mix: Mix, rule: Rule) -> Found:
    with _applied(rule):
        plan = Plan.of(_machine(mix.seconds, express=rule.express))
        counts = simulate(mix.scenario, plan, make_policy("earliest_finish")).run_counts.models
    urgent = [each for name, each in counts.items() if name.startswith("urgent")]
    loops_s = sum(
        each.completed * mix.seconds[name] for name, each in counts.items() if name[0] == "l"
    )
    hits = sum(each.hits for each in urgent)
    return Found(1 - hits / sum(each.submitted for each in urgent), loops_s / DURATION_S)


@contextmanager
def _applied(rule: Rule) -> Iterator[None]:
    """Let the dispatcher follow a rule."""
    with ExitStack() as changes:
        changes.enter_context(patch.object(preemption, "MARGIN", rule.margin))
        if not rule.at_once:
            changes.enter_context(patch.object(preemption, "_only_waits", lambda *_: False))
        if not rule.bounded:
            spare = patch.object(preemption.Preemption, "_others_spare_s", lambda *_: float("inf"))
            changes.enter_context(spare)
        yield


def _machine(seconds: Mapping[str, float], *, express: bool) -> Machine:
    processors = [Processor(name=c, backend="null", units=frozenset({c})) for c in CORES]
    if express:
        processors += [
            Processor(
                name=f"{c}+", backend="null", units=frozenset({f"{c}+"}), overlays=frozenset({c})
            )
            for c in CORES
        ]
    times = {name: dict.fromkeys(CORES, each) for name, each in seconds.items()}
    return Machine(processors=tuple(processors), profile=Profile.from_seconds(times))


if __name__ == "__main__":
    main()
