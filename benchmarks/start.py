"""Start: seconds from nothing to the first answer of three networks, beside sessions made by hand.

Each start is a process of its own, from the import of the library to the first answer of each
network. coinfer starts with an empty cache (it measures), with a warm one, and from a saved plan;
the peers make one session per network from the same files, as their documentation shows, and know
nothing of which library or how many threads suit a network. Starts alternate.

    python benchmarks/start.py [--rounds 9] [--quick]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from coinfer.metrics.paired import in_turn
from coinfer.zoo.files import export
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import ratio_of
from tables import new_console, new_table

NETWORKS = ("mobilenet_v2", "resnet50", "resnet101")
WARM_S, EMPTY_S = 1.5, 30.0
"""What a start may take."""

_CLOCK = """
import sys, time
began = time.perf_counter()
import numpy as np
folder, names = sys.argv[1], sys.argv[2].split(",")
x = np.zeros((1, 3, 224, 224), np.float32)
"""
_END = "\nprint(time.perf_counter() - began)\n"

_WAYS = {
    "coinfer, empty cache": """
import coinfer
with coinfer.Engine({name: f"{folder}/{name}.onnx" for name in names}) as engine:
    for name in names:
        engine.infer(name, {"image": x})
""",
    "coinfer, warm cache": """
import coinfer
with coinfer.Engine({name: f"{folder}/{name}.onnx" for name in names}) as engine:
    for name in names:
        engine.infer(name, {"image": x})
""",
    "coinfer, saved plan": """
import coinfer
with coinfer.Engine(f"{folder}/plan") as engine:
    for name in names:
        engine.infer(name, {"image": x})
""",
    "onnxruntime sessions": """
import onnxruntime as ort
for name in names:
    ort.InferenceSession(f"{folder}/{name}.onnx").run(None, {"image": x})
""",
    "OpenVINO compiled models": """
import openvino as ov
core = ov.Core()
for name in names:
    core.compile_model(f"{folder}/{name}.onnx", "CPU")(x)
""",
}
_EMPTY = "coinfer, empty cache"
_WARM = "coinfer, warm cache"
_PLAN = "coinfer, saved plan"


def main() -> int:
    """Measure and print; the exit status is 1 if a start takes too long."""
    arguments = _arguments()
    console = new_console()
    print_environment(console)
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place, OtherWork() as other:
        folder = Path(place)
        export(NETWORKS, folder)
        cache = folder / "cache"
        _fill(folder, cache)
        for number in range(arguments.empty_rounds):
            found[_EMPTY].append(_start(_EMPTY, folder, folder / f"cache{number}"))
        for _, way in in_turn([way for way in _WAYS if way != _EMPTY], arguments.rounds):
            found[way].append(_start(way, folder, cache))
    table = new_table(("start",), ("median s", "lowest", "highest", "warm coinfer is"))
    for way in _WAYS:
        seconds = sorted(found[way])
        middle = seconds[len(seconds) // 2]
        ratio = ""
        if way not in (_EMPTY, _WARM):
            ratio = f"{ratio_of(found[_WARM], found[way], larger_is_better=False)}"
        cells = [f"{s:.2f}" for s in (middle, seconds[0], seconds[-1])]
        table.add_row(way, *cells, ratio)
    console.print(f"{', '.join(NETWORKS)}: {arguments.rounds} starts each, in turn")
    console.print(table)
    console.print(other.note)
    medians = {way: sorted(each)[len(each) // 2] for way, each in found.items()}
    limits = {_EMPTY: EMPTY_S, _WARM: WARM_S, _PLAN: WARM_S}
    return print_requirements(
        console,
        [
            Requirement(what=way, value=medians[way], required=most, at_most=True, unit=" s")
            for way, most in limits.items()
        ],
    )


def _fill(folder: Path, cache: Path) -> None:
    """Measure once for the warm starts, until nothing is left to measure, and save a plan."""
    script = """
import sys
from pathlib import Path
import coinfer
from coinfer.plan.plan_folder import save_plan
folder, names = sys.argv[1], sys.argv[2].split(",")
models = {name: f"{folder}/{name}.onnx" for name in names}
with coinfer.Engine(models, measure_s=1e9) as engine:
    save_plan(engine.plan, Path(folder, "plan"))
"""
    _run(script, folder, cache)


def _start(way: str, folder: Path, cache: Path) -> float:
    return float(_run(_CLOCK + _WAYS[way] + _END, folder, cache).split()[-1])


def _run(script: str, folder: Path, cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), ",".join(NETWORKS)],
        env=_environment(cache),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _environment(cache: Path) -> dict[str, str]:
    """Return the environment of a start: modules are compiled once, as in an installed package."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {
        **kept,
        "COINFER_CACHE": str(cache),
        "PYTHONPYCACHEPREFIX": str(cache.parent / "compiled"),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--empty-rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    found = parser.parse_args()
    if found.quick:
        found.rounds = found.empty_rounds = 1
    return found


if __name__ == "__main__":
    raise SystemExit(main())
