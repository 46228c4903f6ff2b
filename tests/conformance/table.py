"""Print the conformance table: the official ONNX suite on plain onnxruntime and on coinfer.

    PYTHONPATH=tests python -m conformance.table [--every N] [--seed SEED]

Exits with status 1 if coinfer differs from plain onnxruntime in a case that is not excluded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
import onnxruntime
from rich.console import Console
from rich.progress import track
from rich.table import Table

from conformance.exclusions import load_exclusions, unexplained
from conformance.suite import Case, cases
from conformance.verdict import Run, Verdict, plain_attempt, verdict

__all__ = ["main", "table"]

_TOTAL = "all"


def main() -> int:
    """Run the suite and print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="take only every so many cases")
    parser.add_argument("--seed", type=int, default=0, help="what the random cuts are drawn from")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        verdicts = _verdicts(cases(Path(scratch))[:: options.every], options.seed)
    exclusions = load_exclusions()
    problems = unexplained(verdicts, exclusions)
    console.print(table(verdicts))
    excluded = {v.case.name for v in verdicts if v.difference and v.case.name in exclusions}
    worst = max(v.error for v in verdicts if v.passed)
    console.print(
        f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}; seed {options.seed}; "
        f"{len(excluded)} cases excluded with a reason (tests/conformance/exclusions.yaml); "
        f"largest relative error against plain onnxruntime {worst:.1e}"
    )
    for problem in problems:
        console.print(f"not as plain onnxruntime: {problem}", markup=False, style="red")
    return 1 if problems else 0


def table(verdicts: Iterable[Verdict]) -> Table:
    """Count passed cases by category: plain onnxruntime, and each way to run them on coinfer."""
    every = list(verdicts)
    shown = Table(title="Passed cases of onnx.backend.test")
    shown.add_column("category")
    for heading in ("cases", "onnxruntime", "whole", "random cuts", "cut everywhere", "could cut"):
        shown.add_column(heading, justify="right")
    categories = list(dict.fromkeys(v.case.category for v in every))
    for category in categories:
        _add_row(shown, category, [v for v in every if v.case.category == category])
    shown.add_section()
    _add_row(shown, _TOTAL, every)
    return shown


def _add_row(shown: Table, name: str, verdicts: Sequence[Verdict]) -> None:
    by_run = {run: [v for v in verdicts if v.run is run] for run in Run}
    whole, finest = by_run[Run.WHOLE], by_run[Run.EVERYWHERE]
    counts = [len(whole), sum(v.plain_passed for v in whole)]
    counts += [sum(v.passed for v in by_run[run]) for run in Run]
    counts += [sum(v.passed and v.parts > 1 for v in finest)]
    shown.add_row(name, *map(str, counts))


def _verdicts(chosen: Sequence[Case], seed: int) -> list[Verdict]:
    found = []
    for case in track(chosen, "cases", console=Console(stderr=True), transient=True):
        plain = plain_attempt(case)
        found += [verdict(case, plain, run, seed=seed) for run in Run]
    return found


if __name__ == "__main__":
    sys.exit(main())
