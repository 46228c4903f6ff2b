"""`python -m coinfer.testing.oip URL`: runs the suite, prints a table, exits 1 on failures."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coinfer.errors import CoinferError
from coinfer.testing.oip.suite import run_suite
from coinfer.testing.oip.verdict import Result, Verdict

__all__ = ["main"]

_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.NOT_OFFERED: "dim"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    given = _parser().parse_args(argv)
    try:
        shapes = dict(map(_shape, given.shape))
        results = list(
            run_suite(
                given.url,
                grpc=given.grpc,
                models=given.model,
                shapes=shapes,
                tolerance=given.tolerance,
                timeout_s=given.timeout,
                token=given.token,
                only=lambda name: not given.case or any(part in name for part in given.case),
            )
        )
    except CoinferError as error:
        sys.stderr.write(f"oip: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    if given.json:
        sys.stdout.write(json.dumps([asdict(each) for each in results], indent=1) + "\n")
    else:
        _print(results, everything=given.verbose)
    return int(any(each.verdict is Verdict.FAILED for each in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m coinfer.testing.oip",
        description="Check that a server speaks the Open Inference Protocol v2.",
    )
    parser.add_argument("url", help="such as http://127.0.0.1:8000")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="check gRPC, too")
    parser.add_argument(
        "--model", action="append", default=[], help="repeat it; default: all that are ready"
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="INPUT:1,3,224,224",
        help="shape of an input whose metadata leave it open; default: 1 for open axes",
    )
    parser.add_argument(
        "--case", action="append", default=[], help="only cases with this in the name"
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.01, help="between answers to equal requests"
    )
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each answer")
    parser.add_argument("--token", help="a bearer token")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--verbose", action="store_true", help="show what passed, too")
    return parser


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition(":")
    try:
        return name, tuple(int(size) for size in sizes.split(",") if size)
    except ValueError:
        raise SystemExit(f"oip: error: --shape {text} is not like x:1,3,224,224") from None


def _print(results: Sequence[Result], *, everything: bool) -> None:
    console = Console(soft_wrap=False)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for header in ("case", "model", "verdict", "reason"):
        table.add_column(header, overflow="fold")
    for each in results:
        if everything or each.verdict is not Verdict.PASSED:
            verdict = Text(each.verdict.value, style=_STYLES[each.verdict])
            table.add_row(each.case, each.model, verdict, Text(each.reason))
    if table.row_count:
        console.print(table)
    counts = Counter(each.verdict for each in results)
    console.print(", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict))


if __name__ == "__main__":
    sys.exit(main())
