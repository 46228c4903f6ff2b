"""An urgent network beside heavy ones: does it meet its deadlines, and what does that cost them?

    python benchmarks/urgent.py [--quick] [--case a|b]

MobileNetV2 is asked 30 times per second and must answer within 33 ms of the moment it is due.
Beside it, two networks are each asked again as soon as they have answered: (a) ResNet101 twice, (b)
RegNetY-32GF and VGG19. Each contestant has a process of its own and the same files; all take turns
in each round. The peers use onnxruntime, so coinfer is held to that backend, too.

The heavy networks' throughput is compared with what they reach alone, in 1-thread sessions. What
the urgent one needs must be taken from them: its share is 30 times its service time, measured
alone, over the cores. Anything beyond that share is loss. Both heavy networks count alike: the loss
is the mean of theirs, because the sum would reward who serves the small one more often.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from coinfer import zoo
from coinfer.hardware.cores import available_cores
from coinfer.metrics.paired import in_turn
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import output_of
from tables import new_console, new_table
from urgent_peers import WAYS, Run

HERE = Path(__file__).resolve().parent
RATE, DEADLINE_S = 30.0, 0.033
HIT_RATE, ALLOWED_LOSS = 0.995, 0.10
URGENT = "mobilenet_v2"
CASES = {"a": ("resnet101", "resnet101"), "b": ("regnet_y_32gf", "vgg19")}
OURS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "whole": ("earliest_finish, whole networks", {"policy": "earliest_finish"}),
    "spans": (
        "least_slack, spans of at most 10 ms",
        {"policy": "least_slack", "partition": {"max_span": "10ms"}},
    ),
    "preempt": (
        "edf, whole networks, preemption",
        {
            "policy": "edf",
            "processors": {"backends": ["onnxruntime"], "preempt": True},
        },
    ),
}
"""Title, and what the scenario says beyond the models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one contestant did in one round.

    Attributes:
        hit_rate: Share of all urgent requests answered in time; None if none were asked for.
        p99_s: Their latency.
        heavy_per_s: Completions of each heavy network per second.
    """

    hit_rate: float | None
    p99_s: float | None
    heavy_per_s: tuple[float, ...]


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    arguments = _arguments()
    console, log = new_console(), new_console(stderr=True)
    print_environment(console)
    missed = 0
    for case in arguments.case or CASES:
        with TemporaryDirectory(prefix="urgent-") as folder:
            missed |= _case(case, Path(folder), arguments, console, log)
    return missed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 round of 3 s: shows that it works")
    parser.add_argument("--case", choices=CASES, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 3.0
    return arguments


def _case(
    case: str, folder: Path, arguments: argparse.Namespace, console: Console, log: Console
) -> int:
    heavy = CASES[case]
    zoo.export(dict.fromkeys((URGENT, *heavy)), folder, seed=0)
    service_s = _service_s(folder / f"{URGENT}.onnx")
    for name in OURS:
        log.print(f"({case}) coinfer {name} profiles itself")
        _run_coinfer(name, heavy, folder, 1.0)
    results: dict[str, list[Result]] = {name: [] for name in (*WAYS, *OURS)}
    with OtherWork() as other:
        for number, name in in_turn(results, arguments.rounds):
            measure = _run_coinfer if name in OURS else _run_peer
            results[name].append(measure(name, heavy, folder, arguments.seconds))
            log.print(f"({case}) round {number + 1} of {arguments.rounds}: {name}")
    share = RATE * service_s / len(available_cores())
    console.print(
        f"({case}) {URGENT} {RATE:g}/s within {DEADLINE_S * 1e3:g} ms beside "
        f"{' and '.join(heavy)}; its share of the machine is {share:.1%}"
    )
    console.print(_table(results, heavy))
    console.print(other.note)
    return print_requirements(console, list(_requirements(case, results, share)))


def _service_s(file: Path) -> float:
    run = Run(file, 1)
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _run_peer(name: str, heavy: Sequence[str], folder: Path, seconds: float) -> Result:
    command = [sys.executable, HERE / "urgent_peers.py", name, "--seconds", seconds, "--rate", RATE]
    files = [folder / f"{network}.onnx" for network in heavy]
    answer = json.loads(
        output_of([*command, "--urgent", folder / f"{URGENT}.onnx", "--heavy", *files])
    )
    latencies = sorted(answer["latencies_s"])
    hits = sum(latency <= DEADLINE_S for latency in latencies)
    return Result(
        hit_rate=hits / len(latencies) if latencies else None,
        p99_s=latencies[int(0.99 * (len(latencies) - 1))] if latencies else None,
        heavy_per_s=tuple(count / seconds for count in answer["heavy"]),
    )


def _run_coinfer(name: str, heavy: Sequence[str], folder: Path, seconds: float) -> Result:
    names = [f"heavy{number}" for number in range(len(heavy))]
    models: dict[str, Any] = {
        "urgent": {"source": f"{URGENT}.onnx", "deadline": f"{DEADLINE_S * 1e3:g}ms"},
        **{n: {"source": f"{network}.onnx"} for n, network in zip(names, heavy, strict=True)},
    }
    scenario = {
        "models": models,
        "arrivals": {"urgent": {"periodic": RATE}, **{n: {"closed": 1} for n in names}},
        "processors": {"backends": ["onnxruntime"]},
        "warmup": "1s",
        **OURS[name][1],
    }
    file, report = folder / f"{name}.yaml", folder / f"{name}.json"
    file.write_text(yaml.safe_dump(scenario), encoding="utf-8")
    options = ["--duration", f"{seconds:g}s", "--json", report]
    output_of(
        [sys.executable, "-m", "coinfer", "run", file, *options],
        {"COINFER_CACHE": str(folder / "cache")},
    )
    found = json.loads(report.read_text(encoding="utf-8"))["models"]
    return Result(
        hit_rate=found["urgent"]["deadline_hit_rate"],
        p99_s=(found["urgent"]["latency_ms"]["p99"] or 0.0) / 1e3,
        heavy_per_s=tuple(found[n]["throughput_per_s"] for n in names),
    )


# figures


def _loss(result: Result, alone: Result) -> float:
    """Share of the heavy networks' throughput that is lost, mean over them."""
    pairs = zip(result.heavy_per_s, alone.heavy_per_s, strict=True)
    return 1 - statistics.fmean(mine / theirs for mine, theirs in pairs)


def _losses(results: Mapping[str, Sequence[Result]], name: str) -> list[float]:
    return [_loss(r, alone) for r, alone in zip(results[name], results["alone"], strict=True)]


def _hit_rate(results: Sequence[Result]) -> float:
    """The worst round: a promise is kept always."""
    return min(result.hit_rate or 0.0 for result in results)


def _table(results: Mapping[str, Sequence[Result]], heavy: Sequence[str]) -> Table:
    rates_of = [f"{name} per s" for name in heavy]
    figures = ["in time, worst round", "p99 ms", *rates_of, "heavy lose"]
    table = new_table(["how"], figures, wraps=True)
    titles = {name: way.title for name, way in WAYS.items()}
    titles |= {name: f"coinfer: {title}" for name, (title, _) in OURS.items()}
    for name, rounds in results.items():
        asked = rounds[0].hit_rate is not None
        p99_ms = [1e3 * result.p99_s for result in rounds if result.p99_s is not None]
        rates = zip(*(result.heavy_per_s for result in rounds), strict=True)
        table.add_row(
            titles[name],
            f"{_hit_rate(rounds):.1%}" if asked else "",
            f"{statistics.median(p99_ms):.1f}" if asked else "",
            *(f"{statistics.median(each):.2f}" for each in rates),
            f"{statistics.median(_losses(results, name)):.1%}",
        )
    return table


def _requirements(
    case: str, results: Mapping[str, Sequence[Result]], share: float
) -> list[Requirement]:
    lost = {name: statistics.median(_losses(results, name)) for name in results}
    hits = {name: _hit_rate(rounds) for name, rounds in results.items()}
    met = [name for name in OURS if hits[name] >= HIT_RATE]
    best = min(met or OURS, key=lost.__getitem__)
    better = [n for n in WAYS if n != "alone" and hits[n] > hits[best] and lost[n] < lost[best]]
    title = OURS[best][0]
    return [
        Requirement(
            what=f"({case}) urgent requests in time, worst round",
            value=hits[best],
            required=HIT_RATE,
            unit="",
            remark=title,
        ),
        Requirement(
            what=f"({case}) the heavy ones lose, less the urgent share",
            value=lost[best] - share,
            required=ALLOWED_LOSS,
            at_most=True,
            unit="",
            remark=title,
        ),
        Requirement(
            what=f"({case}) peers better in both",
            value=float(len(better)),
            required=0.0,
            at_most=True,
            unit="",
            remark=", ".join(better),
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
