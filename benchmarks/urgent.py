"""Urgent networks beside heavy ones: do they meet their deadlines, and what does that cost these?

    python benchmarks/urgent.py [--quick] [--case a|b|c|d] [--rounds 9] [--seconds 10]

(a) MobileNetV2 30 times per second within 33 ms beside two ResNet101; (b) the same beside
RegNetY-32GF and VGG19; (c) three cameras, MobileNetV2 at 10, 15 and 30 frames per second within one
period each, beside a VGG19; (d) eight small networks 20 times per second each within 10 ms beside a
ResNet101. The heavy ones are asked again as soon as they have answered; they have no deadline.

coinfer runs with its defaults: the scenario says what is asked and nothing else. Each contestant
has a process of its own and the same files; all take turns in each round. The p99 of a stream is a
share of its deadline, and that of several is the worst. Heavy networks count alike, by what
each reaches alone on onnxruntime: the figure is the mean of their shares.

`--foresee` also simulates what coinfer runs with its defaults, on the same measured times, and says
how far that is from what was measured, by the limits of `fidelity`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from coinfer import zoo
from coinfer.metrics.paired import LEAST_ROUNDS, in_turn
from environment import OtherWork, print_environment
from fidelity import LIMITS
from requirement import Requirement, print_requirements
from rounds import output_of, ratio_of
from tables import new_console, new_table
from urgent_peers import WAYS

HERE = Path(__file__).resolve().parent
HIT_RATE, LATER = 0.999, 1.1
FORESEEN_S = 60.0
"""Of virtual time."""


class Stream(NamedTuple):
    """What is asked periodically.

    Attributes:
        network: Its name in the zoo.
        rate: Requests per second.
        deadline_s: Seconds from due to answered.
    """

    network: str
    rate: float
    deadline_s: float


class Case(NamedTuple):
    """What runs together."""

    title: str
    streams: tuple[Stream, ...]
    heavy: tuple[str, ...]


_FRAMES = Stream("mobilenet_v2", 30.0, 0.033)
CASES = {
    "a": Case("a detector beside two large networks", (_FRAMES,), ("resnet101", "resnet101")),
    "b": Case("a detector beside two very large ones", (_FRAMES,), ("regnet_y_32gf", "vgg19")),
    "c": Case(
        "three cameras beside a very large network",
        tuple(Stream("mobilenet_v2", rate, 1 / rate) for rate in (10.0, 15.0, 30.0)),
        ("vgg19",),
    ),
    "d": Case(
        "eight small networks beside a large one",
        tuple(Stream("tiny_cnn", 20.0, 0.010) for _ in range(8)),
        ("resnet101",),
    ),
}
OURS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "default": ("coinfer: its defaults", {}),
    "onnxruntime": (
        "coinfer: onnxruntime only",
        {"processors": {"backends": ["onnxruntime"]}},
    ),
    "off": ("coinfer: preempt: false", {"processors": {"preempt": False}}),
}
"""Title, and what the scenario says beyond what is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one contestant did in one round.

    Attributes:
        hit_rate: Share of the urgent requests answered in time; None if none were asked for.
        p99: Their latency as a share of the deadline; None if none were asked for.
        heavy_per_s: Completions of each heavy network per second.
        stolen_s: Seconds that the host stole meanwhile, of all cores.
    """

    hit_rate: float | None
    p99: float | None
    heavy_per_s: tuple[float, ...]
    stolen_s: float = 0.0


class Answers(NamedTuple):
    """What became of one stream.

    Attributes:
        asked: Its requests.
        in_time: Those answered by their deadlines.
        p99_s: Its latency.
    """

    asked: int
    in_time: int
    p99_s: float

    @classmethod
    def of(cls, latencies_s: Sequence[float], deadline_s: float) -> Answers:
        """Count latencies."""
        ordered = sorted(latencies_s)
        in_time = sum(each <= deadline_s for each in ordered)
        return cls(len(ordered), in_time, ordered[int(0.99 * (len(ordered) - 1))])


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    arguments = _arguments()
    console, log = new_console(), new_console(stderr=True)
    print_environment(console)
    missed = 0
    for name in arguments.case or CASES:
        with TemporaryDirectory(prefix="urgent-") as folder:
            missed |= _case(name, Path(folder), arguments, console, log)
    return missed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 round of 3 s: shows that it works")
    parser.add_argument("--case", choices=CASES, nargs="+")
    parser.add_argument("--ways", choices=[*WAYS, *OURS], nargs="+", help="only these")
    parser.add_argument("--foresee", action="store_true", help="simulate the defaults, too")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 3.0
    arguments.ways = dict.fromkeys(["alone", *(arguments.ways or [*WAYS, *OURS]), "default"])
    return arguments


def _case(
    name: str, folder: Path, arguments: argparse.Namespace, console: Console, log: Console
) -> int:
    case = CASES[name]
    networks = [stream.network for stream in case.streams]
    zoo.export(dict.fromkeys((*networks, *case.heavy)), folder, seed=0)
    for way in (each for each in OURS if each in arguments.ways):
        log.print(f"({name}) coinfer {way} measures")
        _run_coinfer(way, case, folder, 1.0)
    results: dict[str, list[Result]] = {way: [] for way in arguments.ways}
    with OtherWork() as other:
        for number, way in in_turn(results, arguments.rounds):
            measure = _run_coinfer if way in OURS else _run_peer
            with OtherWork() as beside:
                found = measure(way, case, folder, arguments.seconds)
            results[way].append(replace(found, stolen_s=beside.stolen_s))
            log.print(f"({name}) round {number + 1} of {arguments.rounds}: {way}")
    console.print(f"({name}) {case.title}")
    console.print(_table(results, case.heavy))
    console.print(other.note)
    for line in _late_rounds(results):
        console.print(line)
    requirements = list(_requirements(name, results))
    if arguments.foresee:
        foreseen = _run_coinfer("default", case, folder, FORESEEN_S, simulates=True)
        requirements += _foreseen(name, foreseen, results["default"])
    return print_requirements(console, requirements)


def _run_peer(way: str, case: Case, folder: Path, seconds: float) -> Result:
    command = [sys.executable, HERE / "urgent_peers.py", way, "--seconds", seconds]
    streams = [f"{folder / each.network}.onnx:{each.rate}" for each in case.streams]
    heavy = [folder / f"{network}.onnx" for network in case.heavy]
    answer = json.loads(output_of([*command, "--streams", *streams, "--heavy", *heavy]))
    rates = [count / seconds for count in answer["heavy"]]
    pairs = zip(case.streams, answer["latencies_s"], strict=False)  # none of them when alone
    return _result(case, [Answers.of(each, stream.deadline_s) for stream, each in pairs], rates)


def _run_coinfer(
    way: str, case: Case, folder: Path, seconds: float, *, simulates: bool = False
) -> Result:
    urgent = {f"urgent{number}": each for number, each in enumerate(case.streams)}
    heavy = {f"heavy{number}": network for number, network in enumerate(case.heavy)}
    models: dict[str, Any] = {
        name: {"source": f"{each.network}.onnx", "deadline": f"{each.deadline_s * 1e3:g}ms"}
        for name, each in urgent.items()
    }
    models |= {name: {"source": f"{network}.onnx"} for name, network in heavy.items()}
    arrivals: dict[str, Any] = {name: {"periodic": each.rate} for name, each in urgent.items()}
    arrivals |= {name: {"closed": 1} for name in heavy}
    scenario = {"models": models, "arrivals": arrivals, "warmup": "1s", **OURS[way][1]}
    file, report = folder / f"{way}.yaml", folder / f"{way}.json"
    file.write_text(yaml.safe_dump(scenario), encoding="utf-8")
    options = ["--duration", f"{seconds:g}s", "--json", report]
    output_of(
        [sys.executable, "-m", "coinfer", "simulate" if simulates else "run", file, *options],
        {"COINFER_CACHE": str(folder / "cache")},
    )
    found = json.loads(report.read_text(encoding="utf-8"))["models"]
    return _result(
        case,
        [_answers(found[name]) for name in urgent],
        [found[name]["throughput_per_s"] for name in heavy],
    )


def _answers(found: Mapping[str, Any]) -> Answers:
    asked = found["submitted"]
    in_time = round(asked * (found["deadline_hit_rate"] or 0.0))
    return Answers(asked, in_time, (found["latency_ms"]["p99"] or 0.0) / 1e3)


def _result(case: Case, streams: Sequence[Answers], heavy_per_s: Sequence[float]) -> Result:
    if not streams:
        return Result(hit_rate=None, p99=None, heavy_per_s=tuple(heavy_per_s))
    late = [a.p99_s / s.deadline_s for s, a in zip(case.streams, streams, strict=True)]
    hit_rate = sum(each.in_time for each in streams) / sum(each.asked for each in streams)
    return Result(hit_rate=hit_rate, p99=max(late), heavy_per_s=tuple(heavy_per_s))


# figures


def _shares(results: Mapping[str, Sequence[Result]], name: str) -> list[float]:
    """Mean share of what each heavy network reaches alone, by round."""
    return [
        statistics.fmean(a / b for a, b in zip(mine.heavy_per_s, alone.heavy_per_s, strict=True))
        for mine, alone in zip(results[name], results["alone"], strict=True)
    ]


def _hit_rate(results: Sequence[Result]) -> float:
    """The worst round: a promise is kept always."""
    return min(result.hit_rate or 0.0 for result in results)


def _late_rounds(results: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    """Say of rounds in which a promise was broken whether the host let the cores run in them."""
    for name, rounds in results.items():
        for number, result in enumerate(rounds, 1):
            if result.hit_rate is not None and result.hit_rate < HIT_RATE:
                usual_s = statistics.median(each.stolen_s for each in rounds)
                yield (
                    f"{name}, round {number}: {result.hit_rate:.1%} in time; the host stole "
                    f"{1e3 * result.stolen_s:.0f} ms in it, {1e3 * usual_s:.0f} ms in most"
                )


def _table(results: Mapping[str, Sequence[Result]], heavy: Sequence[str]) -> Table:
    rates_of = [f"{name} per s" for name in heavy]
    figures = ["in time, worst round", "p99, of the deadline", *rates_of, "heavy, of alone"]
    table = new_table(["how"], figures, wraps=True)
    titles = {name: way.title for name, way in WAYS.items()}
    titles |= {name: title for name, (title, _) in OURS.items()}
    for name, rounds in results.items():
        asked = rounds[0].hit_rate is not None
        late = [result.p99 for result in rounds if result.p99 is not None]
        rates = zip(*(result.heavy_per_s for result in rounds), strict=True)
        table.add_row(
            titles[name],
            f"{_hit_rate(rounds):.1%}" if asked else "",
            f"{statistics.median(late):.0%}" if asked else "",
            *(f"{statistics.median(each):.2f}" for each in rates),
            f"{statistics.median(_shares(results, name)):.1%}",
        )
    return table


def _requirements(case: str, results: Mapping[str, Sequence[Result]]) -> list[Requirement]:
    """Compare coinfer's defaults with the best peer of each column, if any was measured."""
    ours, peers = results["default"], [name for name in results if name in WAYS and name != "alone"]
    in_time = Requirement(
        what=f"({case}) urgent requests in time, worst round",
        value=_hit_rate(ours),
        required=HIT_RATE,
        unit="",
    )
    if not peers:
        return [in_time]
    late = {name: [each.p99 or 0.0 for each in results[name]] for name in (*peers, "default")}
    heavy = {name: _shares(results, name) for name in (*peers, "default")}
    soonest = min(peers, key=lambda name: statistics.median(late[name]))
    most = max(peers, key=lambda name: statistics.median(heavy[name]))
    p99 = ratio_of(late["default"], late[soonest], larger_is_better=False).inverse
    throughput = ratio_of(heavy["default"], heavy[most], larger_is_better=True)
    return [
        in_time,
        Requirement(
            what=f"({case}) p99, coinfer / best peer",
            value=p99.median,
            required=LATER,
            at_most=True,
            remark=f"{p99.bounds}; {WAYS[soonest].title}",
        ),
        Requirement(
            what=f"({case}) heavy throughput, coinfer / best peer",
            value=throughput.median,
            required=1.0,
            remark=f"{throughput.bounds}; {WAYS[most].title}",
        ),
    ]


def _foreseen(case: str, foreseen: Result, measured: Sequence[Result]) -> list[Requirement]:
    """Say how far a simulation is from the median of the rounds."""
    figures = {
        "in time": (foreseen.hit_rate, [each.hit_rate for each in measured], "per s"),
        "p99": (foreseen.p99, [each.p99 for each in measured], "p99 ms"),
        "heavy ones per s": (
            sum(foreseen.heavy_per_s),
            [sum(each.heavy_per_s) for each in measured],
            "per s",
        ),
    }
    found = []
    for what, (virtual, rounds, limit) in figures.items():
        real = statistics.median(each or 0.0 for each in rounds)
        found.append(
            Requirement(
                what=f"({case}) {what}: simulated {virtual:.3g}, measured {real:.3g}: off by",
                value=abs((virtual or 0.0) / real - 1.0) if real else None,
                required=LIMITS[limit],
                at_most=True,
                unit="",
            )
        )
    return found


if __name__ == "__main__":
    raise SystemExit(main())
