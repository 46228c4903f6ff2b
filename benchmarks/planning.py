"""Cost of planning one decision for partitioned models, by policy.

    python benchmarks/planning.py [--quick] [POLICY...]

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
import random
import statistics
from collections.abc import Collection, Mapping

from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import processors
from environment import OtherWork, print_environment
from queued_core import QueuedCore, median_and_p99
from requirement import Requirement, print_requirements
from tables import new_console, new_table

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


def decisions_us(
    policy: str, options: Mapping[str, object], gaps: Gaps, repeats: int
) -> list[float]:
    """Microseconds of each of `repeats` decisions."""
    core = QueuedCore(
        processors(*PROCESSORS),
        make_policy(policy, **_OPTIONS.get(policy, {}), **options),
        {f"m{at}": partitioned(f"m{at}", gaps, at) for at in range(MODELS)},
        spread=0.1,  # no step takes what was expected: estimates change at each end
        deadlines=True,  # two queues get work in both
    )
    return core.decisions_us(QUEUED, repeats)


def _row(
    policy: str, options: Mapping[str, object], repeats: int
) -> tuple[list[str], list[Requirement]]:
    """Cells of the table, and what the policy must reach."""
    cells = [policy, ", ".join(f"{k} {v}" for k, v in options.items())]
    requirements = []
    for machine, gaps in MACHINES.items():
        took = decisions_us(policy, options, gaps, repeats)
        cells.append(median_and_p99(took))
        if policy in _PLANNING and not options:
            requirements.append(
                Requirement(
                    what=f"{policy}: median, {machine}",
                    value=statistics.median(took),
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
    parser.add_argument("--quick", action="store_true", help="few decisions: shows that it works")
    parser.add_argument("--repeats", type=int)
    arguments = parser.parse_args()
    repeats = arguments.repeats or (100 if arguments.quick else 1_000)
    console = new_console()
    print_environment(console)
    console.print(
        f"microseconds per decision, median and p99: {UNITS} units x {len(PROCESSORS)} processors "
        f"x {QUEUED} queued requests of {MODELS} models"
    )
    table = new_table(("", "options"), MACHINES)
    requirements: list[Requirement] = []
    with OtherWork() as other:
        for policy in arguments.policies:
            for options in ({}, *([_WHOLE_WINDOW[policy]] if policy in _WHOLE_WINDOW else [])):
                cells, required = _row(policy, options, repeats)
                table.add_row(*cells)
                requirements += required
    console.print(table)
    console.print(other.note)
    return print_requirements(console, requirements)


if __name__ == "__main__":
    raise SystemExit(main())
