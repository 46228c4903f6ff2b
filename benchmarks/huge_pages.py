"""Runs of networks whose weights are in huge pages, beside runs of those in pages of 4 KiB.

    python benchmarks/huge_pages.py [--networks mobilenet_v2 resnet101 vgg19] [--rounds 9] [--quick]

A process for each run: it loads a network with one library on one core, runs it for a second, and
prints the median. With and without take turns; each ratio is taken within a round. Linux, where
`coinfer doctor` does not say that huge pages are forbidden.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from coinfer import zoo
from coinfer.backends.huge_pages import are_huge_pages_allowed, use_huge_pages
from coinfer.backends.registry import find_backends
from coinfer.hardware import default_processors
from coinfer.metrics.paired import in_turn
from coinfer.model import load_model
from coinfer.threads.pinning import pin_current_thread
from environment import OtherWork, print_environment
from rounds import output_of, ratio_of
from tables import new_console, new_table

NETWORKS = ("mobilenet_v2", "resnet101", "vgg19")
BACKENDS = ("onnxruntime", "openvino")
WAYS = ("4 KiB", "2 MiB")
RUN_S, QUICK_S, FEWEST = 1.5, 0.2, 3


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="1 short round: shows that it works")
    given = parser.parse_args()
    rounds, seconds = (1, QUICK_S) if given.quick else (given.rounds, RUN_S)
    if not are_huge_pages_allowed():
        raise SystemExit("this system has no huge pages, or forbids them; see `coinfer doctor`")
    console = new_console()
    print_environment(console)
    table = new_table(("network", "library"), (*(f"{way}, ms" for way in WAYS), "faster", "MiB"))
    with TemporaryDirectory(prefix="huge-pages-") as folder, OtherWork() as other:
        zoo.export(dict.fromkeys(given.networks), Path(folder), seed=0)
        for network in given.networks:
            for backend in BACKENDS:
                row = _compared(Path(folder) / f"{network}.onnx", backend, rounds, seconds)
                table.add_row(network, backend, *row)
    console.print(table)
    console.print(other.note)
    return 0


def _compared(file: Path, backend: str, rounds: int, seconds: float) -> list[str]:
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    huge = 0
    for _, way in in_turn(WAYS, rounds):
        command = (sys.executable, __file__, "one", file, backend, way, seconds)
        told = json.loads(output_of(command))
        found[way].append(told["run_s"])
        huge = max(huge, told["huge"])
    times = [f"{statistics.median(found[way]) * 1e3:.2f}" for way in WAYS]
    ratio = ratio_of(found[WAYS[1]], found[WAYS[0]], larger_is_better=False)
    return [*times, str(ratio), f"{huge / 2**20:.0f}"]


def one(file: Path, backend: str, way: str, seconds: float) -> dict[str, float]:
    """Run a network for some seconds, on one core."""
    processor = next(p for p in default_processors() if p.backend == backend and p.threads == 1)
    pin_current_thread(processor.cores[:1])
    model = load_model(file)
    session = find_backends([processor], {})[backend].load(model, processor)
    inputs = model.sample_inputs()
    for _ in range(FEWEST):
        session.run(inputs)
    if way == WAYS[1]:
        use_huge_pages()
    taken: list[float] = []
    while len(taken) < FEWEST or sum(taken) < seconds:
        began_s = time.perf_counter()
        session.run(inputs)
        taken.append(time.perf_counter() - began_s)
    return {"run_s": statistics.median(taken), "huge": _huge_bytes()}


def _huge_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("AnonHugePages"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        _, _, at, library, how, for_s = sys.argv
        sys.stdout.write(json.dumps(one(Path(at), library, how, float(for_s))))
        sys.exit(0)
    sys.exit(main())
