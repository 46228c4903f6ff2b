"""Whether `policy: auto` chooses well: beside every policy and the default, simulated.

    python benchmarks/policies_auto.py [--quick] [--scenarios NAME...] [--loads SHARE...]

XRBench's seven scenarios and DISB A to E on `lib:synthetic-edge`, at several rates: shares of the
largest ones that any schedule could serve, closed loops left out. `auto` chooses on one seed and is
judged on another, as every candidate is: by the share of frames that are answered in time, or the
rate of the most urgent models where nothing has a deadline. DISB B has no rates, only closed loops.
The bound is what no schedule can exceed in the long run (`coinfer bound`).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from coinfer.bound import sustainable_factor
from coinfer.experiments.deadline_bound import deadline_bound
from coinfer.experiments.policy_candidates import candidates
from coinfer.experiments.promises import Promises
from coinfer.experiments.shortening import most_requests, shortened
from coinfer.machine.machine_file import load_machine
from coinfer.plan import AUTO, Plan, PolicyChoice
from coinfer.planner.prepare import prepare
from coinfer.policies import make_policy
from coinfer.scenarios import library
from coinfer.sim import simulate
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table
from xrbench import MACHINE
from xrbench import SCENARIOS as XRBENCH

DISB = tuple(f"disb-{letter}" for letter in "abcde")
SCENARIOS = (*(f"xrbench-{name}" for name in XRBENCH), *DISB)
LOADS = (0.6, 0.9, 1.2)
REQUESTS = 3_000
"""On which a policy is judged."""

_CLEARLY = 1.2


class Case(NamedTuple):
    """A scenario at one rate.

    Attributes:
        scenario: Its name.
        load: The rates as a share of the bound; None where it has none.
        chosen: What `auto` chose.
        auto: Its figure.
        default: That of the default.
        best: That of the best policy.
        best_name: Which one that is.
        bound: The largest share in time of any schedule, as far as that is known.
    """

    scenario: str
    load: float | None
    chosen: str
    auto: float
    default: float
    best: float
    best_name: str
    bound: float | None

    @property
    def of_best(self) -> float:
        """The figure of `auto` as a share of the best one."""
        return self.auto / self.best if self.best else 1.0

    @property
    def of_default(self) -> float:
        """The same against the default."""
        return self.auto / self.default if self.default else math.inf if self.auto else 1.0


def main() -> int:
    """Simulate and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one scenario at one load")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--loads", nargs="+", type=float, default=LOADS)
    arguments = parser.parse_args()
    names, loads = arguments.scenarios, arguments.loads
    if arguments.quick:
        names, loads = names[:1], loads[:1]
    console = new_console()
    print_environment(console)
    with OtherWork() as other:
        cases = [case for name in names for case in _cases(name, loads)]
    table = new_table(
        ["scenario"], ["load", "auto", "best", "default", "bound", "of best", "of default"]
    )
    table.add_column("chosen", overflow="fold")
    table.add_column("best policy", overflow="fold")
    for case in cases:
        table.add_row(
            case.scenario,
            "-" if case.load is None else f"{case.load:.0%}",
            *(f"{figure:.4g}" for figure in (case.auto, case.best, case.default)),
            "-" if case.bound is None else f"{case.bound:.4g}",
            f"{case.of_best:.3f}",
            f"{case.of_default:.2f}",
            case.chosen,
            "any" if case.best == case.default == case.auto else case.best_name,
        )
    console.print(table)
    console.print(other.note)
    return print_requirements(console, list(_requirements(cases)))


def _cases(name: str, loads: Sequence[float]) -> Iterator[Case]:
    scenario = load_scenario(library.scenario_path(f"lib:{name}"))
    machine = load_machine(MACHINE)
    rates = Load(scenario).open_rates_per_s()
    bound = sustainable_factor(machine.profile, machine.processors, rates) if rates else None
    for load in loads if bound else [None]:
        yield _case(scenario.scaled((load or 1.0) * (bound or 1.0)), load)


def _case(scenario: Scenario, load: float | None) -> Case:
    ready = prepare(scenario.with_options(policy=AUTO), machine_file=MACHINE)
    # Its own plan may leave something out; all others get the plan as it is without `auto`.
    default = PolicyChoice()
    plain = prepare(scenario.with_options(policy=default.name), machine_file=MACHINE)
    judged = scenario.with_options(seed=scenario.seed + 1)
    judged = shortened(judged, REQUESTS / most_requests(judged, plain.plan))
    found = {
        name_of(each): _figure(judged, plain.plan, each)
        for each in candidates(plain.as_run, plain.plan)[0]
    }
    best = max(found, key=found.__getitem__)
    chosen = ready.plan.policy
    return Case(
        scenario=scenario.name,
        load=load,
        chosen=name_of(chosen),
        auto=_figure(judged, ready.plan, chosen),
        default=found[default.text],
        best=found[best],
        best_name=best,
        bound=deadline_bound(judged, plain.plan),
    )


def name_of(choice: PolicyChoice) -> str:
    """Return a name that fits into a table."""
    return choice.name if choice.name == "fixed" else choice.text


def _figure(scenario: Scenario, plan: Plan, choice: PolicyChoice) -> float:
    """Return the first figure that is not whether all is well."""
    counts = simulate(scenario, plan, make_policy(choice.name, **choice.options)).run_counts
    goals = Promises.of(scenario).goals
    return next(goal.measure(counts) for goal in goals if goal.text)


def _requirements(cases: Sequence[Case]) -> Iterator[Requirement]:
    yield Requirement(
        what="auto of the best policy, worst case",
        value=min(case.of_best for case in cases),
        required=0.98,
        at_most=False,
    )
    better = [case for case in cases if 0 < case.best >= _CLEARLY * case.default]
    known = [case.of_default for case in better if case.of_default < math.inf]
    if known:
        yield Requirement(
            what=f"auto of the default, geometric mean of {len(known)} where any is {_CLEARLY}x",
            value=math.exp(math.fsum(math.log(max(each, 1e-9)) for each in known) / len(known)),
            required=_CLEARLY,
            at_most=False,
        )


if __name__ == "__main__":
    raise SystemExit(main())
