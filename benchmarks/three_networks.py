"""Three networks at once: coinfer against what people use today, side by side in one run.

    python benchmarks/three_networks.py [--quick] [--json FILE]

The work is that of `examples/three-networks.yaml`: MobileNetV2, ResNet50 and ResNet101 in equal
numbers, 224x224, batch 1, prepared photographs, on all cores that this process may use. Every
peer gets the same files, the same arrays, and a process of its own, because thread pools belong to
the process. Loading is not timed. All take turns within each round, in reverse order in every
second one, so that drift of the machine hits all. A ratio is taken within a round; the table shows
the median of the rounds and its 95 % interval (`coinfer.metrics.paired`).

What is counted: completions inside the window per second, where the counts of the three networks
may differ by no more than what is in flight or ahead. That needs saying for "one thread per
network": left alone, the fast network would be served several times as often as the slow one, which
is not the same work. So a thread may be at most `lead` inferences ahead of the slowest one: 1 is
an application that puts every frame through all networks, 4 is one with short queues. (A fixed
number of inferences for each thread would be a third way; it leaves the slowest network alone at
the end.) The better of the two counts for the peer, and what it is ahead at the window's end
counts in its favour.

OpenVINO gets static shapes and its performance hints as its documentation advises, and is held to
fp32 in the fp32 part, because by itself it would use bf16 where the processor has it. coinfer is
run as a user runs it, `coinfer run`; its profile cache is empty at first, and one run that is not
counted fills it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from coinfer import zoo
from coinfer.backends import available
from coinfer.metrics.paired import in_turn
from coinfer.model import load_model
from coinfer.workload.inputs import prepare_feeds
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import load_scenario
from environment import OtherWork, machine_lines, print_environment
from peers import LEADS, PEERS
from requirement import Requirement, print_requirements
from rounds import Ratio, output_of, ratio_of
from tables import new_console, new_table

HERE = Path(__file__).resolve().parent
SCENARIO = HERE.parent / "examples" / "three-networks.yaml"
LOWER = ("bf16", "fp16")
"""Precisions below fp32 that need no other model; int8 needs a quantised one."""

TOLERANCE = 0.05
"""Largest relative output error against fp32 that coinfer may accept for a model."""

COINFER = "coinfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one contestant did in one round; `report` is coinfer's own JSON."""

    counts: Mapping[str, int]
    per_s: float
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A peer, or coinfer in one precision, ready to be measured."""

    library: str
    title: str
    precision: str
    measure: Callable[[], Result]


Rounds = Mapping[str, Sequence[Result]]
"""The results of each contestant, round by round."""


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    arguments = _arguments()
    console, log = new_console(), new_console(stderr=True)
    machine = machine_lines()
    print_environment(console, machine)
    scenario = load_scenario(SCENARIO)
    lower = _lower_precisions()
    with TemporaryDirectory(prefix="three-networks-") as folder:
        contestants = _prepare(Path(folder), scenario, lower, arguments.seconds, log)
        with OtherWork() as other:
            rounds = _measure(contestants, arguments.rounds, log)
    console.print(
        f"equal mix of {', '.join(scenario.models)}; fp32 where nothing else is said; "
        f"{arguments.rounds} x {arguments.seconds:g} s for each"
    )
    console.print(_table(contestants, rounds))
    for note in (*_notes(rounds), other.note):
        console.print(note, markup=False)
    requirements = _requirements(contestants, rounds, lower)
    if arguments.json is not None:
        _write(arguments.json, (*machine, other.note), arguments.seconds, rounds, requirements)
    return print_requirements(console, requirements)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 round of 3 s: shows that it works")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--json", type=Path, help="write every round's figures")
    arguments = parser.parse_args()
    rounds, seconds = (1, 3.0) if arguments.quick else (9, 3.0)
    arguments.rounds = arguments.rounds or rounds
    arguments.seconds = arguments.seconds or seconds
    return arguments


# preparation


def _lower_precisions() -> tuple[str, ...]:
    """What the devices of the installed backends report below fp32."""
    reported = {
        precision
        for each in available()
        if each.backend is not None
        for device in each.backend.devices()
        for precision in device.precisions
    }
    return tuple(precision for precision in LOWER if precision in reported)


def _prepare(
    folder: Path, scenario: Scenario, lower: Sequence[str], seconds: float, log: Console
) -> dict[str, Contestant]:
    """Write the networks, their inputs and coinfer's scenarios; fill its profile cache."""
    log.print("preparing the networks and their inputs")
    networks = folder / "networks"
    zoo.export(scenario.models, networks, seed=0)
    for name, spec in scenario.models.items():
        model = load_model(networks / f"{name}.onnx", name=name)
        feeds = prepare_feeds(spec.inputs, model, batch=spec.batch, seed=scenario.seed)
        np.save(networks / f"{name}.npy", np.concatenate([f[model.inputs[0].name] for f in feeds]))
    contestants = dict(_peer_contestants(networks, lower, seconds, scenario.warmup_s))
    for precision in ("fp32", *lower):
        file = _scenario_file(folder, precision)
        log.print(f"coinfer profiles itself ({precision})")
        _run_coinfer(file, folder, 1.0)
        contestants[_ours(precision)] = Contestant(
            library="coinfer",
            title="three-networks.yaml" + ("" if precision == "fp32" else f", {precision} allowed"),
            precision=precision,
            measure=lambda file=file: _run_coinfer(file, folder, seconds),
        )
    return contestants


def _ours(precision: str) -> str:
    return COINFER if precision == "fp32" else f"{COINFER}-{precision}"


def _peer_contestants(
    networks: Path, lower: Sequence[str], seconds: float, warmup_s: float
) -> Iterator[tuple[str, Contestant]]:
    for name, peer in PEERS.items():
        installed = importlib.util.find_spec(peer.library) is not None
        if installed and peer.precision in ("fp32", *lower):
            options = ["--folder", networks, "--seconds", seconds, "--warmup", warmup_s]
            command = [sys.executable, HERE / "peers.py", name, *options]
            yield (
                name,
                Contestant(
                    library=peer.library,
                    title=peer.title,
                    precision=peer.precision,
                    measure=lambda command=command: _run_peer(command),
                ),
            )


def _scenario_file(folder: Path, precision: str) -> Path:
    """Copy the example with its photographs found and the precision allowed."""
    if precision == "fp32":
        return SCENARIO
    content = yaml.safe_load(SCENARIO.read_text(encoding="utf-8"))
    for model in content["models"].values():
        model["inputs"]["images"] = str(SCENARIO.parent / model["inputs"]["images"])
    content["precision"] = {"allow": [precision], "tolerance": TOLERANCE}
    file = folder / f"three-networks-{precision}.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


# measuring


def _measure(contestants: Mapping[str, Contestant], rounds: int, log: Console) -> Rounds:
    results: dict[str, list[Result]] = {name: [] for name in contestants}
    for number, name in in_turn(contestants, rounds):
        result = contestants[name].measure()
        results[name].append(result)
        log.print(f"round {number + 1} of {rounds}: {name} {result.per_s:.2f}/s")
    return results


def _run_peer(command: Sequence[object]) -> Result:
    answer = json.loads(output_of(command))
    counts = answer["counts"]
    return Result(counts=counts, per_s=sum(counts.values()) / answer["seconds"])


def _run_coinfer(scenario: Path, folder: Path, seconds: float) -> Result:
    file = folder / "report.json"
    options = ["--duration", f"{seconds:g}s", "--json", file]
    command = [sys.executable, "-m", "coinfer", "run", scenario, *options]
    output_of(command, {"COINFER_CACHE": str(folder / "cache")})
    report = json.loads(file.read_text(encoding="utf-8"))
    return Result(
        counts={
            name: round(model["throughput_per_s"] * report["duration_s"])
            for name, model in report["models"].items()
        },
        per_s=report["totals"]["throughput_per_s"],
        report=report,
    )


# figures


def _rates(results: Sequence[Result]) -> list[float]:
    return [result.per_s for result in results]


def _ratio(ours: Sequence[Result], theirs: Sequence[Result]) -> Ratio:
    return ratio_of(_rates(ours), _rates(theirs), larger_is_better=True)


def _requirement(what: str, ratio: Ratio, required: float, *remarks: str) -> Requirement:
    return Requirement(
        what=what,
        value=ratio.median,
        required=required,
        remark="; ".join((*remarks, ratio.bounds)),
    )


def _best(rounds: Rounds, names: Sequence[str]) -> str:
    return max(names, key=lambda name: statistics.median(_rates(rounds[name])))


def _requirements(
    contestants: Mapping[str, Contestant], rounds: Rounds, lower: Sequence[str]
) -> list[Requirement]:
    ours = rounds[COINFER]
    peers = [n for n, c in contestants.items() if c.precision == "fp32" and n != COINFER]
    best, threads = _best(rounds, peers), _best(rounds, [f"ort-threads-{n}" for n in LEADS])
    fractions = [r.report["bound"]["fraction"] for r in ours if r.report is not None]
    return [
        _requirement(
            "coinfer / best peer in fp32",
            _ratio(ours, rounds[best]),
            0.98,
            contestants[best].title,
        ),
        _requirement(
            "coinfer / onnxruntime defaults, thread per network",
            _ratio(ours, rounds[threads]),
            1.3,
            f"lead {threads.rpartition('-')[2]}, the better one",
        ),
        _requirement(
            "coinfer / onnxruntime defaults, in sequence",
            _ratio(ours, rounds["ort-sequence"]),
            2.0,
        ),
        *_lower_requirements(contestants, rounds, lower),
        Requirement(
            what="coinfer / LP bound on its own profile",
            value=statistics.median(fractions),
            required=0.93,
        ),
    ]


def _lower_requirements(
    contestants: Mapping[str, Contestant], rounds: Rounds, lower: Sequence[str]
) -> Iterator[Requirement]:
    what = "coinfer with bf16 allowed / coinfer fp32"
    if "bf16" not in lower:
        yield Requirement(what=what, value=None, required=1.7, remark="not reported by this device")
        return
    ours = rounds[_ours("bf16")]
    yield _requirement(what, _ratio(ours, rounds[COINFER]), 1.7)
    peers = [n for n, c in contestants.items() if c.precision == "bf16" and n != _ours("bf16")]
    if peers:
        best = _best(rounds, peers)
        yield _requirement(
            "coinfer with bf16 allowed / best peer in bf16",
            _ratio(ours, rounds[best]),
            0.98,
            contestants[best].title,
        )


# output


def _table(contestants: Mapping[str, Contestant], rounds: Rounds) -> Table:
    table = new_table(("library", "how"), ("per s", "min to max", "counts", "coinfer is"))
    by_rate = sorted(contestants, key=lambda n: statistics.median(_rates(rounds[n])))
    for name in by_rate:
        contestant, rates = contestants[name], _rates(rounds[name])
        counts = rounds[name][0].counts
        totals = (sum(r.counts[network] for r in rounds[name]) for network in counts)
        ours = rounds[_ours(contestant.precision)]
        is_ours = contestant.library == COINFER
        table.add_row(
            contestant.library,
            contestant.title,
            f"{statistics.median(rates):.2f}",
            f"{min(rates):.2f} to {max(rates):.2f}",
            " ".join(map(str, totals)),
            "" if is_ours else str(_ratio(ours, rounds[name])),
            style="bold" if is_ours else None,
        )
    return table


def _notes(rounds: Rounds) -> Iterator[str]:
    yield "counts: completions of each network over all rounds, in the order above the table"
    yield "coinfer is: its throughput in the same precision over the row's, with the 95 % interval"
    for name, results in rounds.items():
        report = results[-1].report
        if report is None:
            continue
        for processor, facts in report["processors"].items():
            errors = (f"{m} {e:.2g}" for m, e in facts.get("output_errors", {}).items())
            if listed := ", ".join(errors):
                yield f"{name} on {processor}: output error against fp32: {listed}"
        # Nothing here rests on a p99.
        yield from (f"{name}: {text}" for text in report["warnings"] if "p99 rests" not in text)


def _write(
    file: Path,
    machine: Sequence[str],
    seconds: float,
    rounds: Rounds,
    requirements: Sequence[Requirement],
) -> None:
    content = {
        "machine": list(machine),
        "seconds": seconds,
        "rounds": {name: [asdict(each) for each in results] for name, results in rounds.items()},
        "requirements": [asdict(each) | {"verdict": each.verdict} for each in requirements],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
