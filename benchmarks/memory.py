"""Memory: what an engine holds of its models' weights, and what loading costs once it is prepared.

    python benchmarks/memory.py [--part PART] [--load large|zipf] [--budget 0.5]
                                [--seconds 8] [--rounds 1] [--quick]
                                [--keep FOLDER] [--limit SECONDS]

Parts: held, copies, reload, speed, dense, cycles, budget, rules, given, batches, batches_given,
batches_run, beside, spans. Each measurement is a process of its own; contestants alternate. The
start is `start.py`'s. `budget` really runs, in a memory group where one can be made; `rules`
simulates the same on measured times, `given` on times that are the same on every machine. With
`--keep` a further call of `budget` goes on where the last one ended: with `--limit 0` plans are
made and nothing is run; with more, no run begins after so many seconds. The parts of applications
in batches (`memory_batches.py`) are the same three.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import memory_batches
import memory_budget
import memory_ways as ways
from coinfer.metrics.paired import in_turn
from coinfer.plan.plan import Plan
from coinfer.workload.scenario import Scenario
from coinfer.zoo.files import export
from environment import OtherWork, print_environment
from memory_kept import KeptRuns, each_s, kept_number, kept_plan, middle
from memory_real import Found, real_runs, rest_bytes
from requirement import Requirement, print_requirements
from rounds import output_of, ratio_of
from tables import new_console, new_table

NETWORKS = ("mobilenet_v2", "resnet50", "resnet101")
BACKENDS = ("onnxruntime", "openvino")
DENSE = ("alexnet", "vgg16")
COPIED, COPIES = "resnet50", 100
MIB = 2**20

HELD_RATIO, RELOAD_S, COLD_RATIO, NOT_WORSE = 1.1, 0.010, 1.5, 0.95
GAIN, OF_AMPLE, BESIDE_RATIO = 1.3, 1.3, 1.2
BATCHED_GAIN, NO_LOSS = 1.2, 0.995
"""What must be reached."""


class Bench:
    """The files of the networks, a cache, and how a script is run with them."""

    def __init__(
        self,
        folder: Path,
        console: Console,
        *,
        quick: bool,
        loads: Sequence[str],
        shares: Sequence[float],
        seconds: float,
        rounds: int,
        keep: Path | None,
        limit_s: float,
    ) -> None:
        self.folder, self.console, self.quick = folder, console, quick
        self.n_rounds, self.keep, self.limit_s = rounds, keep, limit_s
        self.loads, self.shares, self.seconds = loads, shares, seconds
        self.requirements: list[Requirement] = []

    def export(self) -> None:
        """Write the files of the networks, once."""
        if not (self.folder / f"{NETWORKS[0]}.onnx").exists():
            export(NETWORKS, self.folder)

    def run(self, script: str, *arguments: object, names: tuple[str, ...] = NETWORKS) -> Any:
        self.export()
        command = [sys.executable, "-c", script, self.folder, ",".join(names), *arguments]
        cache = {"COINFER_CACHE": os.environ.get("COINFER_CACHE", str(self.folder / "cache"))}
        return json.loads(output_of(command, cache).splitlines()[-1])

    def rounds(self, full: int) -> int:
        return 1 if self.quick else full

    def require(self, what: str, value: float, limit: float, unit: str, *, most: bool) -> None:
        self.requirements.append(
            Requirement(what=what, value=value, required=limit, at_most=most, unit=unit)
        )


def held(bench: Bench) -> None:
    """Unique set size of three networks in one process, after some requests, and throughput."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for way in ways.HOLDERS:
        if way.startswith("coinfer") and "no artefacts" not in way:
            bench.run(ways.HOLDERS[way])  # measures and prepares
    for _, way in in_turn(ways.HOLDERS, bench.rounds(3)):
        found[way].append(bench.run(ways.HOLDERS[way]))
    columns = ("unique MiB", "trimmed", "of that anonymous", "mapped", "per s")
    table = new_table(("holder",), columns)
    middle = {
        way: {key: statistics.median(r[key] for r in rows) for key in rows[0]}
        for way, rows in found.items()
    }
    for way, sizes in middle.items():
        cells = (f"{sizes[key] / MIB:.0f}" for key in ("uss", "trimmed", "anonymous", "mapped"))
        table.add_row(way, *cells, f"{sizes['per_s']:.1f}")
    bench.console.print(f"{', '.join(NETWORKS)}, 24 at a time requests")
    bench.console.print(table)
    least = min(sizes["uss"] for way, sizes in middle.items() if not way.startswith("coinfer"))
    ratio = middle["coinfer"]["uss"] / least
    bench.require("unique set size, of the smaller peer's", ratio, HELD_RATIO, "x", most=True)


def copies(bench: Bench) -> None:
    """One file under many names."""
    count = 5 if bench.quick else COPIES
    names = tuple(f"{COPIED}@{number}" for number in range(count))
    one = bench.run(ways.HOLDERS["coinfer"], names=names[:1])["uss"]
    many = bench.run(ways.HOLDERS["coinfer"], names=names)["uss"]
    bench.console.print(
        f"{COPIED}: unique set size {one / MIB:.0f} MiB under one name, {many / MIB:.0f} MiB "
        f"under {count}"
    )
    bench.require(f"{count} names of one model, of one", many / one, 1.5, "x", most=True)


def reload(bench: Bench) -> None:
    """Load a model that was loaded before: prepared, from the page cache and from the disk."""
    columns = ("MiB", "direct ms", "warm ms", "warm + run ms", "cold + run ms", "disk ms")
    table = new_table(("network", "backend"), columns)
    keys = ("direct", "warm", "warm and run", "cold and run", "disk")
    for backend in BACKENDS:
        for name, rows in bench.run(ways.reload, backend, bench.rounds(9)).items():
            middle = {key: statistics.median(rows[key]) for key in keys}
            size = rows["bytes"] / MIB
            table.add_row(name, backend, f"{size:.0f}", *(f"{1e3 * middle[k]:.1f}" for k in keys))
            if name == "resnet50" and backend == "onnxruntime":
                cold = middle["cold and run"] - middle["warm and run"] + middle["warm"]
                bench.require(
                    "reload of 100 MiB, warm",
                    1e3 * middle["warm"],
                    1e3 * RELOAD_S,
                    " ms",
                    most=True,
                )
                bench.require(
                    "reload of 100 MiB, cold, of the disk's time",
                    cold / middle["disk"],
                    COLD_RATIO,
                    "x",
                    most=True,
                )
    bench.console.print(table)


def speed(bench: Bench) -> None:
    """Runs of a session of an artefact against one that was compiled."""
    table = new_table(("network", "backend"), ("direct ms", "artefact ms", "artefact is"))
    for backend in BACKENDS:
        for name, rows in bench.run(ways.speed, backend, bench.rounds(15)).items():
            ratio = ratio_of(rows["artefact"], rows["direct"], larger_is_better=False)
            cells = (f"{1e3 * statistics.median(rows[w]):.2f}" for w in ("direct", "artefact"))
            table.add_row(name, backend, *cells, str(ratio))
            least = ratio.median if ratio.paired is None else ratio.paired.lower
            bench.require(
                f"{name} on {backend}: speed, lower bound", least, NOT_WORSE, "x", most=False
            )
    bench.console.print(table)


def dense(bench: Bench) -> None:
    """Loads and runs of networks with large dense layers, with ONNX Runtime."""
    columns = ("MiB", "direct ms", "pause ms", "artefact MiB", "artefact ms", "pause ms")
    loads, runs = new_table(("network",), columns), new_table(("network", "batch"), ("ratio",))
    rounds = bench.rounds(5)
    export(DENSE, bench.folder)
    for name, found in bench.run(ways.dense, "onnxruntime", rounds, names=DENSE).items():
        cells = []
        for way, size in (("direct", "weights"), ("artefact", "bytes")):
            middle = [statistics.median(each) for each in zip(*found["loads"][way], strict=True)]
            cells += [f"{found[size] / MIB:.0f}", *(f"{1e3 * seconds:.1f}" for seconds in middle)]
        loads.add_row(name, *cells)
        for batch, direct in found["runs"]["direct"].items():
            ours = found["runs"]["artefact"][batch]
            runs.add_row(name, batch, str(ratio_of(ours, direct, larger_is_better=False)))
    bench.console.print(loads)
    bench.console.print("speed of runs of the artefact, of those of the model loaded directly")
    bench.console.print(runs)


def cycles(bench: Bench) -> None:
    """Load, use and close again and again: the slope of memory with its standard error."""
    table = new_table(("backend",), ("cycles", "KiB a cycle", "standard error"))
    for backend in BACKENDS:
        count = 100 if bench.quick else 1000
        found = np.array(bench.run(ways.cycles, backend, count, names=("mobilenet_v2",))) / 1024
        slope, error = _slope(found)
        table.add_row(backend, str(count), f"{slope:.2f}", f"{error:.2f}")
        bench.require(
            f"{backend}: slope beyond two standard errors",
            abs(slope) - 2 * error,
            0.0,
            " KiB",
            most=True,
        )
    bench.console.print(table)


def _slope(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Slope and its standard error, of the means of ten groups: neighbours are not independent."""
    means = np.array([group.mean() for group in np.array_split(values, 10)])
    steps = np.arange(10) * len(values) / 10
    (slope, _), covariance = np.polyfit(steps, means, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def budget(bench: Bench) -> None:
    """Milliseconds per request within a budget, by what is evicted: really run."""
    folder = bench.keep or bench.folder
    folder.mkdir(parents=True, exist_ok=True)
    rest = kept_number(
        folder / "rest-bytes", lambda: rest_bytes(memory_budget.tiny(), bench.folder / "tiny")
    )
    for load, scenario in memory_budget.scenarios().items():
        if load not in bench.loads:
            continue
        where, make = folder / f"plan-{load}", partial(memory_budget.measured, scenario)
        plan = kept_plan(where, make)
        kept = KeptRuns(bench.keep and bench.keep / f"runs-{load}.json")
        offline, mix = scenario.offline, scenario.mix
        for row in real_runs(
            plan,
            where,
            bench.shares,
            rest,
            counts=dict(offline.counts) if offline else {},
            weights=dict(mix.weights) if mix else {},
            in_flight=mix.in_flight if mix else 0,
            duration_s=2.0 if bench.quick else bench.seconds,
            rounds=bench.n_rounds,
            known=kept.counts(),
            limit_s=bench.limit_s,
        ):
            cells = f"{row.budget:.0%}", row.contestant, *_cells(row)
            print(*cells, sep=" | ", file=sys.stderr, flush=True)  # it may take minutes
            kept.add(row)
        total, counts = memory_budget.working_set(plan) / MIB, kept.counts()
        columns = ("ms a request", "loads", "loading s", "process MiB", "group MiB", "read again")
        table = new_table(("budget", "rule", "runs"), columns)
        rows = middle(kept.rows)
        for row in rows:
            runs = str(counts[row.budget, row.contestant])
            table.add_row(f"{row.budget:.0%}", row.contestant, runs, *_cells(row))
        bench.console.print(f"{load}: working set {total:.0f} MiB, the rest {rest / MIB:.0f} MiB")
        bench.console.print(table)
        if rows and not any(row.limit for row in rows):
            bench.console.print("no memory group could be made here: nothing enforced the budget")
        for why in dict.fromkeys(row.answer["problem"] for row in rows if row.answer["problem"]):
            bench.console.print(f"cannot run: {why}")
        _require_budgets(bench, load, rows)


def _cells(row: Found) -> list[str]:
    answer = row.answer
    if answer["problem"]:
        return ["cannot run", "", "", "", "", ""]
    group = f"{row.peak / MIB:.0f} of {row.limit / MIB:.0f}" if row.limit else ""
    return [
        f"{answer['seconds'] / answer['served'] * 1e3:.1f}" if answer["served"] else "none served",
        str(answer["loads"]),
        f"{answer['load_s']:.1f}",
        f"{(answer['anonymous'] + answer['mapped']) / MIB:.0f}",
        group,
        f"{row.reads * 4096 / MIB:.0f} MiB",
    ]


def _require_budgets(bench: Bench, load: str, rows: Sequence[Found]) -> None:
    """Compare coinfer with the best of the others, with LRU by bytes, and with ample memory."""
    by_budget: dict[float, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if each_s(row) < math.inf:
            by_budget[row.budget][row.contestant] = each_s(row)
    for share, found in by_budget.items():
        ours = found.pop("coinfer", None)
        if ours is None or not found:
            continue
        what = f"{load}, {share:.0%}"
        best = min(found.values()) / ours
        bench.require(f"{what}: time of the best other", best, NOT_WORSE, "x", most=False)
        if share == 0.5 and "LRU by bytes" in found:
            gain = found["LRU by bytes"] / ours
            bench.require(f"{what}: time of LRU by bytes", gain, GAIN, "x", most=False)
        ample = by_budget.get(1.0, {}).get("load everything")
        if share == 0.4 and ample:
            bench.require(f"{what}: time, of ample", ours / ample, OF_AMPLE, "x", most=True)


def beside(bench: Bench) -> None:
    """Latency of an urgent network, 30 a second, while two large ones push each other out."""
    table = new_table(("beside",), ("requests", "p50 ms", "p99 ms", "max ms", "loads"))
    rows = bench.run(ways.beside, 5 if bench.quick else 20, names=("mobilenet_v2",))
    for way, row in rows.items():
        late = np.array(row["late_ms"])
        middle, high = np.quantile(late, (0.5, 0.99))
        cells = (f"{middle:.1f}", f"{high:.1f}", f"{late.max():.1f}", str(row["loads"]))
        table.add_row(way, str(len(late)), *cells)
        row["p99"] = high
    bench.console.print(table)
    ratio = rows["loads of 500 MiB"]["p99"] / rows["runs alone"]["p99"]
    bench.require("p99 beside loads, of that beside runs", ratio, BESIDE_RATIO, "x", most=True)


def spans(bench: Bench) -> None:
    """Three networks in 150 MiB, span by span; two tiny ones show what a process holds beside."""
    table = new_table(("memory",), ("per s", "loads", "loading", "believed", "own", "files"))
    scenarios = {memory: memory_budget.spans(memory) for memory in ("150MiB", "2GiB")}
    for memory, text in {**scenarios, "two tiny networks": memory_budget.TINY}.items():
        path = bench.folder / f"spans-{memory}.yaml"
        path.write_text(text)
        result = path.with_suffix(".json")
        output_of([sys.executable, "-m", "coinfer", "run", path, "--json", result])
        data = json.loads(result.read_text())
        found, totals = data["memory"], data["totals"]
        held = found["held"] or {"anonymous": 0, "mapped": 0}
        table.add_row(
            memory,
            f"{totals['throughput_per_s']:.1f}",
            str(found["loads"]),
            f"{found['load_s'] / data['duration_s']:.0%}",
            *(f"{size / MIB:.0f} MiB" for size in found["believed_bytes"].values()),
            *(f"{held[kind] / MIB:.0f} MiB" for kind in ("anonymous", "mapped")),
        )
    bench.console.print(table)


def rules(bench: Bench) -> None:
    """Milliseconds per request within a budget, by what is evicted: simulated on measured times."""
    for load, scenario in memory_budget.scenarios().items():
        if load not in bench.loads:
            continue
        warm = memory_budget.measured(scenario)
        for kind, plan in (("warm", warm), ("cold", memory_budget.cold(warm))):
            _compare(bench, f"{load}, {kind} loads", scenario, plan)


def given(bench: Bench) -> None:
    """The same on given times, for comparisons that are the same on every machine."""
    zipf = memory_budget.zipf(tuple(memory_budget.GIVEN))
    seconds = 5.0 if bench.quick else 60.0
    for kind, slower in memory_budget.SLOWER.items():
        scenario = zipf.model_copy(update={"duration_s": seconds})
        _compare(bench, f"zipf, given times, {kind}", scenario, memory_budget.given(slower))


def batches(bench: Bench) -> None:
    """Seconds until applications are answered whose networks are asked n times: simulated."""
    for name, networks in memory_batches.APPLICATIONS.items():
        plan = memory_budget.measured(memory_batches.application(networks, 1))
        _compare_batches(bench, name, networks, plan)


def batches_given(bench: Bench) -> None:
    """The same on given times, for comparisons that are the same on every machine."""
    for kind, slower in memory_budget.SLOWER.items():
        networks = memory_batches.GIVEN
        _compare_batches(bench, f"given times, {kind}", networks, memory_batches.given(slower))


def _compare_batches(bench: Bench, name: str, networks: Sequence[str], plan: Plan) -> None:
    total = memory_budget.working_set(plan)
    for requests in (8, 32):
        scenario = memory_batches.application(networks, requests)
        what = f"{name}, {requests} of each"
        bench.console.print(f"{what}; working set {total / MIB:.0f} MiB")
        table = new_table(("budget", "contestant"), ("seconds", "of coinfer's", "loads"))
        why: list[str] = []
        for share in bench.shares:
            rows = list(memory_batches.responses(scenario, plan, int(share * total)))
            ours, others = rows[0].seconds, rows[1:-1]
            for row in rows:
                cells = f"{row.seconds:.2f}", f"{row.seconds / ours:.2f}"
                loads = "" if row.loads is None else str(row.loads)
                shown = (*cells, loads) if not row.why else ("cannot run", "", "")
                table.add_row(f"{share:.0%}", row.contestant, *shown)
            why += [row.why for row in rows if row.why]
            able_s = [row.seconds for row in others if not row.why]
            if rows[0].why or not able_s:
                continue
            needed = BATCHED_GAIN if share == 0.5 else NO_LOSS
            title = f"{what}, {share:.0%}: time of the best other"
            bench.require(title, min(able_s) / ours, needed, "x", most=False)
        bench.console.print(table)
        for each in dict.fromkeys(why):
            bench.console.print(f"cannot run: {each}")


def batches_run(bench: Bench) -> None:
    """The same of the large networks, 8 requests each: really run, in turns."""
    rest = rest_bytes(memory_budget.tiny(), bench.folder / "tiny")
    scenario = memory_batches.application(memory_batches.APPLICATIONS["large"], 8)
    plan = memory_budget.measured(scenario)
    assert scenario.offline is not None
    found: list[Found] = []
    for row in real_runs(
        plan,
        bench.folder / "plan-batches",
        bench.shares,
        rest,
        counts=dict(scenario.offline.counts),
        weights={},
        in_flight=0,
        duration_s=0.0,
        contestants=(),
        others=memory_batches.ORDERS,
        rounds=bench.rounds(3),
    ):
        found.append(row)
        print(row.budget, row.contestant, *_cells(row), sep=" | ", file=sys.stderr, flush=True)
    columns = ("ms a request", "loads", "loading s", "process MiB", "group MiB", "read again")
    table = new_table(("budget", "contestant"), columns)
    for row in middle(found):
        table.add_row(f"{row.budget:.0%}", row.contestant, *_cells(row))
    by_budget: dict[float, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in found:
        by_budget[row.budget][row.contestant].append(each_s(row))
    bench.console.print(table)
    bench.console.print("the run in the middle of each; the first one of all reads from the disk")
    for share, by_name in by_budget.items():
        able = {name: each for name, each in by_name.items() if math.inf not in each}
        ours = able.pop(memory_batches.OURS, None)
        if ours and able:
            needed = BATCHED_GAIN if share == 0.5 else NO_LOSS
            what = f"large, 8 of each, {share:.0%}: time of the best other"
            best_s = min(statistics.median(each) for each in able.values())
            bench.require(what, best_s / statistics.median(ours), needed, "x", most=False)


def _compare(bench: Bench, what: str, scenario: Scenario, plan: Plan) -> None:
    shares = bench.shares
    total = memory_budget.working_set(plan)
    bench.console.print(f"{what}; working set {total / MIB:.0f} MiB")
    table = new_table(("budget", "rule"), ("ms a request", "of LRU's", "loads", "GiB"))
    rows = list(memory_budget.compared(scenario, plan, shares))
    lru = {r.budget: r.seconds for r in rows if r.contestant == "LRU by bytes"}
    for row in rows:
        share = f"{row.budget:.0%}"
        if row.why:
            table.add_row(share, row.contestant, "cannot run", "", "", "")
            continue
        cells = f"{row.seconds:.1f}", f"{row.seconds / lru[row.budget]:.2f}"
        gib = f"{row.loaded_bytes / 2**30:.1f}"
        table.add_row(share, row.contestant, *cells, f"{row.loads}", gib)
    for share in sorted({row.budget for row in rows if not row.why}, reverse=True):
        least = memory_budget.least_ms(scenario, plan, int(share * total))
        table.add_row(f"{share:.0%}", "bound", f"{least:.1f}", "", "", "")
    bench.console.print(table)
    mine = {r.budget: r.seconds for r in rows if r.contestant == "coinfer"}
    if mine.get(0.5):
        gain = lru[0.5] / mine[0.5]
        bench.require(f"{what}: LRU's time at 50 %", gain, GAIN, "x", most=False)
    if mine.get(0.4) and mine.get(1.0):
        ratio = mine[0.4] / mine[1.0]
        bench.require(f"{what}: time at 40 %, of ample", ratio, OF_AMPLE, "x", most=True)
    for why in dict.fromkeys(row.why for row in rows if row.why):
        bench.console.print(f"cannot run: {why}")


PARTS: dict[str, Callable[[Bench], None]] = {
    each.__name__: each
    for each in (
        *(held, copies, reload, speed, dense, cycles, budget, rules, given),
        *(batches, batches_given, batches_run, beside, spans),
    )
}


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="all of them by default")
    parser.add_argument("--load", choices=("large", "zipf"), action="append")
    parser.add_argument("--budget", type=float, action="append", help="share of the working set")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each real run")
    parser.add_argument("--rounds", type=int, default=1, help="of real runs within budgets")
    parser.add_argument("--keep", type=Path, help="plans and real runs: a further call goes on")
    parser.add_argument("--limit", type=float, default=math.inf, help="begin no run after seconds")
    parser.add_argument("--quick", action="store_true", help="one round")
    arguments = parser.parse_args()
    console = new_console()
    print_environment(console)
    with tempfile.TemporaryDirectory() as place, OtherWork() as other:
        shares = arguments.budget or memory_budget.BUDGETS
        bench = Bench(
            Path(place),
            console,
            quick=arguments.quick,
            loads=arguments.load or ("large", "zipf"),
            seconds=arguments.seconds,
            rounds=arguments.rounds,
            keep=arguments.keep,
            limit_s=arguments.limit,
            shares=shares[1:3] if arguments.quick and not arguments.budget else shares,
        )
        for part in arguments.part or PARTS:
            console.rule(f"{part}: {PARTS[part].__doc__}", align="left")
            PARTS[part](bench)
    console.print(other.note)
    return print_requirements(console, bench.requirements)


if __name__ == "__main__":
    raise SystemExit(main())
