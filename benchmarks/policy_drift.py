"""An engine that chooses its policy while it works (`policy="auto"`), when its load changes.

    python benchmarks/policy_drift.py [--quick] [--real] [--scale FACTOR] [--cases NAME...]

Two loads on `lib:synthetic-edge`. `gaming` is XRBench's AR gaming at three times its rates; `depth`
has no deadline. After a minute all rates double, and `depth` becomes urgent: all networks have
deadlines of one period. In `motion` a camera of 30 frames per second sends those in which something
moved, half of them at random, to `plane_detection`, beside pictures for `resnet152` that come at
random, 37.5 per second, and 3 `keyword` per second within 100 ms. After a minute all rates double,
and the frames must be answered within 11 ms.

Printed is the share of the frames of the networks with deadlines that were answered in time, by the
ten seconds in which they were due: under the default, under the policy that is best for each of the
two loads, and under `auto`.

Simulated, the controller and the review are those of an engine, and the clock is the simulation's:
a review takes `--review` seconds of it. With `--real` an engine runs the same load on processors
that only wait for as long as the described ones would work, the process that simulates included;
`--scale 0.33` takes a third of the time for all, between reviews too.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from rich.console import Console

from coinfer.api import Engine
from coinfer.backends.null import NullBackend
from coinfer.core.commands import Command, Reply
from coinfer.core.events import Arrived, Event
from coinfer.core.request import OnLate, Outcome
from coinfer.experiments.auto_policy import AutoPolicy
from coinfer.experiments.policy_candidates import candidates
from coinfer.experiments.policy_controller import Due, PolicyController, Tally, Verdict
from coinfer.experiments.policy_review import Review, review
from coinfer.machine.machine_file import load_machine
from coinfer.plan import Plan, PolicyChoice
from coinfer.policies import make_policy
from coinfer.runtime import clock
from coinfer.scenarios import library
from coinfer.sim import Simulation
from coinfer.testing.models import tiny_linear
from coinfer.workload.load import Load
from coinfer.workload.scenario import ModelSpec, Scenario
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table
from xrbench import MACHINE

SCENARIO = "xrbench-ar-gaming"
FACTOR = 3.0
CHANGE_S = 60.0
END_S = 210.0
BUCKET_S = 10.0
BACK_S = 90.0
"""Within this after the change, `auto` must be near the best policy for the new load."""
NEAR = 0.95


class Drift(NamedTuple):
    """A load that changes once.

    Attributes:
        load: All arrivals, at the times of both parts.
        before: What requests are promised up to the change.
        after: And from then on.
        scale: Seconds of a run to one of the description.
    """

    load: Scenario
    before: Mapping[str, ModelSpec]
    after: Mapping[str, ModelSpec]
    scale: float = 1.0

    @property
    def change_s(self) -> float:
        """The moment of the change."""
        return CHANGE_S * self.scale

    @property
    def end_s(self) -> float:
        """The end."""
        return END_S * self.scale

    @classmethod
    def of(
        cls,
        times: Mapping[str, Sequence[float]],
        before: Mapping[str, ModelSpec],
        after: Mapping[str, ModelSpec],
        scale: float,
    ) -> Drift:
        """Put arrivals and promises together."""
        load = Scenario.model_validate(
            {
                "name": "drift",
                "models": {name: {"source": "zoo:lenet"} for name in times},
                "arrivals": {name: {"trace": each} for name, each in times.items()},
                "warmup": 0.0,
                "duration": END_S * scale,
            }
        )
        return cls(load, before, after, scale)


def gaming(scale: float) -> Drift:
    """AR gaming, with `depth` urgent after the change."""
    slow = load_scenario(library.scenario_path(f"lib:{SCENARIO}")).scaled(FACTOR)
    fast = slow.scaled(2.0)
    spec = slow.models["depth"]
    calm = spec.model_copy(update={"deadline": None, "on_late": OnLate.RUN})
    change_s, end_s = CHANGE_S * scale, END_S * scale
    times = {
        name: [*_times(slow, name, 0.0, change_s), *_times(fast, name, change_s, end_s)]
        for name in slow.models
    }
    return Drift.of(times, {**slow.models, "depth": calm}, fast.models, scale)


def motion(scale: float) -> Drift:
    """Frames in which something moved, urgent after the change, beside pictures at random."""
    draw = random.Random(0)
    times: dict[str, list[float]] = {"plane_detection": [], "resnet152": [], "keyword": []}
    change_s, end_s = CHANGE_S * scale, END_S * scale
    for begin_s, until_s, faster in ((0.0, change_s, 1.0), (change_s, end_s, 2.0)):
        seconds = until_s - begin_s
        frames = (begin_s + n / (30 * faster) for n in range(round(30 * faster * seconds)))
        times["plane_detection"] += [due_s for due_s in frames if draw.random() < 0.5]
        pictures = sorted(
            begin_s + seconds * draw.random() for _ in range(round(37.5 * faster * seconds))
        )
        times["resnet152"] += pictures
        times["keyword"] += [begin_s + n / (3 * faster) for n in range(round(3 * faster * seconds))]
    free = ModelSpec(source="zoo:lenet")
    before = {
        "plane_detection": free,
        "resnet152": free,
        "keyword": free.model_copy(update={"deadline": 0.1}),
    }
    urgent = free.model_copy(update={"deadline": 0.011})
    return Drift.of(times, before, {**before, "plane_detection": urgent}, scale)


CASES: Mapping[str, Callable[[float], Drift]] = {"gaming": gaming, "motion": motion}


def _times(scenario: Scenario, name: str, begin_s: float, end_s: float) -> Iterator[float]:
    rate = Load(scenario).open_rates_per_s()[name]
    count = math.floor((end_s - begin_s) * rate + 0.5)
    return (begin_s + number / rate for number in range(count))


@dataclass(slots=True)
class Shares:
    """Counts the frames with deadlines that were answered in time, by when they were due.

    Attributes:
        bucket_s: How long is counted together.
    """

    bucket_s: float
    begin_s: float = 0.0
    came: dict[int, int] = field(default_factory=dict)
    kept: dict[int, int] = field(default_factory=dict)
    good: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    note: Callable[[object], None] = lambda _: None

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """Count what comes, and what is answered in time."""
        if isinstance(event, Arrived):
            self.note(event.request)
            if event.request.deadline_s < math.inf:
                at = self._bucket(event.request.arrival_s)
                self.came[at] = self.came.get(at, 0) + 1
        for command in commands:
            if not isinstance(command, Reply):
                continue
            request = command.request
            name = request.model
            self.answered[name] = self.answered.get(name, 0) + 1
            if command.outcome is Outcome.COMPLETED and now <= request.deadline_s:
                self.good[name] = self.good.get(name, 0) + 1
                if request.deadline_s < math.inf:
                    at = self._bucket(request.arrival_s)
                    self.kept[at] = self.kept.get(at, 0) + 1

    def _bucket(self, at_s: float) -> int:
        return math.floor((at_s - self.begin_s) / self.bucket_s + 1e-9)

    def tallies(self) -> dict[str, Tally]:
        """Return what was answered by model, as an engine does."""
        return {name: Tally(self.good.get(name, 0), n) for name, n in self.answered.items()}

    def shares(self) -> list[float]:
        """Return the share in time of each."""
        return [self.kept.get(at, 0) / self.came[at] for at in sorted(self.came)]


class Change(NamedTuple):
    """A change of the policy: when, and to which."""

    at_s: float
    policy: str


def simulated(drift: Drift, plan: Plan, choice: PolicyChoice) -> list[float]:
    """Simulate the load under one policy; return the shares in time."""
    shares = Shares(BUCKET_S * drift.scale)
    simulation = _simulation(drift, plan, choice, shares)
    simulation.run(drift.change_s)
    simulation.promise(drift.after)
    simulation.run()
    return shares.shares()


def simulated_auto(
    drift: Drift, plan: Plan, review_s: float, auto: AutoPolicy
) -> tuple[list[float], list[Change]]:
    """Simulate it under `auto`, and return the changes of the policy, too."""
    controller = PolicyController(auto, 0.0)
    shares = Shares(BUCKET_S * drift.scale, note=controller.seen.note)  # type: ignore[arg-type]
    simulation = _simulation(drift, plan, plan.policy, shares)
    changes, now = [], 0.0
    while now < drift.end_s:
        now = _run(simulation, drift, now, now + controller.due_in_s(now))
        due = controller.look(now, shares.tallies(), plan.policy)
        if isinstance(due, Verdict):
            plan = _changed(simulation, plan, due, now)
            changes.append(Change(now, due.policy.text))
        if not isinstance(due, Due):
            continue
        asked = Review(
            plan=plan, requests=due.requests, limits=drift.load.limits, budget=auto.budget
        )
        advice = review(asked)
        now = _run(simulation, drift, now, now + review_s)
        verdict = controller.judge(due, plan.policy, advice)
        if verdict.policy != plan.policy:
            changes.append(Change(now, verdict.policy.text))
        plan = _changed(simulation, plan, verdict, now)
    simulation.run()
    return shares.shares(), changes


def _changed(simulation: Simulation, plan: Plan, verdict: Verdict, now: float) -> Plan:
    """Do what a verdict says."""
    policy = verdict.policy
    if policy != plan.policy:
        simulation.change_policy(make_policy(policy.name, **policy.options), policy, now)
    return plan.with_policy(policy, verdict.why)


def _simulation(drift: Drift, plan: Plan, choice: PolicyChoice, shares: Shares) -> Simulation:
    policy = make_policy(choice.name, **choice.options)
    load, limits = Load(drift.load), drift.load.limits
    return Simulation(plan, policy, load, drift.before, shares, limits=limits)


def _run(simulation: Simulation, drift: Drift, now: float, until_s: float) -> float:
    """Go on until a moment; the promises change on the way."""
    if now < drift.change_s <= until_s:
        simulation.run(drift.change_s)
        simulation.promise(drift.after)
    simulation.run(until_s)
    return until_s


def real(drift: Drift, plan: Plan, policy: str | AutoPolicy) -> tuple[list[float], list[Change]]:
    """Run the load on an engine whose processors only wait; return shares and changes."""
    expected_s = plan.profile.expected_s

    def service_s(model: str, processor: str, batch: int) -> float:
        return expected_s(model, processor, batch=batch) or 0.0

    processors = [replace(each, backend="null") for each in plan.processors]
    model = tiny_linear().model
    feed = model.sample_inputs()
    shares, changes = Shares(BUCKET_S * drift.scale), []
    with Engine(
        dict.fromkeys(plan.models, model),
        processors=processors,
        profile=plan.profile,
        policy=policy,
        backends={"null": NullBackend(service_s)},
        limits=drift.load.limits,
        pin=False,
    ) as engine:
        shares.begin_s = begin_s = clock.now() + 0.1
        engine.attach(shares)
        before = engine.policy
        for due in Load(drift.load).in_order() or ():
            time.sleep(max(0.0, begin_s + due.time_s - clock.now()))
            spec = (drift.before if due.time_s < drift.change_s else drift.after)[due.model]
            engine.submit(
                due.model,
                feed,
                deadline_s=spec.deadline_s,
                priority=spec.priority,
                on_late=spec.on_late,
                due_s=begin_s + due.time_s,
            )
            if engine.policy != before:
                before = engine.policy
                changes.append(Change(due.time_s, before.text))
        print(f"  {engine.policy_why}")
        for warning in engine.warnings:
            print(f"  warning: {warning}")
    return shares.shares(), changes


def main() -> int:
    """Run and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the time")
    parser.add_argument("--real", action="store_true", help="on an engine, in real time")
    parser.add_argument("--scale", type=float, default=1.0, help="of all times")
    parser.add_argument("--review", type=float, default=10.0, help="seconds that one takes")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=[*CASES])
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.scale = 0.1
    console = new_console()
    print_environment(console)
    requirements: list[Requirement] = []
    for case in arguments.cases:
        console.print(f"{case}:")
        requirements += _compared(case, arguments, console)
    return print_requirements(console, requirements)


def _compared(case: str, arguments: argparse.Namespace, console: Console) -> list[Requirement]:
    """Run one load under `auto` and others, and print the shares."""
    scale = arguments.scale
    drift, plan = CASES[case](scale), Plan.of(load_machine(MACHINE))
    plan = replace(plan, models={name: plan.models[name] for name in drift.before})
    auto = AutoPolicy(interval_s=AutoPolicy().interval_s * scale)
    with OtherWork() as other:
        choices = candidates(drift.load, plan)[0]
        fixed = {each.text: simulated(drift, plan, each) for each in choices}
        default = plan.policy.text
        first, back = round(CHANGE_S / BUCKET_S), round((CHANGE_S + BACK_S) / BUCKET_S)
        # The first is taken of those that are alike, which is the default if it is one of them.
        best = [
            max(fixed, key=lambda name: round(_mean(fixed[name][part]), 3))
            for part in (slice(0, first), slice(back, None))
        ]
        if arguments.real:
            found, changes = real(drift, plan, auto)
            names = dict.fromkeys([default, *best])
            by_text = {each.text: each for each in choices}
            fixed = {name: real(drift, plan, by_text[name].name)[0] for name in names}
        else:
            found, changes = simulated_auto(drift, plan, arguments.review * scale, auto)
    rows = {"auto": found} | {name: fixed[name] for name in dict.fromkeys([default, *best])}
    table = new_table(["due, s"], rows, wraps=True)
    for at in range(len(found)):
        moment = f"{at * BUCKET_S * scale:g} to {(at + 1) * BUCKET_S * scale:g}"
        table.add_row(moment, *(f"{row[at]:.3f}" for row in rows.values()))
    console.print(table)
    console.print(f"best before the change: {best[0]}; after it: {best[1]}")
    for change in changes:
        console.print(f"{change.at_s:.1f} s: {change.policy}")
    console.print(other.note)
    return [
        Requirement(
            what=f"auto of the best policy, from {BACK_S * scale:g} s after the change on",
            value=_mean(found[back:]) / _mean(fixed[best[1]][back:]),
            required=NEAR,
            remark=case,
        ),
        _before(found[:first], fixed[default][:first], is_real=arguments.real),
    ]


def _before(auto: Sequence[float], default: Sequence[float], *, is_real: bool) -> Requirement:
    if is_real:
        return Requirement(
            what="auto of the default before the change",
            value=_mean(auto) / _mean(default),
            required=0.99,
            remark="the same policy in two runs, which differ by chance",
        )
    return Requirement(
        what="auto of the default before the change, worst ten seconds",
        value=min(a / b if b else 1.0 for a, b in zip(auto, default, strict=True)),
        required=1.0,
    )


def _mean(shares: Sequence[float]) -> float:
    return math.fsum(shares) / len(shares)


if __name__ == "__main__":
    raise SystemExit(main())
