"""What cutting costs: a network in k spans on one processor against the whole.

    python benchmarks/cuts.py [--quick]

One core, onnxruntime with one thread, the spans called one after the other with the intermediates
passed by reference. Whole and cut alternate within each round. onnxruntime keeps activations in
blocks of channels inside a session and converts them back at its borders; that is what a cut costs.
The last column shows what it would cost without that: the same number of cuts in the graph that
onnxruntime has optimised, where the blocks cross the border as they are. coinfer does not cut there
yet.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from rich import box
from rich.console import Console
from rich.table import Table

from coinfer import Processor, zoo
from coinfer.backends import get_backend
from coinfer.backends.base import Session
from coinfer.graph import Operators, Partition, PartitionOptions, choose_partition, extract
from coinfer.hardware.cores import available_cores
from coinfer.hardware.pinning import pin_current_thread
from coinfer.model import Model, model_from_ir
from coinfer.profiles import Span
from environment import OtherWork, print_environment
from requirement import WIDTH, Requirement, print_requirements

NETWORKS = ("resnet50", "mobilenet_v2")
PIECES = (2, 4, 8)
LIMIT_AT, LIMIT = 4, 1.05

Run = Callable[[], object]


def main() -> int:
    """Measure and print; the exit status is 1 if the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works")
    rounds = 5 if parser.parse_args().quick else 60
    console = Console(width=WIDTH)
    print_environment(console)
    pin_current_thread(available_cores()[:1])
    table = Table("network", "spans", box=box.SIMPLE_HEAD, highlight=False)
    for header in ("whole ms", "cut ms", "cost", "crossing", "in the optimised graph"):
        table.add_column(header, justify="right")
    requirements = []
    with OtherWork() as other, TemporaryDirectory(prefix="cuts-") as folder:
        for name in NETWORKS:
            for pieces in PIECES:
                ratio = _row(table, name, pieces, rounds, Path(folder))
                if pieces == LIMIT_AT:
                    what = f"{name} in {pieces} spans / whole"
                    requirements.append(
                        Requirement(what=what, value=ratio, required=LIMIT, at_most=True)
                    )
    console.print(table)
    console.print(other.note, highlight=False)
    return print_requirements(console, requirements)


def _row(table: Table, name: str, pieces: int, rounds: int, folder: Path) -> float:
    model = model_from_ir(zoo.build(name), name=name)
    feed = model.sample_inputs()
    cpu = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core"}))
    partition = _cut(model, pieces)
    spans = [Span(at, at) for at in range(len(partition.units))]
    backend = get_backend("onnxruntime")
    legs = [(partition.reads(s), backend.load(extract(model, partition, s), cpu)) for s in spans]
    whole = backend.load(model, cpu)
    optimised = _optimised(model, pieces, folder)
    ways: dict[str, Run] = {
        "whole": partial(whole.run, feed),
        "cut": partial(_chain, legs, feed),
        "optimised": partial(_chain_optimised, optimised, feed),
    }
    took = _alternate(ways, rounds)
    median = {way: statistics.median(seconds) for way, seconds in took.items()}
    crossing = sum(border.bytes or 0 for border in partition.borders[1:])
    table.add_row(
        name,
        str(len(spans)),
        f"{median['whole'] * 1e3:.2f}",
        f"{median['cut'] * 1e3:.2f}",
        f"{_ratio(took, 'cut') - 1:+.1%}",
        f"{crossing / 2**10:,.0f} KiB",
        f"{_ratio(took, 'optimised') - 1:+.1%} in {len(optimised)}",
    )
    return _ratio(took, "cut")


def _cut(model: Model, pieces: int) -> Partition:
    everything = frozenset(range(len(Operators.of(model.graph))))
    return choose_partition(model, {"cpu": everything}, PartitionOptions(pieces=pieces))


def _chain(legs: Sequence[tuple[tuple[str, ...], Session]], feed: Mapping[str, Any]) -> None:
    values = dict(feed)
    for reads, session in legs:
        values |= session.run({name: values[name] for name in reads})


def _alternate(ways: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 2):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            if number > 1:  # the first ones allocate
                took[way].append(time.perf_counter() - began)
    return took


def _ratio(took: Mapping[str, Sequence[float]], way: str) -> float:
    """Median over the rounds of the ratio within a round."""
    pairs = zip(took[way], took["whole"], strict=True)
    return statistics.median(mine / whole for mine, whole in pairs)


# cuts in the graph that onnxruntime has optimised

_Part = tuple[ort.InferenceSession, str, str]


def _session(model: str | bytes, *, optimise: bool, saved: Path | None = None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if saved is not None:
        options.optimized_model_filepath = str(saved)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _optimised(model: Model, pieces: int, folder: Path) -> list[_Part]:
    """Cut where one value crosses, after about equal numbers of convolutions."""
    (source,) = zoo.export([model.name], folder, seed=0)
    file = folder / f"{model.name}.optimised.onnx"
    _session(str(source), optimise=True, saved=file)
    graph = onnx.load(file)
    done = np.cumsum([node.op_type in ("Conv", "FusedConv") for node in graph.graph.node])
    crossings = _single_crossings(graph)
    wanted = [done[-1] * number / pieces for number in range(1, pieces)]
    chosen = {min(crossings, key=lambda c: abs(done[c[0] - 1] - goal)) for goal in wanted}
    borders = [
        (0, graph.graph.input[0].name),
        *sorted(chosen),
        (len(graph.graph.node), graph.graph.output[0].name),
    ]
    return [
        (_session(_part(graph, first, last, read, written), optimise=False), read, written)
        for (first, read), (last, written) in pairwise(borders)
    ]


def _single_crossings(model: onnx.ModelProto) -> list[tuple[int, str]]:
    """Positions in the order of the nodes that one value crosses, with its name."""
    graph = model.graph
    constant = {each.name for each in graph.initializer}
    last = {name: at for at, node in enumerate(graph.node) for name in node.input}
    last |= {each.name: len(graph.node) for each in graph.output}
    live: set[str] = {each.name for each in graph.input}
    found = []
    for at, node in enumerate(graph.node[:-1]):
        live = {n for n in live | set(node.output) if last.get(n, -1) > at and n not in constant}
        if len(live) == 1:
            found.append((at + 1, next(iter(live))))
    return found


def _part(model: onnx.ModelProto, first: int, last: int, read: str, written: str) -> bytes:
    nodes = model.graph.node[first:last]
    used = {name for node in nodes for name in node.input}
    given = {each.name: each for each in (*model.graph.input, *model.graph.output)}
    ends = [
        given.get(name) or onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in (read, written)
    ]
    weights = [each for each in model.graph.initializer if each.name in used]
    graph = onnx.helper.make_graph(nodes, "part", ends[:1], ends[1:], weights)
    made = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    return bytes(made.SerializeToString())


def _chain_optimised(parts: Sequence[_Part], feed: Mapping[str, Any]) -> None:
    (value,) = feed.values()
    for session, read, written in parts:
        (value,) = session.run([written], {read: value})


if __name__ == "__main__":
    raise SystemExit(main())
