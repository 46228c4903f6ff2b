"""Branches at the same time: a lone request on two cores, in line, forked, and with two threads.

    python benchmarks/branches.py [--quick]

Requests come one after the other, so nothing else runs. "one core" is the whole network with one
thread, "forked" the same network cut with `branches`, under `heft` on two processors of one thread
each, and "two threads" the whole network on one processor of both cores: where processors can be
made one, as two cores can, that is the peer to beat. All are engines and take turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter

import numpy as np
import onnx_ir as ir

from coinfer import Engine, Processor, zoo
from coinfer.backends.base import Tensors
from coinfer.core.commands import Command, Run
from coinfer.core.events import Event
from coinfer.graph.partition_options import PartitionOptions
from coinfer.hardware.cores import available_cores
from coinfer.metrics.paired import in_turn
from coinfer.model import Model, model_from_ir
from coinfer.planner.span_selection import prepare
from coinfer.profiling import Profiler, default_cache
from coinfer.zoo.builder import NetworkBuilder
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import Ratio, ratio_of
from tables import new_console, new_table

_TOLERANCE = 1e-5
"""Relative error of outputs, which differ only by the order of sums."""

_LIMIT = 0.75
"""What two towers on two processors may take of the time on one; half is the ideal."""


class Forks:
    """Observer that counts executions, and moments at which two of a request start."""

    def __init__(self) -> None:
        self.executions = 0
        self.forks = 0

    def observe(self, _event: Event, commands: Sequence[Command], _now: float) -> None:
        """Note a step of the core."""
        started = sum(type(command) is Run for command in commands)
        self.executions += started
        self.forks += started == 2


def two_towers() -> Model:
    """Two pictures through stacks of convolutions that share nothing, and a layer that compares."""
    net = NetworkBuilder("two_towers", seed=0)
    features = [_tower(net, side) for side in ("left", "right")]
    net.output(net.gemm(net.concat(features, name="concat"), 10, name="fc"), "logits")
    return model_from_ir(net.model("Two towers"), name="two_towers")


def _tower(net: NetworkBuilder, side: str) -> ir.Value:
    y = net.input(f"{side}_image", (3, 224, 224))
    with net.scope(side):
        for at, (channels, stride) in enumerate([(64, 4), (128, 1), (128, 1), (256, 2), (256, 1)]):
            y = net.relu(
                net.conv(y, channels, kernel=3, stride=stride, name=f"conv{at}"), name=f"relu{at}"
            )
        return net.flatten(net.global_average_pool(y, name="avgpool"), name="flatten")


def _processors() -> tuple[Processor, Processor, Processor]:
    first, second = available_cores()[:2]
    backend = "onnxruntime"
    return (
        Processor(name="one", backend=backend, units=frozenset({"a"}), cores=(first,)),
        Processor(name="other", backend=backend, units=frozenset({"b"}), cores=(second,)),
        Processor(
            name="both",
            backend=backend,
            units=frozenset({"a", "b"}),
            cores=(first, second),
            threads=2,
        ),
    )


def _row(model: Model, rounds: int) -> tuple[list[str], Ratio]:
    one, other, both = _processors()
    cut = prepare(
        model, (one, other), PartitionOptions(branches=True), Profiler(cache=default_cache())
    ).renamed("m")
    feed, seen = model.sample_inputs(), Forks()
    with ExitStack() as stack:
        engines = {
            "one": stack.enter_context(Engine({"m": model}, processors=[one])),
            "forked": stack.enter_context(
                Engine(
                    {"m": cut},
                    processors=[one, other],
                    profile=cut.profile,
                    policy="heft",
                    observer=seen,
                )
            ),
            "both": stack.enter_context(Engine({"m": model}, processors=[both])),
        }
        expected = engines["one"].infer("m", feed)
        took: dict[str, list[float]] = {name: [] for name in engines}
        for _, name in in_turn(engines, rounds):
            for _ in range(2):  # the first after another engine finds nothing in the caches
                began = perf_counter()
                outputs = engines[name].infer("m", feed)
                seconds = perf_counter() - began
            took[name].append(seconds)
            _check(outputs, expected)
    ratio = ratio_of(took["forked"], took["one"], larger_is_better=False).inverse
    runs = 2 * rounds
    return [
        model.name,
        f"{seen.executions / runs:.0f}",
        f"{seen.forks / runs:.0f}",
        *(f"{statistics.median(seconds) * 1e3:.2f}" for seconds in took.values()),
        str(ratio),
    ], ratio


def _check(outputs: Tensors, expected: Tensors) -> None:
    for name, value in expected.items():
        error = np.linalg.norm(outputs[name] - value) / np.linalg.norm(value)
        if not error <= _TOLERANCE:
            raise SystemExit(f"output {name!r} is wrong: relative error {error:.2g}")


def main() -> int:
    """Measure and print; the exit status is 1 if two towers gain too little."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    rounds = 3 if parser.parse_args().quick else 40
    if len(available_cores()) < 2:
        raise SystemExit("two cores are needed")
    console = new_console()
    print_environment(console)
    figures = ("executions", "forks", "one core, ms", "forked, ms", "two threads, ms")
    table = new_table(("network",), (*figures, "forked / one core"))
    requirements = []
    with OtherWork() as other:
        for model in (two_towers(), model_from_ir(zoo.build("inception_v3"), name="inception_v3")):
            cells, ratio = _row(model, rounds)
            table.add_row(*cells)
            if model.name == "two_towers":
                what = "two towers: forked / one core"
                requirements.append(
                    Requirement(
                        what=what,
                        value=ratio.median,
                        required=_LIMIT,
                        at_most=True,
                        remark=ratio.bounds,
                    )
                )
    console.print(table)
    console.print(other.note)
    return print_requirements(console, requirements)


if __name__ == "__main__":
    raise SystemExit(main())
