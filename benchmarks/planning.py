"""Cost of planning one decision for partitioned models, by policy.

    python benchmarks/planning.py [POLICY...]

One decision is `handle(Finished)`: what follows from the end of one step, the new best ways after
its estimate changed, the policy's choice among 50 waiting requests, and the start of the next step.
The queue is kept at its length by arrivals after each decision, which are not timed. The machine
has six processors, the models have 20 units each, and every span that a processor can run is
allowed ("merged"). Two machines: six processors that can all run everything (1,260 spans of each
model), and accelerators with gaps (two processors run everything, four leave out some units). The
limit is for the policies that plan, with their default window; the others, and a window as long as
the queue, are shown beside them.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
from collections.abc import Collection, Mapping
from time import perf_counter

from rich import box
from rich.console import Console
from rich.table import Table

from coinfer.core.commands import Execution, Run
from coinfer.core.dispatcher import Dispatcher
from coinfer.core.events import Arrived, Finished, ModelLoaded
from coinfer.policies import make_policy, policy_names
from coinfer.profiles import Measurement, Profile, ProfileKey, Span
from coinfer.testing.machine import processors, request
from environment import OtherWork, print_environment
from requirement import WIDTH, Requirement, print_requirements

UNITS = 20
QUEUED = 50
MODELS = 5
LIMIT_US = 200.0
PROCESSORS = ("cpu0", "cpu1", "npu0", "npu1", "gpu", "dsp")
_SPEED = {"cpu0": 1.0, "cpu1": 1.0, "npu0": 5.0, "npu1": 4.0, "gpu": 6.0, "dsp": 2.0}
_CROSSING_S = 2e-4
_OPTIONS = {"fixed": {"assignment": {f"m{at}": PROCESSORS[at] for at in range(MODELS)}}}
_PLANNING = (
    "heft",
    "heft_reserved",
    "least_slack",
    "shortest_expected_latency",
    "two_queues",
)
_WHOLE_WINDOW = {name: {"window": QUEUED} for name in _PLANNING if name != "two_queues"}

Gaps = Mapping[str, Collection[int]]

MACHINES: Mapping[str, Gaps] = {
    "alike": {},
    "with gaps": {
        "npu0": range(0, UNITS, 3),
        "npu1": range(1, UNITS, 4),
        "gpu": (4, 5, 12),
        "dsp": range(0, UNITS, 2),
    },
}


def partitioned(model: str, gaps: Gaps, seed: int) -> Profile:
    """A model of 20 units of unlike cost; a span costs its parts and one crossing."""
    draw = random.Random(seed)
    unit_s = [draw.uniform(0.2e-3, 2e-3) for _ in range(UNITS)]
    found = {}
    for name in PROCESSORS:
        taste = [draw.uniform(0.5, 2.0) for _ in range(UNITS)]
        for first in range(UNITS):
            seconds = _CROSSING_S
            for last in range(first, UNITS):
                if last in gaps.get(name, ()):
                    break
                seconds += unit_s[last] * taste[last] / _SPEED[name]
                key = ProfileKey(model, name, 1, Span(first, last))
                found[key] = Measurement(seconds=(seconds,))
    return Profile(found)


class Bench:
    """A dispatcher of partitioned models whose queue is kept at one length."""

    def __init__(self, policy: str, options: Mapping[str, object], gaps: Gaps) -> None:
        self.random = random.Random(0)
        self.core = Dispatcher(
            processors(*PROCESSORS), make_policy(policy, **_OPTIONS.get(policy, {}), **options)
        )
        for at in range(MODELS):
            profile = partitioned(f"m{at}", gaps, at)
            self.core.handle(ModelLoaded(f"m{at}", UNITS, profile), 0.0)
        self.now = 0.0
        self.running: list[Execution] = []
        self.n_arrived = 0

    def fill(self) -> None:
        """Let requests of random models arrive until the queue has its length."""
        while self.core.view.n_waiting < QUEUED:
            self.n_arrived += 1
            model = f"m{self.random.randrange(MODELS)}"
            # Every other one has a deadline: two queues get work in both.
            deadline = {"deadline_s": self.now + 10.0} if self.n_arrived % 2 else {}
            event = Arrived(request(model, id=self.n_arrived, arrival_s=self.now, **deadline))
            self._note(self.core.handle(event, self.now))

    def finish(self) -> float:
        """Let the step that ends first end; return the seconds that the decision took."""
        execution = min(self.running, key=lambda e: e.expected_end_s)
        self.running.remove(execution)
        # No step takes what was expected: estimates change at each end.
        took_s = execution.expected_s * self.random.uniform(0.9, 1.1)
        self.now = max(self.now, execution.started_s + took_s)
        event = Finished(execution.id, took_s)
        began = perf_counter()
        commands = self.core.handle(event, self.now)
        decided_s = perf_counter() - began
        self._note(commands)
        return decided_s

    def _note(self, commands: list) -> None:
        self.running += [c.execution for c in commands if isinstance(c, Run)]


def decisions_us(
    policy: str, options: Mapping[str, object], gaps: Gaps, repeats: int
) -> list[float]:
    """Microseconds of each of `repeats` decisions."""
    bench = Bench(policy, options, gaps)
    bench.fill()
    took = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            took.append(bench.finish() * 1e6)
            bench.fill()
    finally:
        gc.enable()
    return took


def _row(
    policy: str, options: Mapping[str, object], repeats: int
) -> tuple[list[str], list[Requirement]]:
    """Cells of the table, and what the policy must reach."""
    cells = [policy, ", ".join(f"{k} {v}" for k, v in options.items())]
    requirements = []
    for machine, gaps in MACHINES.items():
        took = decisions_us(policy, options, gaps, repeats)
        median = statistics.median(took)
        cells.append(f"{median:.1f} {statistics.quantiles(took, n=100)[98]:6.1f}")
        if policy in _PLANNING and not options:
            requirements.append(
                Requirement(
                    what=f"{policy}: median, {machine}",
                    value=median,
                    required=LIMIT_US,
                    at_most=True,
                    unit=" us",
                )
            )
    return cells, requirements


def main() -> int:
    """Print the table; the exit status is 1 if a policy that plans misses the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policies", nargs="*", default=policy_names(), metavar="POLICY")
    parser.add_argument("--repeats", type=int, default=1_000)
    arguments = parser.parse_args()
    console = Console(width=WIDTH)
    print_environment(console)
    console.print(
        f"microseconds per decision, median and p99: {UNITS} units x {len(PROCESSORS)} processors "
        f"x {QUEUED} queued requests of {MODELS} models"
    )
    table = Table("", "options", box=box.SIMPLE_HEAD, highlight=False)
    for machine in MACHINES:
        table.add_column(machine, justify="right", no_wrap=True)
    requirements: list[Requirement] = []
    with OtherWork() as other:
        for policy in arguments.policies:
            for options in ({}, *([_WHOLE_WINDOW[policy]] if policy in _WHOLE_WINDOW else [])):
                cells, required = _row(policy, options, arguments.repeats)
                table.add_row(*cells)
                requirements += required
    console.print(table)
    console.print(other.note, highlight=False)
    return print_requirements(console, requirements)


if __name__ == "__main__":
    raise SystemExit(main())
