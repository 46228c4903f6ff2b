"""Retraining: a trained network is decomposed, loses its accuracy, and regains it.

    python benchmarks/retraining.py [--quick] [--seeds N] [--epochs N] [--picture FILE]

The network and the data (scikit-learn's digits) are in `digits.py`. For each seed the data is
divided anew and a network is trained; for each ratio of ranks a copy of it is decomposed and
retrained with the original as teacher. Beside that: the same small network trained by the same
recipe from random weights. Accuracies are those on 497 pictures that decided nothing. Times are
those of the exported files on one thread of onnxruntime, at batch 1, in turns with the original.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table

RATIOS = (0.5, 0.25, 0.125, 0.0625)
GENTLE = RATIOS[0]
MOST_LOST, LESS_TIME = 0.003, 0.3
"""Accuracy that may be lost there after retraining, and the share of the time to be saved."""


class Row(NamedTuple):
    """One network of one seed."""

    macs: int
    fallen: float
    regained: float
    scratch: float
    ms: float
    faster: Any


def main() -> int:
    """Train, decompose, retrain, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one ratio: shows that it works")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--picture", type=Path, default=None, help="an SVG of accuracy and cost")
    arguments = parser.parse_args()
    console = new_console()
    needed = ("torch", "onnxscript", "sklearn", "tensorly")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        console.print(f"not installed: {', '.join(missing)}; nothing is retrained")
        return 0
    ratios = RATIOS[1:2] if arguments.quick else RATIOS
    seeds, epochs = (1, 2) if arguments.quick else (arguments.seeds, arguments.epochs)
    print_environment(console)
    with OtherWork() as other:
        found = [_of_seed(seed, ratios, epochs) for seed in range(seeds)]
    rows = {ratio: [each[ratio] for each in found] for ratio in (1.0, *ratios)}
    _print(console, rows)
    console.print(other.note)
    if arguments.picture is not None:
        arguments.picture.write_text("\n".join(_picture(rows)) + "\n")
    return 0 if arguments.quick else print_requirements(console, _requirements(rows))


def _of_seed(seed: int, ratios: Sequence[float], epochs: int) -> dict[float, Row]:
    from coinfer.retraining import Recipe, accuracy, decompose, exported, train
    from coinfer.retraining.module_layers import macs_of
    from digits import Digits, network

    data, original = Digits.load(seed), network(seed)
    recipe = Recipe(epochs=epochs, learning_rate=2e-3, seed=seed)
    train(original, None, data.training, data.validation, recipe=recipe)
    sample, right = data.images[:1], accuracy(original, data.test)
    big = exported(original, sample, name="original", inputs=["image"], outputs=["scores"])
    found = {1.0: Row(macs_of(original, sample), right, right, right, 0.0, None)}
    for ratio in ratios:
        student = copy.deepcopy(original)
        macs = decompose(student, sample, ranks=f"ratio:{ratio}").macs[1]
        fallen = accuracy(student, data.test)
        scratch = copy.deepcopy(student)
        for each in scratch.modules():
            if hasattr(each, "reset_parameters"):
                each.reset_parameters()
        for module in (student, scratch):
            train(module, original, data.training, data.validation, recipe=recipe)
        regained, anew = (accuracy(each, data.test) for each in (student, scratch))
        small = exported(student, sample, name="small", inputs=["image"], outputs=["scores"])
        contest = _contest(small, big, sample)
        ms = contest.ours_s * 1e3
        found[ratio] = Row(macs, fallen, regained, anew, ms, contest.ratio)
        found[1.0] = found[1.0]._replace(ms=contest.theirs_s * 1e3)
    return found


def _contest(small: Any, big: Any, sample: Any) -> Any:
    from coinfer.backends.registry import get_backend
    from coinfer.profiling.reference import REFERENCE
    from coinfer.profiling.side_by_side import contest

    backend = get_backend(REFERENCE.backend)
    return contest(small, big, [{"image": sample.numpy()}], REFERENCE, backend)


def _mean(rows: Sequence[Row], name: str) -> float:
    return statistics.fmean(getattr(row, name) for row in rows)


def _print(console: Any, rows: dict[float, list[Row]]) -> None:
    figures = ["MACs", "removed", "decomposed", "retrained", "from random", "ms", "times as fast"]
    table = new_table(["ranks"], figures)
    before = rows[1.0][0].macs
    for ratio, each in rows.items():
        macs = each[0].macs
        shown = [f"{_mean(each, name):.1%}" for name in ("fallen", "regained", "scratch")]
        if ratio == 1.0:
            shown = [shown[0], "-", "-"]
        median = (
            sorted(each, key=lambda row: row.faster.median)[len(each) // 2].faster
            if (ratio < 1)
            else "-"
        )
        table.add_row(
            "original" if ratio == 1 else f"ratio:{ratio:g}",
            f"{macs:,}",
            f"{1 - macs / before:.1%}",
            *shown,
            f"{_mean(each, 'ms'):.3f}",
            str(median),
        )
    console.print(table)
    console.print(f"accuracy on held-out pictures, mean of {len(rows[1.0])} seeds")


def _requirements(rows: dict[float, list[Row]]) -> list[Requirement]:
    was = _mean(rows[1.0], "regained")
    gentle = rows[GENTLE]
    found = [
        Requirement(
            what=f"ratio:{GENTLE:g}: accuracy lost after retraining",
            value=(was - _mean(gentle, "regained")) * 100,
            required=MOST_LOST * 100,
            at_most=True,
            unit=" points",
        ),
        Requirement(
            what=f"ratio:{GENTLE:g}: times as fast, lower bound",
            value=min(row.faster.lower for row in gentle),
            required=1 / (1 - LESS_TIME),
        ),
    ]
    lost = (was - _mean(rows[RATIOS[-1]], "fallen")) * 100
    what = f"ratio:{RATIOS[-1]:g}: accuracy lost before retraining"
    return [*found, Requirement(what=what, value=lost, required=10.0, unit=" points")]


_WIDTH, _HEIGHT, _PLOT, _LEFT, _TOP, _BOTTOM = 760, 340, 300, 60, 50, 290
_LINES = (
    ("fallen", "decomposed", "#c67f00"),
    ("scratch", "from random weights", "#8a95a1"),
    ("regained", "retrained", "#0072b2"),
)


def _picture(rows: dict[float, list[Row]]) -> Iterator[str]:
    """Draw accuracy against operations, and against time."""
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}"><style>text{{font:12px system-ui,Helvetica,Arial,'
        "sans-serif;fill:#1f2933}.title{font-size:14px;font-weight:600}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
    )
    least = min(_mean(each, name) for each in rows.values() for name, _, _ in _LINES)
    low = min(0.9, int(least * 10) / 10)
    for left, name, unit, scale in (
        (_LEFT, "macs", "million operations", 1e-6),
        (_LEFT + _PLOT + 70, "ms", "ms per inference", 1.0),
    ):
        yield from _plot(rows, left, name, unit, scale, low)
    for at, (_, label, colour) in enumerate(_LINES):
        x = _LEFT + 170 * at
        yield f'<circle cx="{x}" cy="18" r="4" fill="{colour}"/>'
        yield f'<text x="{x + 9}" y="22">{escape(label)}</text>'
    yield "</svg>"


def _plot(
    rows: dict[float, list[Row]], left: int, name: str, unit: str, scale: float, low: float
) -> Iterator[str]:
    most = max(_mean(each, name) for each in rows.values()) * scale

    def y(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (value - low) / (1 - low)

    yield f'<path fill="none" stroke="#8a95a1" d="M{left} {_TOP}V{_BOTTOM}H{left + _PLOT}"/>'
    for part in range(5):
        value, cost = low + (1 - low) * part / 4, most * part / 4
        x = left + _PLOT * part / 4
        yield f'<text text-anchor="end" x="{left - 6}" y="{y(value) + 4:.0f}">{value:.1%}</text>'
        yield f'<text text-anchor="middle" x="{x:.0f}" y="{_BOTTOM + 17}">{cost:.3g}</text>'
    middle = left + _PLOT / 2
    yield f'<text text-anchor="middle" x="{middle:.0f}" y="{_BOTTOM + 38}">{unit}</text>'
    yield f'<text class="title" x="{left}" y="{_TOP - 8}">accuracy</text>'
    for which, _, colour in _LINES:
        points = [
            (left + _PLOT * _mean(each, name) * scale / most, y(_mean(each, which)))
            for each in rows.values()
        ]
        way = "L".join(f"{x:.1f} {height:.1f}" for x, height in points)
        yield f'<path fill="none" stroke="{colour}" stroke-width="1.5" d="M{way}"/>'
        for x, height in points:
            yield f'<circle cx="{x:.1f}" cy="{height:.1f}" r="3.5" fill="{colour}"/>'


if __name__ == "__main__":
    raise SystemExit(main())
