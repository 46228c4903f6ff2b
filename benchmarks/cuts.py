"""What cutting costs: a network in k spans on one processor against the whole.

    python benchmarks/cuts.py [--quick]

One core, onnxruntime with one thread, the spans called one after the other as an engine calls them:
each gets what it reads, and what nobody reads any more is dropped. Whole and cut alternate within
each round. onnxruntime keeps activations in blocks of channels inside a session; parts of one
network hand them to each other like that. The last column shows what the same cuts cost if arrays
in the plain order cross the borders.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from coinfer import Processor, zoo
from coinfer.backends import get_backend
from coinfer.backends.base import Tensors
from coinfer.backends.values import Value, Values, run_part
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition, choose_partition
from coinfer.graph.partition_options import PartitionOptions
from coinfer.hardware.cores import available_cores
from coinfer.machine.span import Span
from coinfer.metrics.paired import in_turn
from coinfer.model import Model, model_from_ir
from coinfer.threads.pinning import pin_current_thread
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import Ratio, ratio_of
from tables import WIDTH

NETWORKS = ("resnet50", "mobilenet_v2")
PIECES = (2, 4, 8)
LIMIT_AT, LIMIT = 4, 1.05
CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core"}))

Run = Callable[[], object]


class Step(NamedTuple):
    """One span.

    Attributes:
        run: Runs it.
        reads: What it takes of the values that there are; None: all.
        keeps: What is still needed after it; None: just what it makes.
    """

    run: Callable[[Values], dict[str, Value]]
    reads: tuple[str, ...] | None
    keeps: tuple[str, ...] | None


def main() -> int:
    """Measure and print; the exit status is 1 if the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    rounds = 9 if parser.parse_args().quick else 60
    console = Console(width=WIDTH)
    print_environment(console)
    pin_current_thread(available_cores()[:1])
    table = Table("network", "spans", box=box.SIMPLE_HEAD, highlight=False)
    for header in ("whole ms", "cut ms", "cost", "crossing", "in plain order"):
        table.add_column(header, justify="right")
    requirements = []
    with OtherWork() as other:
        for name in NETWORKS:
            for pieces in PIECES:
                ratio = _row(table, name, pieces, rounds)
                if pieces == LIMIT_AT:
                    what = f"{name} in {pieces} spans / whole"
                    requirements.append(
                        Requirement(
                            what=what,
                            value=ratio.median,
                            required=LIMIT,
                            at_most=True,
                            remark=ratio.bounds,
                        )
                    )
    console.print(table)
    console.print(other.note, highlight=False)
    return print_requirements(console, requirements)


def _row(table: Table, name: str, pieces: int, rounds: int) -> Ratio:
    model = model_from_ir(zoo.build(name), name=name)
    feed = model.sample_inputs()
    partition = _cut(model, pieces)
    ways: dict[str, Run] = {
        "whole": partial(get_backend("onnxruntime").load(model, CPU).run, feed),
        "cut": partial(_chain, _steps(model, partition, plain=False), feed),
        "plain": partial(_chain, _steps(model, partition, plain=True), feed),
    }
    took = _alternate(ways, rounds)
    median = {way: statistics.median(seconds) for way, seconds in took.items()}
    crossing = sum(border.bytes or 0 for border in partition.borders[1:])
    table.add_row(
        name,
        str(len(partition.units)),
        f"{median['whole'] * 1e3:.2f}",
        f"{median['cut'] * 1e3:.2f}",
        _cost(_ratio(took, "cut")),
        f"{crossing / 2**10:,.0f} KiB",
        _cost(_ratio(took, "plain")),
    )
    return _ratio(took, "cut")


def _cost(ratio: Ratio) -> str:
    """What is added to the time of the whole, with the 95 % interval."""
    if ratio.paired is None:
        return f"{ratio.median - 1:+.1%}"
    low, high = ratio.paired.lower - 1, ratio.paired.upper - 1
    return f"{ratio.median - 1:+.1%} ({low:+.1%} to {high:+.1%})"


def _cut(model: Model, pieces: int) -> Partition:
    everything = frozenset(range(len(Operators.of(model.graph))))
    return choose_partition(model, {"cpu": everything}, PartitionOptions(pieces=pieces))


def _steps(model: Model, partition: Partition, *, plain: bool) -> list[Step]:
    steps = []
    for at in range(len(partition.units)):
        part = extract(model, partition, Span(at, at))
        if plain:  # loaded like a model of its own, whose values anybody may look at
            part = dataclasses.replace(part, borders=frozenset())
        session = get_backend("onnxruntime").load(part, CPU)
        reads, keeps = partition.reads(Span(at, at)), partition.keep_after(at + 1)
        all_of_it = set(reads) == partition.keep_after(at)
        nothing_else = keeps == set(partition.writes(Span(at, at)))
        steps.append(
            Step(
                run=partial(run_part, session),
                reads=None if all_of_it else reads,
                keeps=None if nothing_else else tuple(keeps),
            )
        )
    return steps


def _chain(steps: Sequence[Step], inputs: Tensors) -> None:
    values: Values = inputs
    for run, reads, keeps in steps:
        made = run(values if reads is None else {name: values[name] for name in reads})
        if keeps is None:
            values = made
        else:
            known = {**values, **made}
            values = {name: known[name] for name in keeps}


def _alternate(ways: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number, way in in_turn(ways, rounds + 2):
        began = time.perf_counter()
        ways[way]()
        if number > 1:  # the first ones allocate
            took[way].append(time.perf_counter() - began)
    return took


def _ratio(took: Mapping[str, Sequence[float]], way: str) -> Ratio:
    """How much longer a way takes than the whole network."""
    return ratio_of(took[way], took["whole"], larger_is_better=False).inverse


if __name__ == "__main__":
    raise SystemExit(main())
