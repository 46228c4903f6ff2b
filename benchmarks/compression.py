"""Compressed networks: how much faster they are than their originals, on each processor.

    python benchmarks/compression.py [--quick] [--networks vgg16 ...]
    python benchmarks/compression.py --formulas
    python benchmarks/compression.py --when-late [--quick]

Ranks are chosen by latency on this machine; original and compressed take turns in the same rounds.
The weights of these networks are random, so errors are not looked at: this is about time alone.
With `--formulas` nothing is measured: one ratio for all ranks of a network must remove as many
operations as the paper removes (JKIICE 26(6):842-849, 2022). With `--when-late` a variant serves
beside its original under too much load: see `when_late.py`.
"""

from __future__ import annotations

import argparse
import math

from coinfer.api.compression import choose_ranks, compress
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table

PAPER = {
    "vgg16": (0.32, 0.81),
    "resnet152": (0.37, 0.386),
    "inception_v3": (0.31, 0.628),
    "regnet_y_32gf": (0.40, 0.358),
}
"""The ratio of ranks, and the share of the operations that is gone."""

WITHIN = 0.01


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small network: shows that it works")
    parser.add_argument("--formulas", action="store_true", help="count operations, measure nothing")
    parser.add_argument(
        "--when-late", action="store_true", help="deadlines missed with and without a variant"
    )
    parser.add_argument("--networks", nargs="+", default=list(PAPER))
    parser.add_argument("--processors", nargs="+", default=None)
    arguments = parser.parse_args()
    if arguments.formulas:
        return _formulas()
    if arguments.when_late:
        import when_late  # needs torch and scikit-learn

        return when_late.measured(is_quick=arguments.quick)
    names = ["small_resnet"] if arguments.quick else arguments.networks
    return _times(names, arguments.processors)


def _formulas() -> int:
    console = new_console()
    table = new_table(["network"], ["ratio", "layers", "MACs", "left", "removed", "paper"])
    requirements = []
    for name, (ratio, paper) in PAPER.items():
        report = choose_ranks(f"zoo:{name}", ranks=f"ratio:{ratio}")
        before, after = report.macs
        removed = report.macs_removed or 0.0
        table.add_row(
            name,
            f"{ratio:g}",
            str(len(report.decomposed)),
            f"{before:,}",
            f"{after:,}",
            f"{removed:.1%}",
            f"{paper:.1%}",
        )
        requirements.append(
            Requirement(
                what=f"{name}: removed, beside the paper's",
                value=abs(removed - paper) * 100,
                required=WITHIN * 100,
                at_most=True,
                unit=" points",
            )
        )
    console.print(table)
    return print_requirements(console, requirements)


def _times(names: list[str], processors: list[str] | None) -> int:
    console = new_console()
    print_environment(console)
    figures = ["layers", "MACs removed", "original ms", "compressed ms", "times as fast"]
    table = new_table(["network", "processor"], figures)
    requirements = []
    with OtherWork() as other:
        for name in names:
            report = compress(f"zoo:{name}", max_error=math.inf, processors=processors).report
            layers = f"{len(report.decomposed)} of {len(report.layers)}"
            removed = f"{report.macs_removed or 0:.1%}"
            for row in report.processors:
                ms = (f"{s * 1e3:.2f}" for s in (row.before_s, row.after_s))
                table.add_row(name, row.name, layers, removed, *ms, str(row.ratio))
                requirements.append(
                    Requirement(
                        what=f"{name} on {row.name}: times as fast, lower bound",
                        value=row.ratio.lower,
                        required=1.0,
                    )
                )
            if not report.processors:
                table.add_row(name, "-", layers, removed, "-", "-", "left as it is")
                console.print(*report.warnings, sep="\n")
    console.print(table)
    console.print(other.note, highlight=False)
    return print_requirements(console, requirements)


if __name__ == "__main__":
    raise SystemExit(main())
