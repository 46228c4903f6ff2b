"""Cost of one scheduling decision, by policy and by number of queued requests.

    python benchmarks/decisions.py [POLICY...]

One decision is `handle(Finished)`: the reply, the policy's choice among all that waits, and the
command that starts the next execution. The queue is kept at its length by an arrival after each
decision, which is not timed. The machine is six processors over two cores (two backends on each
core and on both), the models are three. The last column is the uncontended path: an arrival at an
idle machine with the start of its execution, and the end of it with the reply.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich import box
from rich.console import Console
from rich.table import Table

from coinfer.core.commands import Execution, Run
from coinfer.core.dispatcher import Dispatcher
from coinfer.core.events import Arrived, Finished, ModelLoaded
from coinfer.policies import make_policy, policy_names
from coinfer.processor import Processor
from coinfer.testing.machine import profile, request
from environment import OtherWork, print_environment
from requirement import WIDTH, Requirement, print_requirements

QUEUED = (10, 100, 1_000, 10_000, 100_000)
LIMIT_US = 100.0
LIMIT_AT = 1_000
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


class Bench:
    """A dispatcher whose queue is kept at one length."""

    def __init__(self, policy: str, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.core = Dispatcher(machine(), make_policy(policy, **_OPTIONS.get(policy, {})))
        for model, model_s in _SECONDS.items():
            self.core.handle(ModelLoaded(model, 1, profile(model, _seconds(model_s))), 0.0)
        self.now = 0.0
        self.running: list[Execution] = []
        self.n_arrived = 0

    def arrive(self) -> None:
        """Let a request of a random model arrive."""
        self.n_arrived += 1
        model = self.random.choice(list(_SECONDS))
        event = Arrived(request(model, id=self.n_arrived, arrival_s=self.now))
        self._note(self.core.handle(event, self.now))

    def finish(self) -> float:
        """Let the execution that ends first end; return the seconds that the decision took."""
        execution = min(self.running, key=lambda e: e.expected_end_s)
        self.running.remove(execution)
        self.now = max(self.now, execution.expected_end_s)
        event = Finished(execution.id, execution.expected_s)
        began = perf_counter()
        commands = self.core.handle(event, self.now)
        took_s = perf_counter() - began
        self._note(commands)
        return took_s

    def _note(self, commands: list) -> None:
        self.running += [c.execution for c in commands if isinstance(c, Run)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the garbage collector out of single measurements, as `timeit` does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def decisions_us(policy: str, queued: int, repeats: int) -> list[float]:
    """Microseconds of each of `repeats` decisions with `queued` requests waiting."""
    bench = Bench(policy)
    while bench.core.view.n_waiting < queued:
        bench.arrive()
    took = []
    with quiet():
        for _ in range(repeats):
            took.append(bench.finish() * 1e6)
            while bench.core.view.n_waiting < queued:
                bench.arrive()
    return took


def uncontended_us(policy: str, repeats: int) -> list[float]:
    """Microseconds in the core of requests that find an idle machine."""
    core = Bench(policy).core
    took = []
    with quiet():
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


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _row(policy: str, repeats: int) -> tuple[list[str], list[Requirement]]:
    """Cells of the table, and what the policy must reach."""
    took = {queued: decisions_us(policy, queued, repeats) for queued in QUEUED}
    median = {queued: statistics.median(each) for queued, each in took.items()}
    cells = [f"{median[queued]:.1f} {_p99(took[queued]):6.1f}" for queued in QUEUED]
    alone = uncontended_us(policy, repeats)
    cells.append(f"{statistics.median(alone):.1f} {_p99(alone):6.1f}")
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
    parser.add_argument("--repeats", type=int, default=2_000)
    arguments = parser.parse_args()
    console = Console(width=WIDTH)
    print_environment(console)
    console.print("microseconds per decision, median and p99, by number of queued requests")
    table = Table("", box=box.SIMPLE_HEAD, highlight=False)
    for header in (*(f"{queued:,}" for queued in QUEUED), "uncontended"):
        table.add_column(header, justify="right", no_wrap=True)
    requirements: list[Requirement] = []
    with OtherWork() as other:
        for policy in arguments.policies:
            cells, required = _row(policy, arguments.repeats)
            table.add_row(policy, *cells)
            requirements += required
    console.print(table)
    console.print(other.note, highlight=False)
    return print_requirements(console, requirements)


if __name__ == "__main__":
    raise SystemExit(main())
