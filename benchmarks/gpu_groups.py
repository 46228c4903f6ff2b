"""Part d of `gpu.py`: decomposed networks by groups of layers, against a process per network.

The experiment of JKIICE 26(6):842-849 (2022): four copies of a network answer one request each at
the same time, which takes until all have answered. Ranks are the paper's ratios; weights and
factors are random, so this is about time alone. Each way runs originals and decomposed networks.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import coinfer
from coinfer.graph.compressing.alone import imagined_factors
from coinfer.graph.compressing.decompose import decomposed
from coinfer.graph.compressing.layers import Layers
from coinfer.graph.compressing.rank_rule import RankRule
from coinfer.graph.cost import operator_costs, total
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.graph.shapes import bind_shapes
from coinfer.machine.processor import Processor
from coinfer.model import Model
from gpu_peers import PEERS, GraphsOnStreams, translated
from gpu_setting import Setting, Table, turns, zoo

__all__ = ["part_d"]

RATIOS = {"vgg16": 0.32, "inception_v3": 0.31, "resnet152": 0.37}
TINY = {"small_resnet": 0.4}
COPIES = 4
JOB_S = 0.002
"""A job of layers takes so long at most, by measured time, unless it is a single layer."""


def part_d(setting: Setting, seconds: float) -> Iterator[Table]:
    """Compare a process each, threads with a stream each, and coinfer's queue of jobs."""
    networks = TINY if setting.is_tiny else RATIOS
    copies = 2 if setting.is_tiny else COPIES
    ends = time.perf_counter() + seconds
    table = Table(
        f"{copies} copies answer one request each: milliseconds until all have",
        ["network", "form", "processes", "threads", "coinfer", "less than originals in processes"],
    )
    for number, (name, ratio) in enumerate(networks.items(), start=1):
        left_s = ends - time.perf_counter()
        if left_s <= 0:
            table.notes.append(f"The time was over before {name}")
            break
        each_s = left_s / (len(networks) + 1 - number) / 4  # starting and loading take the rest
        original = zoo(name)
        smaller = _decomposed(original, ratio)
        removed = 1 - _macs(smaller) / _macs(original)
        table.notes.append(f"{name}: {removed:.1%} of the operations removed")
        times: dict[str, dict[str, float]] = {}
        with TemporaryDirectory() as folder, ExitStack() as stack:
            arms: dict[str, Callable[[], object]] = {}
            for form, model in (("original", original), ("decomposed", smaller)):
                models = [model.renamed(f"{form}{at}") for at in range(copies)]
                path = Path(folder) / f"{form}.onnx"
                path.write_bytes(model.to_bytes())
                arms[f"{form} processes"] = _processes(stack, [path] * copies, setting)
                arms[f"{form} threads"] = _threads(models, setting)
                arms[f"{form} coinfer"] = _queue(stack, models, setting, each_s)
            for arm, taken in turns(arms, each_s).items():
                form, way = arm.split()
                times.setdefault(form, {})[way] = statistics.median(taken)
        base_s = times["original"]["processes"]
        for form, row in times.items():
            texts = [f"{row[way] * 1e3:.2f}" for way in ("processes", "threads", "coinfer")]
            table.rows.append([name, form, *texts, f"{1 - row['coinfer'] / base_s:.1%}"])
    yield table


def _decomposed(model: Model, ratio: float) -> Model:
    """Decompose convolutions at a ratio of their channels, with random numbers as factors."""
    layers = Layers.of(model.graph)
    ranks = RankRule.parse(f"ratio:{ratio}").ranks(layers, {}, None)
    chosen = [layer for layer in layers if layer.key in ranks]
    factors = {layer.key: imagined_factors(layer, ranks[layer.key]) for layer in chosen}
    return model.with_graph(decomposed(model.graph, factors))


def _macs(model: Model) -> int:
    return total(operator_costs(bind_shapes(model.graph))).macs or 1


def _processes(stack: ExitStack, paths: Sequence[Path], setting: Setting) -> Callable[[], object]:
    command = [sys.executable, str(Path(__file__).with_name("gpu_process.py"))]
    children = [
        subprocess.Popen(
            [*command, str(path), str(setting.device)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        for path in paths
    ]
    for child in children:
        stack.callback(child.communicate)

    def heard() -> None:
        for child in children:
            if child.stdout is None or not child.stdout.readline():
                raise RuntimeError(f"{' '.join(map(str, child.args))} ended")

    def run() -> None:
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"\n")
        heard()

    heard()  # all are loaded
    return run


def _threads(models: Sequence[Model], setting: Setting) -> Callable[[], object]:
    """Return what runs all at once, a thread and, on a GPU, a stream with a graph for each."""
    kind = GraphsOnStreams if setting.device.type == "cuda" else PEERS["in sequence"]
    programs = translated(models, setting.device)
    pairs = zip(models, programs, strict=True)
    peers = [kind([model], setting.device, [program]) for model, program in pairs]
    feeds = [model.sample_inputs(seed=1) for model in models]
    for peer, feed in zip(peers, feeds, strict=True):
        peer.round([feed])  # recorded one after the other: torch asks for that

    def run() -> None:
        together = zip(peers, feeds, strict=True)
        threads = [threading.Thread(target=peer.round, args=([feed],)) for peer, feed in together]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def _queue(
    stack: ExitStack, models: Sequence[Model], setting: Setting, seconds: float
) -> Callable[[], object]:
    """Return what asks coinfer: jobs of layers in one queue, a worker with a stream for each."""
    workers: Sequence[Processor] = setting.processors
    if setting.device.type == "cuda":
        workers = [
            Processor(
                name=f"stream{at}",
                backend="torch",
                device=setting.first.device,
                units=frozenset({f"stream{at}"}),
            )
            for at in range(len(models))
        ]
    engine = stack.enter_context(
        coinfer.Engine(
            {model.name: model for model in models},
            processors=workers,
            policy="fcfs",
            partition=PartitionOptions(mode=Mode.UNIT, max_span_s=JOB_S),
            batch="off",
            fuse="never",
            measure_s=seconds,
        )
    )
    feeds = {model.name: model.sample_inputs(seed=1) for model in models}

    def run() -> None:
        for answer in [engine.submit(name, feed) for name, feed in feeds.items()]:
            answer.result()

    return run
