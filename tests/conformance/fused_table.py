"""Print what of the official suite was merged when its cases were fused with copies of themselves.

    PYTHONPATH=tests python -m conformance.fused_table [--every N]

Exits with status 1 if a case that plain onnxruntime passes does not pass fused and is not excluded,
or if `docs/fusion.md` says of an operator that the suite tests it, and no case merged it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import track

from coinfer.graph.fusing.layout import Layout
from conformance.fused import FUSED_EXCLUSIONS, FusedVerdict, Weights, fused_verdict, unexplained
from conformance.suite import Case, cases
from conformance.verdict import plain_attempt

__all__ = ["main", "tested_by_the_suite"]

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "fusion.md"


def main() -> int:
    """Run the suite's node cases and print counts; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="take only every so many cases")
    every = parser.parse_args().every
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        found = [case for case in cases(Path(scratch)) if case.category == "Node"][::every]
        verdicts = _verdicts(found)
    merged: Counter[str] = sum((each.merged for each in verdicts), Counter())
    refused = sum(bool(each.refused) for each in verdicts)
    problems = unexplained(verdicts)
    if every == 1:
        missing = tested_by_the_suite() - set(merged)
        problems += [f"{name} is said to be tested, but no case merged it" for name in missing]
    console.print(
        f"{len(verdicts)} fused runs of {len({each.name for each in verdicts})} node cases, "
        f"{sum(bool(each.merged) for each in verdicts)} with merged operators of {len(merged)} "
        f"types; {refused} not fused for a known reason, {len(FUSED_EXCLUSIONS)} cases excluded; "
        f"{len(problems)} problems"
    )
    for problem in problems:
        console.print(problem, markup=False, style="red")
    return 1 if problems else 0


def tested_by_the_suite() -> set[str]:
    """Operators of which the page says so."""
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", _PAGE.read_text(encoding="utf-8"), re.M)
    return {name for name, tests in rows if "suite" in tests}


def _verdicts(found: list[Case]) -> list[FusedVerdict]:
    verdicts = []
    for case in track(found, "cases", console=Console(stderr=True), transient=True):
        if plain_attempt(case).passed:
            verdicts += [
                fused_verdict(case, weights, layout, passed=True)
                for weights in Weights
                for layout in (Layout.PACKED, Layout.STACKED)
            ]
    return verdicts


if __name__ == "__main__":
    sys.exit(main())
