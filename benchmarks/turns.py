"""Brief runs in turns on one core against brief runs on both: where one stops being faster.

    python benchmarks/turns.py [--quick] [--widths 64 256] [--models 8] [--rounds 9]

M perceptrons of three dense layers of one width, on two cores. Each round asks all of them at once
and waits for all answers. Engines that differ in nothing but `Processor.wake_s` take turns: no run
is brief, or every run is. Each with fused runs, and with M requests of one of the models, which
may share runs. Ratios above 1 say that turns are faster, as `coinfer.metrics.paired` has them.
`coinfer.machine.processor.WAKE_S` is where they cross. For runs that are not shared there are no
turns: `apart` shows what these take.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import onnx_ir as ir

import coinfer
from coinfer import zoo
from coinfer.backends.base import Tensors
from coinfer.hardware.catalogue import default_processors
from coinfer.metrics.paired import LEAST_ROUNDS, in_turn
from coinfer.model import Model, model_from_ir
from coinfer.zoo.builder import NetworkBuilder
from environment import OtherWork, print_environment
from rounds import ratio_of
from tables import new_console, new_table


class Way(NamedTuple):
    """How engines differ.

    Attributes:
        wake_s: Of the processors: below that a run that may be shared is brief.
        fuse: Whether runs of several models may be one.
        batch: Whether requests of one model may share a run: then all are of the first model.
    """

    wake_s: float
    fuse: str = "never"
    batch: str = "off"


NONE, ALL = 0.0, 1.0
WAYS = {
    "apart": Way(NONE),
    "fused": Way(NONE, fuse="auto"),
    "fused, turns": Way(ALL, fuse="auto"),
    "batched": Way(NONE, batch="auto"),
    "batched, turns": Way(ALL, batch="auto"),
}


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    console, log = new_console(), new_console(stderr=True)
    print_environment(console)
    kinds = [name for name in WAYS if f"{name}, turns" in WAYS]
    table = new_table(
        ["network", "run"], [*WAYS, *(f"turns gain, {kind}" for kind in kinds)], wraps=True
    )
    with OtherWork() as other:
        for width in [*arguments.widths, *(["lenet"] if arguments.lenet else [])]:
            models = [_build(width, seed) for seed in range(arguments.models)]
            table.add_row(*_row(str(width), models, arguments))
            log.print(width)
    console.print(f"microseconds: of a run, and of a request where {arguments.models} are asked")
    console.print(table)
    console.print(other.note)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two widths, short rounds")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 384, 512, 768])
    parser.add_argument("--without-lenet", dest="lenet", action="store_false")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--seconds", type=float, default=0.1, help="of a round of one way")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.widths, arguments.seconds = [64, 512], 0.02
    return arguments


def _row(name: str, models: Sequence[Model], arguments: argparse.Namespace) -> list[str]:
    feeds = [model.sample_inputs(seed=at) for at, model in enumerate(models)]
    named = {model.name: model for model in models}
    two = [p for p in default_processors(["onnxruntime"]) if p.threads == 1][:2]
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        engines = {}
        for way, (wake_s, fuse, batch) in WAYS.items():
            processors = [dataclasses.replace(each, wake_s=wake_s) for each in two]
            engines[way] = stack.enter_context(
                coinfer.Engine(named, processors=processors, fuse=fuse, batch=batch)
            )
        own = [model.name for model in models]
        asked = {way: own[:1] * len(own) if WAYS[way].batch != "off" else own for way in WAYS}
        for way in WAYS:
            _measure(engines[way], asked[way], feeds, arguments.seconds)
        for _, way in in_turn(WAYS, arguments.rounds):
            seconds = _measure(engines[way], asked[way], feeds, arguments.seconds)
            times[way].append(seconds)
        profile = engines["apart"].plan.profile
        run_s = min(entry.mean_s for key, entry in profile if key.model == models[0].name)

    def gain(turns: str, both: str) -> str:
        return str(ratio_of(times[turns], times[both], larger_is_better=False))

    return [
        name,
        f"{run_s * 1e6:.0f}",
        *(f"{statistics.median(each) * 1e6:.0f}" for each in times.values()),
        *(gain(f"{kind}, turns", kind) for kind in WAYS if f"{kind}, turns" in WAYS),
    ]


def _measure(
    engine: coinfer.Engine, names: Sequence[str], feeds: Sequence[Tensors], seconds: float
) -> float:
    """Return the seconds of a request."""
    start, answered = time.perf_counter(), 0
    while True:
        asked = [engine.submit(name, feed) for name, feed in zip(names, feeds, strict=True)]
        for future in asked:
            future.result()
        answered += len(asked)
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return elapsed / answered


def _build(width: int | str, seed: int) -> Model:
    if isinstance(width, str):
        return model_from_ir(zoo.build(width, seed=seed), name=f"m{seed}")
    net = NetworkBuilder("mlp", seed)
    x = net.input("x", (width,), ir.DataType.FLOAT)
    for at in range(3):
        x = net.relu(net.gemm(x, width, name=f"fc{at}"), name=f"relu{at}")
    net.output(net.gemm(x, 10, name="head"), "logits")
    return model_from_ir(net.model("a perceptron"), name=f"m{seed}")


if __name__ == "__main__":
    sys.exit(main())
