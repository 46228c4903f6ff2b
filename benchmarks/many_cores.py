"""How a machine of any number of cores is used: coinfer against others, in six minutes.

    python benchmarks/many_cores.py [--quick] [--minutes M] [--seconds S] [--loads three eight]

Needs onnxruntime, numpy and coinfer; OpenVINO takes part where it is installed. Shows the topology,
how networks scale over the widths that coinfer uses, and two loads: three networks in equal mix as
in `three_networks.py`, and eight small ones. Peers are those of `peers.py`, in fp32, a thread per
network with short queues. "One at a time" is how fast lone requests are answered: of a closed loop
with one in flight, and of peers that call the networks in sequence. All take turns in each round;
after the first one those peers are left out that are more than a tenth behind the best. There are
as many rounds as there is time for. coinfer measures the networks within the same minutes, from an
empty cache; batches are off, because to measure these as well takes longer than all the rest. No
peer is to be better in any column.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from rich.console import Console

import three_networks as base
from coinfer import zoo
from coinfer.hardware import default_processors, find_cores
from coinfer.machine.topology_data import encode_topology
from coinfer.model import Model, load_model
from coinfer.profiling import Effort, Profiler
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import ratio_of
from tables import new_console, new_table

THREE = {"mobilenet_v2": 1, "resnet50": 1, "resnet101": 1}
EIGHT = {"squeezenet1_1": 4, "mobilenet_v2": 4}
"""How many copies of each, with weights of their own."""
LOADS = {"three": ("three networks", THREE), "eight": ("eight small", EIGHT)}
ONE = "coinfer-one"
LEAST = 0.95
"""The ratio from which coinfer is not worse: so much differ rounds of equals."""

AHEAD = 4
"""Inferences that peers with a thread per network may be ahead of the slowest one."""

BEHIND = 0.9
"""Of the best peer's answers per second in the first round: who has fewer takes part no more."""


def prepare(
    folder: Path, networks: Mapping[str, int], seconds: float
) -> dict[str, base.Contestant]:
    """Write networks, inputs and scenarios; return who takes part."""
    files = folder / "networks"
    files.mkdir()
    for name, copies in networks.items():
        for seed in range(copies):
            zoo.export([name], folder / "one", seed=seed)
            copy = name if copies == 1 else f"{name}_{seed}"
            shutil.move(folder / "one" / f"{name}.onnx", files / f"{copy}.onnx")
            model = load_model(files / f"{copy}.onnx", name=copy)
            feeds = [model.sample_inputs(seed=each) for each in range(4)]
            rows = [feed[model.inputs[0].name] for feed in feeds]
            np.save(files / f"{copy}.npy", np.concatenate(rows))
    found = {
        name: peer
        for name, peer in base._peer_contestants(files, (), seconds, 1.0)
        if "threads" not in name or name.endswith(f"-{AHEAD}")
    }
    flights = {base.COINFER: 2 * len(find_cores().numbers), ONE: 1}
    for name, in_flight in flights.items():
        file = scenario_file(folder, name, files, in_flight)
        if name == base.COINFER:
            base._run_coinfer(file, folder, 1.0)  # measures and fills the cache
        found[name] = base.Contestant(
            library="coinfer",
            title="one at a time" if name == ONE else f"{in_flight} in flight",
            precision="fp32",
            measure=lambda file=file: base._run_coinfer(file, folder, seconds),
        )
    return found


def scenario_file(folder: Path, name: str, files: Path, in_flight: int) -> Path:
    """Write a closed loop over the networks."""
    models = {
        path.stem: {"source": str(path), "batch": "off"} for path in sorted(files.glob("*.onnx"))
    }
    weights = dict.fromkeys(models, 1)
    content = {
        "models": models,
        "arrivals": {"mix": {"weights": weights, "in_flight": in_flight}},
        "duration": "2s",
        "warmup": "1s",
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def measured(
    contestants: Mapping[str, base.Contestant], rounds: int, until_s: float, log: Console
) -> base.Rounds:
    """Measure in turn, in reverse order in every second round, until the time is up.

    The last round is the one after which there is no time for another.
    """
    results: dict[str, list[base.Result]] = {name: [] for name in contestants}
    names, took_s = list(contestants), 0.0
    for number in range(rounds):
        began_s = time.monotonic()
        if number and began_s + took_s > until_s:
            break
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(contestants[name].measure())
            log.print(f"round {number + 1}: {name} {results[name][-1].per_s:.2f}/s")
        took_s = time.monotonic() - began_s
        if number == 0:
            names = contenders(results)
            took_s *= len(names) / len(contestants)
    return results


def contenders(results: base.Rounds) -> list[str]:
    """Return coinfer and those peers that may be the best, of all and of those in sequence."""
    per_s = {name: base._rates(each)[0] for name, each in results.items()}
    kept = {base.COINFER, ONE}
    for names in columns(results).values():
        best = max(per_s[name] for name in names)
        kept |= {name for name in names if per_s[name] >= BEHIND * best}
    return [name for name in results if name in kept]


def columns(rounds: base.Rounds) -> dict[str, list[str]]:
    """Return the peers that each of coinfer's two ways is compared with."""
    return {
        base.COINFER: [n for n in rounds if n not in (base.COINFER, ONE)],
        ONE: [n for n in rounds if n.endswith("-sequence")],
    }


def required(title: str, results: base.Rounds) -> list[Requirement]:
    """No peer is better: in throughput, and one at a time."""
    most = len(results[base.COINFER])
    rounds = {name: each for name, each in results.items() if len(each) == most}
    found = []
    for ours, names in columns(rounds).items():
        what = "one at a time" if ours == ONE else "throughput"
        best = base._best(rounds, names)
        mine, theirs = base._rates(rounds[ours]), base._rates(rounds[best])
        ratio = ratio_of(mine, theirs, larger_is_better=True)
        found.append(
            Requirement(
                what=f"{title}: {what}, coinfer / best peer",
                value=ratio.median,
                required=LEAST,
                remark=f"{best}; {most} rounds; {ratio.bounds}",
            )
        )
    return found


def scaling(quick: bool) -> list[tuple[str, dict[int, float]]]:
    """Milliseconds of onnxruntime by width; of cores of one kind and one cache where there are."""
    first = {}
    for processor in default_processors(["onnxruntime"]):
        first.setdefault(processor.threads, processor)
    rows = []
    for name in THREE:
        model = load_model_of(name)
        profile = Profiler(effort=Effort(max_s=0.2 if quick else 0.5)).profile(
            {name: model},
            list(first.values()),
            batch=1,
            feeds={name: [model.sample_inputs()]},
            skipped=print,
        )
        widths = {p.name: width for width, p in first.items()}
        rows.append((name, {widths[k.processor]: 1e3 * e.mean_s for k, e in profile}))
    return rows


def load_model_of(name: str) -> Model:
    """A network of the zoo."""
    with TemporaryDirectory() as folder:
        zoo.export([name], Path(folder), seed=0)
        return load_model(Path(folder) / f"{name}.onnx", name=name)


def main() -> int:
    """Measure and print; the exit status is 1 if a peer is better."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 round: shows that it works")
    parser.add_argument("--minutes", type=float, default=6.0, help="for all loads together")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    arguments = parser.parse_args()
    began_s, left_s = time.monotonic(), 60 * arguments.minutes
    rounds = 1 if arguments.quick else 9
    console, log = new_console(), new_console(stderr=True)
    print_environment(console)
    cores = find_cores()
    console.print(cores.reason)
    if cores.topology is not None:
        console.print(json.dumps(encode_topology(cores.topology)), markup=False)
    rows = scaling(arguments.quick)
    widths = sorted({width for _, row in rows for width in row})
    table = new_table(["ms on onnxruntime by cores"], [str(width) for width in widths])
    for name, row in rows:
        table.add_row(name, *(f"{row[w]:.3g}" if w in row else "" for w in widths))
    console.print(table)
    requirements: list[Requirement] = []
    left_s += began_s - time.monotonic()
    for number, (title, networks) in enumerate(LOADS[name] for name in arguments.loads):
        began_s = time.monotonic()
        until_s = began_s + left_s / (len(arguments.loads) - number)
        with TemporaryDirectory(prefix="many-cores-") as folder:
            contestants = prepare(Path(folder), networks, arguments.seconds)
            log.print(f"{title}: prepared in {time.monotonic() - began_s:.0f} s")
            with OtherWork() as other:
                results = measured(contestants, rounds, until_s, log)
        left_s += began_s - time.monotonic()
        show(title, contestants, results)
        console.print(other.note)
        requirements += required(title, results)
    return print_requirements(console, requirements)


def show(title: str, contestants: Mapping[str, base.Contestant], results: base.Rounds) -> None:
    """Print who did how much."""
    table = new_table([title, "how"], ["per s", "rounds"])
    for name in sorted(results, key=lambda n: _median(base._rates(results[n]))):
        rates = base._rates(results[name])
        each = contestants[name]
        listed = " ".join(f"{rate:.1f}" for rate in rates)
        table.add_row(each.library, each.title, f"{_median(rates):.1f}", listed)
    new_console().print(table)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


if __name__ == "__main__":
    sys.exit(main())
