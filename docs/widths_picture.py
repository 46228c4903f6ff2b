"""Draw throughput and response time over load, by width: `docs/images/widths.svg`.

`python docs/widths_picture.py [CORES]` simulates `lib:cores-16` as `benchmarks/widths.py` does:
three networks in equal mix, requests at random.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from coinfer.machine.machine_file import load_machine
from widths import MIX, Result, contestants, run, scenario

HERE = Path(__file__).resolve().parent
LOADS = tuple(at / 20 for at in range(2, 21))
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7f7f7f", "#d55e00", "#000000")
WIDTH, HEIGHT, LEFT, TOP, GAP = 400, 300, 60, 40, 90
MOST_MS = 200.0


def simulated(cores: int) -> dict[str, list[Result]]:
    """By contestant, the result at each load."""
    machine = load_machine(f"lib:cores-{cores}")
    found: dict[str, list[Result]] = {}
    for load in LOADS:
        asked = scenario(machine, "mix", load, 600 * cores)
        for name, each in contestants(machine, asked).items():
            if name not in ("all widths", "preempting"):
                found.setdefault(name, []).append(run(each, asked))
    return found


def panel(
    left: float, title: str, ticks: Mapping[float, str], lines: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    """Yield the parts of one diagram; values are 0 to 1 from bottom to top."""
    yield f'<text class="title" x="{left}" y="24">{title}</text>'
    for value, text in ticks.items():
        y = TOP + HEIGHT * (1 - value)
        yield f'<path class="grid" d="M{left} {y:.1f}h{WIDTH}"/>'
        yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    for load in (0.2, 0.4, 0.6, 0.8, 1.0):
        x = left + WIDTH * load
        yield f'<text x="{x:.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{load:.0%}</text>'
    middle = left + WIDTH / 2
    yield f'<text x="{middle}" y="{TOP + HEIGHT + 34}" text-anchor="middle">load / bound</text>'
    for colour, values in zip(COLOURS, lines.values(), strict=False):
        points = " ".join(
            f"{left + WIDTH * load:.1f},{TOP + HEIGHT * (1 - value):.1f}"
            for load, value in zip(LOADS, values, strict=True)
            if 0 <= value <= 1
        )
        bold = 3 if colour == COLOURS[0] else 1.5
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{bold}"/>'


def height_of(ms: float) -> float:
    """Return where a time stands, on a logarithmic scale."""
    return math.log(ms / 5) / math.log(MOST_MS / 5)


def picture(found: Mapping[str, Sequence[Result]], cores: int) -> str:
    """Return the SVG."""
    second = LEFT + WIDTH + GAP
    served = {
        name: [load * min(1.0, each.served) for load, each in zip(LOADS, results, strict=True)]
        for name, results in found.items()
    }
    response = {
        name: [height_of(each.response_ms) for each in results] for name, results in found.items()
    }
    parts = [
        *panel(
            LEFT,
            f"Throughput, share of the bound ({cores} cores)",
            {at / 5: f"{at / 5:.0%}" for at in range(6)},
            served,
        ),
        *panel(
            second,
            "Mean response time",
            {height_of(ms): f"{ms} ms" for ms in (5, 10, 20, 50, 100, 200)},
            response,
        ),
    ]
    for at, (name, colour) in enumerate(zip(found, COLOURS, strict=False)):
        x, y = LEFT + at * 120, TOP + HEIGHT + 62
        text = name if name == "coinfer" else f"{name} only"
        parts.append(f'<path d="M{x} {y - 4}h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 22}" y="{y}">{text}</text>')
    size = f"{second + WIDTH + 20} {TOP + HEIGHT + 76}"
    style = (
        "text{font-family:system-ui,Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2933}"
        ".title{font-size:14px;font-weight:600}.grid{stroke:#d9dee3}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img">\n'
        f"<title>Throughput and response time over load, {', '.join(MIX)}</title>\n"
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main(cores: int = 16) -> None:
    """Simulate and write the picture."""
    text = picture(simulated(cores), cores)
    (HERE / "images" / "widths.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
