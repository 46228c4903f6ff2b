"""Runs all benchmarks in turn, each in a process of its own, and prints their tables.

    python benchmarks/run.py [--quick] [--long]

The exit status is 1 if a benchmark failed or missed a requirement.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tables import new_console

HERE = Path(__file__).resolve().parent
RESULT = HERE.parent / "out" / "three-networks-benchmark.json"
BENCHMARKS = {
    "three_networks": ("Three networks at once", ["--json", str(RESULT)], ["--quick"]),
    "round_trip": ("Round trip through the engine", [], ["--quick"]),
    "decisions": ("Cost of one decision", [], ["--quick"]),
    "many_models": ("A hundred models loaded", [], ["--quick"]),
    "simulator": ("Speed of the simulator", [], ["--quick"]),
    "planning": ("Cost of planning over spans", [], ["--quick"]),
    "cuts": ("What cutting costs", [], ["--quick"]),
    "branches": ("Branches at the same time", [], ["--quick"]),
}
LONG = {
    "urgent": ("An urgent network beside heavy ones", [], ["--quick", "--case", "a"]),
    "pinning": ("Pools with a core for each thread", [], ["--quick"]),
    "first_request": ("First requests, warmed up and not", [], ["--quick"]),
    "turns": ("Brief runs in turns on one core", [], ["--quick"]),
    "awake": ("Cores kept awake", [], ["--quick"]),
    "memory": ("Weights held, loading and loading again", [], ["--quick"]),
    "compression": ("Compressed networks", [], ["--quick"]),
    "compression_inputs": ("Compressed with and without inputs", [], ["--quick"]),
    "trained": ("Trained networks decomposed", [], ["--quick"]),
    "int8": ("Trained networks in int8", [], ["--quick"]),
    "retraining": ("Decomposed and retrained", [], ["--quick"]),
    "xrbench": ("XRBench's scenarios by policy", [], ["--quick"]),
    "policies_auto": ("The policy that auto chooses", [], ["--quick"]),
    "policy_mixes": ("The default policy on random mixes", [], ["--quick"]),
    "compute_units": ("Compute units and batches together", [], ["--quick"]),
    "policies_measured": ("The policy that auto chooses, measured", [], ["--quick"]),
    "fidelity": (
        "Simulated against measured",
        [],
        ["--loads", "0.5", "--duration", "5s", "--repeats", "1"],
    ),
}
"""Title, options, and further options for a quick run; the long ones take minutes each."""


def main() -> int:
    """Run them; a failing one does not keep the others from running."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short runs: show that all works")
    parser.add_argument("--long", action="store_true", help="also those that take half an hour")
    arguments = parser.parse_args()
    quick = arguments.quick
    console = new_console()
    if quick:
        console.print("quick: these figures show that everything works, and nothing else")
    chosen = BENCHMARKS | LONG if arguments.long else BENCHMARKS
    failed = []
    for name, (title, options, quick_options) in chosen.items():
        console.rule(f"{title} (benchmarks/{name}.py)", align="left")
        command = [sys.executable, str(HERE / f"{name}.py"), *options]
        if subprocess.run(command + quick_options * quick, check=False).returncode:
            failed.append(name)
    console.rule()
    console.print(f"missed or failed: {', '.join(failed)}" if failed else "every requirement met")
    console.print(f"every round of the three networks: {RESULT.relative_to(HERE.parent)}")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
