"""Cost of one scheduling decision, by policy and by number of queued requests.

    python benchmarks/decisions.py [--quick] [POLICY...]

One decision is `handle(Finished)`: the reply, the policy's choice among all that waits, and the
command that starts the next execution. The queue is kept at its length by an arrival after each
decision, which is not timed. The machine is six processors over two cores (two backends on each
core and on both), the models are three. "Frames" is one event while frames with deadlines come
regularly, so that a policy may foresee them, and keep two thirds of the machine busy: the arrival
of one, or the end of an execution while another one waits. The last column is the uncontended path
of a lone request: its arrival at an idle machine with the start of its execution, and the end of it
with the reply.
"""

from __future__ import annotations

import argparse
import math
import statistics
from heapq import heappop, heappush, heapreplace
from itertools import count
from time import perf_counter

from coinfer.core.commands import Run
from coinfer.core.events import Arrived, Event, Finished
from coinfer.machine.processor import Processor
from coinfer.policies import make_policy, policy_names
from coinfer.testing.machine import profile, request
from environment import OtherWork, print_environment
from queued_core import QueuedCore, median_and_p99, undisturbed
from requirement import Requirement, print_requirements
from tables import new_console, new_table

QUEUED = (10, 100, 1_000, 10_000, 100_000)
LIMIT_US = 100.0
LIMIT_AT = 1_000
FRAMES_PER_S = {"small": 60.0, "middle": 20.0, "large": 20.0}
"""Frames have until the next one to be answered."""

_SECONDS = {"small": 0.004, "middle": 0.019, "large": 0.036}
_OPTIONS = {"fixed": {"assignment": {"small": "ort0", "middle": "ov1", "large": "ov0"}}}


def machine() -> list[Processor]:
    """Two cores, two backends on each, and each backend on both cores together."""
    places = {"0": ("core0",), "1": ("core1",), "01": ("core0", "core1")}
    return [
        Processor(name=backend + place, backend=backend, units=frozenset(units))
        for place, units in places.items()
        for backend in ("ort", "ov")
    ]


def _seconds(model_s: float) -> dict[str, float]:
    slower = {"ort": 1.0, "ov": 0.97}
    wide = 0.62  # two cores on one inference gain less than twice
    return {
        p.name: model_s * slower[p.backend] * (wide if len(p.units) > 1 else 1.0) for p in machine()
    }


def loaded(policy: str) -> QueuedCore:
    """A core with the three models loaded."""
    profiles = {model: profile(model, _seconds(model_s)) for model, model_s in _SECONDS.items()}
    return QueuedCore(machine(), make_policy(policy, **_OPTIONS.get(policy, {})), profiles)


def frames_us(policy: str, repeats: int) -> list[float]:
    """Microseconds of events with a decision while frames come regularly."""
    core = loaded(policy).core
    coming = [(0.001 * at, model) for at, model in enumerate(FRAMES_PER_S)]
    running: list[tuple[float, int, float]] = []
    took: list[float] = []
    numbers = count()
    with undisturbed():
        while len(took) < repeats:
            if running and running[0][0] <= coming[0][0]:
                now, number, seconds = heappop(running)
                event: Event = Finished(number, seconds)
                decides = core.view.n_waiting > 0
            else:
                now, model = coming[0]
                next_s = now + 1 / FRAMES_PER_S[model]
                heapreplace(coming, (next_s, model))
                asked = request(model, id=next(numbers), arrival_s=now, deadline_s=next_s)
                event, decides = Arrived(asked), True
            began = perf_counter()
            commands = core.handle(event, now)
            if decides:
                took.append((perf_counter() - began) * 1e6)
            for each in commands:
                if isinstance(each, Run):
                    begun = each.execution
                    heappush(running, (begun.expected_end_s, begun.id, begun.expected_s))
    return took


def uncontended_us(policy: str, repeats: int) -> list[float]:
    """Microseconds in the core of requests that find an idle machine."""
    core = loaded(policy).core
    took = []
    with undisturbed():
        for number in range(repeats):
            now = float(number)
            arrived = Arrived(request("small", id=number, arrival_s=now))
            began = perf_counter()
            commands = core.handle(arrived, now)
            middle = perf_counter()
            finished = Finished(commands[0].execution.id, 0.004)
            again = perf_counter()
            core.handle(finished, now + 0.004)
            took.append((middle - began + perf_counter() - again) * 1e6)
    return took


def _row(policy: str, repeats: int) -> tuple[list[str], list[Requirement]]:
    """Cells of the table, and what the policy must reach."""
    took = {queued: loaded(policy).decisions_us(queued, repeats) for queued in QUEUED}
    median = {queued: statistics.median(each) for queued, each in took.items()}
    frames = frames_us(policy, repeats)
    lone = uncontended_us(policy, repeats)
    cells = [median_and_p99(each) for each in (*took.values(), frames, lone)]
    least = QUEUED[0]
    growth = max(
        median[queued] / median[least] / (math.log(queued) / math.log(least))
        for queued in QUEUED[1:]
    )
    return cells, [
        Requirement(
            what=f"{policy}: median with {LIMIT_AT:,} queued",
            value=median[LIMIT_AT],
            required=LIMIT_US,
            at_most=True,
            unit=" us",
        ),
        Requirement(
            what=f"{policy}: median with regular frames",
            value=statistics.median(frames),
            required=LIMIT_US,
            at_most=True,
            unit=" us",
        ),
        Requirement(
            what=f"{policy}: growth with the queue / growth of its logarithm",
            value=growth,
            required=1.0,
            at_most=True,
        ),
    ]


def main() -> int:
    """Print the table; the exit status is 1 if a policy misses a limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policies", nargs="*", default=policy_names(), metavar="POLICY")
    parser.add_argument("--quick", action="store_true", help="few decisions: shows that it works")
    parser.add_argument("--repeats", type=int)
    arguments = parser.parse_args()
    repeats = arguments.repeats or (100 if arguments.quick else 2_000)
    console = new_console()
    print_environment(console)
    console.print("microseconds per decision, median and p99, by number of queued requests")
    table = new_table([""], [*(f"{queued:,}" for queued in QUEUED), "frames", "lone"])
    requirements: list[Requirement] = []
    with OtherWork() as other:
        for policy in arguments.policies:
            cells, required = _row(policy, repeats)
            table.add_row(policy, *cells)
            requirements += required
    console.print(table)
    console.print(other.note)
    return print_requirements(console, requirements)


if __name__ == "__main__":
    raise SystemExit(main())
