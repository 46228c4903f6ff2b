"""Job queue: decomposed networks by groups of layers, against one process per network.

    python benchmarks/job_queue.py --folder FOLDER --make [--networks vgg16 ...]
    python benchmarks/job_queue.py --folder FOLDER [--networks ...] [--copies N] [--mix]
        [--one-at-a-time] [--json FILE]

The experiment of JKIICE 26(6):842-849 (2022), with the arms that it forgot. Copies of a network, or
the paper's mix of eight, answer one request each at the same time; the time is that until all have
answered. With `--copies 0` only the mix is compared.
Arms, each with the originals and with the decomposed networks:

- a process per network, plain onnxruntime with its default number of threads;
- a process per network, plain onnxruntime with one thread, pinned to a core;
- one process: coinfer with a worker per core, which take jobs of consecutive layers from one queue
  in the order of arrival (`fcfs`; parts of a decomposed layer stay together).

All arms are loaded, and take turns in each round. Where memory does not hold them all, with
`--one-at-a-time`, each is loaded only for its turn: it is started, answers once to warm up, then
three times, of which the median counts, and ends. Loading is in no time. With `--make` nothing is
compared: networks are written and decomposed, by latency, on one thread of onnxruntime, and plans
that were kept beside them are removed. The weights are random, so the error is not looked at: this
is about time alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil

import coinfer
from coinfer.api.compression import compress
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.hardware.catalogue import default_processors
from coinfer.model import load_model
from coinfer.plan.plan_folder import save_plan
from coinfer.planner.model_source import resolve_model
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import Ratio, ratio_of
from tables import new_console, new_table

NETWORKS = ("vgg16", "resnet152", "inception_v3", "regnet_y_32gf")
MIX = "mix"
MIXED = {"vgg16": 3, "resnet152": 1, "inception_v3": 2, "regnet_y_32gf": 2}
"""How many of each network the paper's mix has."""

FORMS = ("original", "decomposed")
DEFAULT, PINNED, QUEUE = "processes", "pinned", "queue"
POLICY = "fcfs"
JOB_S = 0.02
"""A job takes so long at most, by measured time, unless it is a single layer."""

MOST_LEFT = 1 - 0.756
"""Of the time of the originals in processes: what the paper's best workload leaves."""

LEAST_FREE_BYTES = 3 * 2**30
"""What the machine must have left after each process that is started."""

REPEATS = 3
"""So often an arm answers that is loaded only for its turn."""

LEAST_REMOVED = 0.2
"""A network with fewer operations removed does not count as decomposed."""


class Arm(NamedTuple):
    """One way to answer a request of each network; `run` returns when all are answered."""

    run: Callable[[], object]
    close: Callable[[], object]


def main() -> int:
    """Make the networks, or compare; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the networks are")
    parser.add_argument("--make", action="store_true", help="write and decompose those missing")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--mix", action="store_true", help="also the paper's mix of eight")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--one-at-a-time", action="store_true", help="load each arm only for its turn"
    )
    parser.add_argument("--json", type=Path, default=None, help="write all times here")
    arguments = parser.parse_args()
    console = new_console()
    print_environment(console)
    if arguments.make:
        for kept in arguments.folder.glob("plan-*/"):  # of networks that may be other ones now
            shutil.rmtree(kept)
        for name in arguments.networks:
            console.print(_made(arguments.folder, name))
        return 0
    workloads = {name: [name] * arguments.copies for name in arguments.networks if arguments.copies}
    if arguments.mix:
        workloads[MIX] = [name for name in arguments.networks for _ in range(MIXED.get(name, 1))]
    times_of = _one_at_a_time if arguments.one_at_a_time else _times
    with OtherWork() as other:
        times = {
            name: times_of(_makers(arguments.folder, names), arguments.rounds, console)
            for name, names in workloads.items()
        }
    facts = {name: _facts(arguments.folder, name) for name in arguments.networks}
    for name, fact in facts.items():
        console.print(
            f"{name}: {fact['pixels']} pixels, {fact['layers']} layers decomposed, "
            f"{fact['removed']:.1%} of the operations removed"
        )
    for name in workloads:
        _print(console, name, workloads[name], times[name])
    console.print(other.note)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"times_s": times, "networks": facts}, indent=1))
    return print_requirements(console, list(_requirements(times, facts)))


def _made(folder: Path, name: str) -> str:
    """Write a network and what latency makes of it, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    if not path.is_file():
        model = resolve_model(f"zoo:{name}")
        with (folder / f"{name}-original.onnx").open("wb") as file:
            file.write(model.to_bytes())
        where = [each for each in default_processors() if each.threads == 1]
        where = [each for each in where if each.backend == "onnxruntime"][:1]
        found = compress(model, max_error=math.inf, processors=where)
        found.save(folder / f"{name}-decomposed.onnx")
        path.write_text(json.dumps(found.report.to_json()))
    fact = _facts(folder, name)
    return f"{name}: {fact['layers']} layers decomposed, {fact['removed']:.1%} removed"


def _facts(folder: Path, name: str) -> dict[str, Any]:
    report = json.loads((folder / f"{name}.json").read_text())
    model = load_model(folder / f"{name}-original.onnx")
    return {
        "layers": sum(each["ranks"] is not None for each in report["layers"]),
        "removed": report["macs_removed"],
        "pixels": model.inputs[0].shape[-1],
    }


def _makers(folder: Path, names: Sequence[str]) -> dict[str, Callable[[], Arm]]:
    """Return what loads each arm, by form and arm."""
    return {
        f"{form} {way}": partial(make, [folder / f"{name}-{form}.onnx" for name in names])
        for form in FORMS
        for way, make in WAYS.items()
    }


def _times(makers: Mapping[str, Callable[[], Arm]], rounds: int, _: Any) -> dict[str, list[float]]:
    """Load all arms, and let them take turns; return the seconds of each round."""
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        arms = {}
        for name, make in makers.items():
            arms[name] = arm = make()
            stack.callback(arm.close)
        for number in range(rounds + 1):
            for name, arm in arms.items():
                took_s = _timed(arm)
                if number:  # in the first all warm up
                    found.setdefault(name, []).append(took_s)
    return found


def _one_at_a_time(
    makers: Mapping[str, Callable[[], Arm]], rounds: int, console: Any
) -> dict[str, list[float]]:
    """Load each arm only for its turn; return the median seconds of each turn, and say them."""
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, make in makers.items():
            began_s = time.perf_counter()
            arm = make()
            loaded_s = time.perf_counter() - began_s
            try:
                arm.run()
                took_s = statistics.median(_timed(arm) for _ in range(REPEATS))
            finally:
                arm.close()
            found.setdefault(name, []).append(took_s)
            console.print(f"round {number}, {name}: {took_s:.3f} s, loaded in {loaded_s:.0f} s")
    return found


def _timed(arm: Arm) -> float:
    began_s = time.perf_counter()
    arm.run()
    return time.perf_counter() - began_s


def _processes(paths: Sequence[Path], *, pinned: bool) -> Arm:
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, str(Path(__file__).with_name("network_process.py"))]
    children: list[subprocess.Popen[bytes]] = []

    def heard(child: subprocess.Popen[bytes]) -> None:
        if child.stdout is None or not child.stdout.readline():
            raise SystemExit(f"{' '.join(map(str, child.args))} ended")

    def run() -> None:
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"\n")
        for child in children:
            heard(child)

    def close() -> None:
        for child in children:
            child.communicate()

    for at, path in enumerate(paths):
        place = [str(cores[at % len(cores)])] if pinned else []
        child = subprocess.Popen(
            [*command, str(path), *place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        children.append(child)
        heard(child)  # it is loaded: while it loads, onnxruntime holds the weights twice
        if psutil.virtual_memory().available < LEAST_FREE_BYTES:
            close()
            raise SystemExit("the memory is nearly full; give fewer --copies, or no --mix")
    return Arm(run, close)


def plan_folder(paths: Sequence[Path]) -> Path:
    """Name the folder of the plan for some networks, after all that it depends on."""
    counts = Counter(path.stem for path in paths)
    what = "-".join(f"{n}-{name}" for name, n in counts.items())
    return paths[0].parent / f"plan-{POLICY}-{JOB_S:g}s-{what}"


def _queue(paths: Sequence[Path]) -> Arm:
    """Coinfer: jobs of layers in one queue, and a worker with one thread for each core.

    What was planned once is kept beside the networks, and not measured again.
    """
    where = [each for each in default_processors(preempt=False) if each.threads == 1]
    where = [each for each in where if each.backend == "onnxruntime"]
    models = {f"{at}-{path.stem}": path for at, path in enumerate(paths)}
    kept = plan_folder(paths)
    stack = ExitStack()
    if kept.is_dir():
        engine = stack.enter_context(coinfer.Engine(kept))
    else:
        engine = stack.enter_context(
            coinfer.Engine(
                models,
                processors=where,
                policy=POLICY,
                partition=PartitionOptions(mode=Mode.UNIT, max_span_s=JOB_S),
                batch="off",
                fuse="never",
                measure_s=60.0,
            )
        )
        save_plan(engine.plan, kept)
    feeds_by_path = {path: load_model(path).sample_inputs() for path in set(paths)}
    feeds = {name: feeds_by_path[path] for name, path in models.items()}

    def run() -> None:
        for done in [engine.submit(name, feed) for name, feed in feeds.items()]:
            done.result()

    run()
    return Arm(run, stack.close)


WAYS: Mapping[str, Callable[[Sequence[Path]], Arm]] = {
    DEFAULT: lambda paths: _processes(paths, pinned=False),
    PINNED: lambda paths: _processes(paths, pinned=True),
    QUEUE: _queue,
}


def _print(
    console: Any, name: str, names: Sequence[str], times: Mapping[str, Sequence[float]]
) -> None:
    title = f"{name}, {len(names)} at once"
    table = new_table([title, "networks"], ["ms", "against originals in processes"])
    base = times[f"original {DEFAULT}"]
    for key, seconds in times.items():
        form, way = key.split(" ")
        ratio = ratio_of(seconds, base, larger_is_better=False)
        table.add_row(way, form, f"{statistics.median(seconds) * 1e3:.0f}", _less(ratio))
    console.print(table)


def _less(ratio: Ratio) -> str:
    """Say how much less time that is."""
    return f"{1 / ratio.median - 1:+.1%} ({ratio})"


def _requirements(
    times: Mapping[str, Mapping[str, Sequence[float]]], facts: Mapping[str, Any]
) -> Iterator[Requirement]:
    left = {
        name: statistics.median(rows[f"decomposed {QUEUE}"])
        / statistics.median(rows[f"original {DEFAULT}"])
        for name, rows in times.items()
        if name == MIX or facts[name]["removed"] >= LEAST_REMOVED
    }
    if left:
        best = min(left, key=left.__getitem__)
        yield Requirement(
            what=f"{best}: time left of that of the originals in processes",
            value=100 * left[best],
            required=100 * MOST_LEFT,
            at_most=True,
            unit=" %",
        )
    for name, rows in times.items():
        before = [
            min(pair)
            for pair in zip(rows[f"original {DEFAULT}"], rows[f"original {PINNED}"], strict=True)
        ]
        ratio = ratio_of(rows[f"decomposed {QUEUE}"], before, larger_is_better=False)
        yield Requirement(
            what=f"{name}: times as fast as the originals in the better of both process arms",
            value=ratio.median,
            required=1.0,
        )


if __name__ == "__main__":
    raise SystemExit(main())
