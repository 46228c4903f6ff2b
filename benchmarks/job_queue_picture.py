"""Job queue, picture: bars of what `job_queue.py --json` wrote, one group per workload.

    python benchmarks/job_queue_picture.py FILE.json ... --picture job-queue.svg

Each bar is the time until all have answered, as a share of that of the originals in one process
each with default threads: the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rounds import ratio_of

WAYS = {"processes": "processes", "pinned": "pinned processes", "queue": "coinfer"}
BASE = "original processes"
COLOURS = {
    "original processes": "#c3cad1",
    "original pinned": "#95a1ac",
    "original queue": "#7fb2d6",
    "decomposed processes": "#e8c98f",
    "decomposed pinned": "#d09a3a",
    "decomposed queue": "#0072b2",
}
BAR, GAP, LEFT, TOP, HEIGHT = 22, 34, 56, 92, 240
GROUP = BAR * len(COLOURS) + GAP


def main() -> int:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for path in arguments.files:
        found.update(json.loads(path.read_text())["times_s"])
    shares = {name: _shares(times) for name, times in found.items()}
    arguments.picture.write_text("\n".join(_picture(shares)) + "\n")
    return 0


def _shares(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    base = times[BASE]
    return {
        arm: 1 / ratio_of(seconds, base, larger_is_better=False).median
        for arm, seconds in times.items()
    }


def _picture(shares: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    most = max(1.0, *(share for each in shares.values() for share in each.values()))
    width, bottom = max(660, LEFT + GROUP * len(shares) + 8), TOP + HEIGHT
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 30}" '
        f'width="{width}" height="{bottom + 30}">'
    )
    yield (
        "<style>text{font:12px system-ui,Helvetica,Arial,sans-serif;fill:#1f2933}"
        ".title{font-size:15px;font-weight:600}.small{font-size:10px}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
        f'<text class="title" x="{LEFT}" y="22">Time until all have answered, '
        "originals in processes: 100 %</text>"
    )
    for at, (arm, colour) in enumerate(COLOURS.items()):
        form, way = arm.split(" ")
        x, y = LEFT + 212 * (at % 3), 36 + 17 * (at // 3)
        yield f'<rect x="{x}" y="{y}" width="11" height="11" fill="{colour}"/>'
        yield f'<text x="{x + 16}" y="{y + 10}">{form}, {WAYS[way]}</text>'
    for step in range(5):
        y = bottom - HEIGHT * step / 4
        yield f'<path d="M{LEFT} {y:.1f}H{width - 8}" stroke="#e3e7eb"/>'
        percent = f"{100 * most * step / 4:.0f} %"
        yield f'<text text-anchor="end" x="{LEFT - 6}" y="{y + 4:.1f}">{percent}</text>'
    for group, (name, each) in enumerate(shares.items()):
        left = LEFT + GAP / 2 + GROUP * group
        for at, arm in enumerate(COLOURS):
            tall = HEIGHT * each[arm] / most
            x = left + BAR * at
            yield (
                f'<rect x="{x:.1f}" y="{bottom - tall:.1f}" width="{BAR - 2}" '
                f'height="{tall:.1f}" fill="{COLOURS[arm]}"><title>{name}, {arm}</title></rect>'
            )
            yield (
                f'<text class="small" text-anchor="middle" x="{x + BAR / 2 - 1:.1f}" '
                f'y="{bottom - tall - 3:.1f}">{100 * each[arm]:.0f}</text>'
            )
        middle = left + BAR * len(COLOURS) / 2
        yield f'<text text-anchor="middle" x="{middle:.1f}" y="{bottom + 18}">{name}</text>'
    yield "</svg>"


if __name__ == "__main__":
    raise SystemExit(main())
