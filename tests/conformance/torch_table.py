"""Print what of the official suite the backend `torch` passes, alone and with a fallback.

    PYTHONPATH=tests python -m conformance.torch_table [--every N]

Only cases that plain onnxruntime passes count. Exits with status 1 if one that torch takes does not
pass, or one does not pass with onnxruntime to fall back on, and is not excluded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from conformance.suite import cases
from conformance.torch_backend import (
    TORCH_EXCLUSIONS,
    TorchRun,
    TorchVerdict,
    torch_verdict,
    unexplained,
)
from conformance.verdict import plain_attempt

__all__ = ["main"]


def main() -> int:
    """Run the suite and print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="take only every so many cases")
    every = parser.parse_args().every
    console = Console()
    verdicts = []
    with tempfile.TemporaryDirectory() as scratch:
        chosen = cases(Path(scratch))[::every]
        for case in track(chosen, "cases", console=Console(stderr=True), transient=True):
            plain = plain_attempt(case)
            if plain.passed:
                verdicts += [torch_verdict(case, plain, run) for run in TorchRun]
    console.print(_table(verdicts))
    problems = unexplained(verdicts)
    console.print(
        f"onnx {onnx.__version__}, torch {torch.__version__} on the CPU; {len(TORCH_EXCLUSIONS)} "
        f"cases excluded with a reason; {len(problems)} problems"
    )
    for problem in problems:
        console.print(problem, markup=False, style="red")
    return 1 if problems else 0


def _table(verdicts: Sequence[TorchVerdict]) -> Table:
    shown = Table(title="Cases that plain onnxruntime passes, on the backend torch")
    shown.add_column("category")
    for heading in ("cases", "taken", "passed", "with fallback", "on both"):
        shown.add_column(heading, justify="right")
    categories = list(dict.fromkeys(v.case.category for v in verdicts))
    for category in categories:
        _add_row(shown, category, [v for v in verdicts if v.case.category == category])
    shown.add_section()
    _add_row(shown, "all", verdicts)
    return shown


def _add_row(shown: Table, name: str, verdicts: Sequence[TorchVerdict]) -> None:
    alone = [v for v in verdicts if v.run is TorchRun.ALONE]
    both = [v for v in verdicts if v.run is TorchRun.FALLBACK]
    counts = [
        len(alone),
        sum(not v.refused for v in alone),
        sum(v.passed for v in alone),
        sum(v.passed for v in both),
        sum(len(set(v.parts)) > 1 for v in both),
    ]
    shown.add_row(name, *map(str, counts))


if __name__ == "__main__":
    sys.exit(main())
