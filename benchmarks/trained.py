"""Trained networks decomposed untuned: time, error and right answers, by weights and with inputs.

    python benchmarks/trained.py [--quick] [--networks digits minilm pitch orientation]
        [--rules macs:0.7 ...] [--max-errors 0.1 ...] [--json FILE]

Each network (`trained_networks.py`) is decomposed by rules and by latency within errors, by its
weights alone and with samples, 1x1 convolutions and dense layers too. Times are those of one thread
of onnxruntime at batch 1, original and result in turns; errors the largest ||out - ref|| / ||ref||
over held-out samples; accuracies those on data that chose nothing. The error of the plain form at
the time of the one with inputs is read off between its neighbours (linearly in the logarithm).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coinfer.api.compression import compress
from coinfer.errors import CoinferError
from coinfer.hardware.catalogue import default_processors
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table
from trained_networks import TRAINED, Trained, missing

RULES = ("macs:0.85", "macs:0.7", "macs:0.5", "macs:0.35")
MAX_ERRORS = (0.1, 0.3)
FORMS = {"plain": False, "with inputs": True}
POINTS = 0.01
"""Of accuracy: what may be lost untuned."""


class Point(NamedTuple):
    """A decomposed network.

    Attributes:
        ranks: The rule, or the error that was allowed.
        form: What the factors come from.
        removed: Share of the operations that is gone.
        faster: Times as fast as the original.
        interval: The same with its 95 % interval.
        error: On held-out samples.
        accuracy: On data that chose nothing.
    """

    ranks: str
    form: str
    removed: float
    faster: float
    interval: str
    error: float
    accuracy: float


def main() -> int:
    """Decompose, measure and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest: shows that it works")
    parser.add_argument("--networks", nargs="+", choices=TRAINED, default=list(TRAINED))
    parser.add_argument("--rules", nargs="*", default=RULES)
    parser.add_argument("--max-errors", nargs="*", type=float, default=MAX_ERRORS)
    parser.add_argument("--json", type=Path, default=None, help="write all figures here")
    arguments = parser.parse_args()
    names = ["digits"] if arguments.quick else arguments.networks
    rules = ["macs:0.5"] if arguments.quick else arguments.rules
    errors = [] if arguments.quick else arguments.max_errors
    console = new_console()
    print_environment(console)
    requirements: list[Requirement] = []
    written = {}
    with OtherWork() as other:
        for name in names:
            if lacking := missing(name):
                console.print(f"{name}: {', '.join(lacking)} not installed")
                continue
            trained = TRAINED[name][1]()
            before = trained.accuracy(trained.model)
            points: list[Point] = []
            for point in _points(console, trained, rules, errors):
                points.append(point)
                written[name] = {"accuracy": before, "points": [each._asdict() for each in points]}
                if arguments.json is not None:
                    arguments.json.write_text(json.dumps(written, indent=1))
            _print(console, name, before, points)
            requirements += _requirements(name, before, points)
    console.print(other.note)
    return print_requirements(console, requirements)


def _points(
    console: Any, trained: Trained, rules: Sequence[str], errors: Sequence[float]
) -> Iterator[Point]:
    where = [each for each in default_processors() if each.threads == 1]
    where = [each for each in where if each.backend == "onnxruntime"][:1]
    wishes: list[tuple[str, dict[str, Any]]] = [(rule, {"ranks": rule}) for rule in rules]
    wishes += [(f"error {each:g}", {"max_error": each}) for each in errors]
    for ranks, wish in wishes:
        for form, aware in FORMS.items():
            try:
                found = compress(
                    trained.model,
                    samples=trained.samples,
                    svd=True,
                    data_aware=aware,
                    processors=where,
                    **wish,
                )
            except CoinferError as error:
                console.print(f"{ranks}, {form}: {error}")
                continue
            report = found.report
            if not report.processors:
                console.print(f"{ranks}, {form}: left as it is")
                continue
            (row,) = report.processors
            yield Point(
                ranks=ranks,
                form=form,
                removed=report.macs_removed or 0.0,
                faster=row.ratio.median,
                interval=str(row.ratio),
                error=report.output_error or 0.0,
                accuracy=trained.accuracy(found.model),
            )


def _print(console: Any, name: str, before: float, points: Sequence[Point]) -> None:
    table = new_table(
        [f"{name}, {before:.1%} right", "factors"],
        ["MACs removed", "times as fast", "error", "right", "points lost", "plain at equal time"],
    )
    for each in points:
        beside = None if each.form == "plain" else _plain_error(each, points)
        table.add_row(
            each.ranks,
            each.form,
            f"{each.removed:.1%}",
            each.interval,
            f"{each.error:.3f}",
            f"{each.accuracy:.1%}",
            f"{100 * (before - each.accuracy):.1f}",
            "" if beside is None else f"{beside:.3f}",
        )
    console.print(table)


def _plain_error(point: Point, points: Sequence[Point]) -> float | None:
    """Return the error of the plain form where it is as fast; None: it is nowhere."""
    plain = sorted((each.faster, each.error) for each in points if each.form == "plain")
    times = [faster for faster, _ in plain]
    if not plain or not times[0] <= point.faster <= times[-1]:
        return None
    return math.exp(np.interp(point.faster, times, [math.log(error) for _, error in plain]))


def _requirements(name: str, before: float, points: Sequence[Point]) -> Iterator[Requirement]:
    aware = [each for each in points if each.form != "plain"]
    shares = [each.error / beside for each in aware if (beside := _plain_error(each, points))]
    if shares:
        yield Requirement(
            what=f"{name}: error with inputs of that of the plain form at equal time, median",
            value=statistics.median(shares),
            required=0.5,
            at_most=True,
        )
    kept = [1 - 1 / each.faster for each in points if each.accuracy >= before - POINTS]
    yield Requirement(
        what=f"{name}: time saved at 1 point of accuracy or less",
        value=100 * max(kept, default=0.0),
        required=30.0,
        unit=" %",
    )


if __name__ == "__main__":
    raise SystemExit(main())
