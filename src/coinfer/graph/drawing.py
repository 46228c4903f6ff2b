"""Draw a partition as an SVG picture, with operators coloured by the processors that run them.

`layout` places the operators. Opens no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from coinfer.graph.layout import BOX, Layout, Point, lay_out
from coinfer.graph.partition import Partition
from coinfer.units import format_bytes

__all__ = ["draw"]

_COLOURS: Final = (
    ("#cfe8f7", "#0072b2"),
    ("#fde8c4", "#c67f00"),
    ("#c9ecdf", "#00805c"),
    ("#f4dcea", "#b0558a"),
    ("#e3dcf5", "#5e4fa2"),
    ("#f3dccb", "#8c510a"),
    ("#e8e8c8", "#7a7a1f"),
    ("#dfe3e8", "#4a5560"),
)
"""Fill and line by set of processors. They differ in the common forms of colour blindness (after
Okabe and Ito 2008); beyond eight sets they repeat, and unit numbers still tell them apart."""

_INK: Final = "#1f2933"
_MUTED: Final = "#8a95a1"
_LINE_HEIGHT: Final = 18.0
_LEAST_WIDTH: Final = 560.0
_LONGEST_TYPE: Final = 18

_STYLE: Final = (
    "text{font-family:system-ui,Helvetica,Arial,sans-serif;font-size:10px;fill:" + _INK + "}"
    ".title{font-size:15px;font-weight:600}.note{font-size:12px}"
    ".unit{font-size:8.5px;font-weight:600}"
    ".in{fill:none;stroke:" + _MUTED + ";stroke-width:1}"
    ".over{fill:none;stroke:" + _INK + ";stroke-width:1.8}"
    ".box{stroke-width:1.2;rx:4px}"
)


def draw(partition: Partition, title: str) -> str:
    """Draw a partition.

    A box is an operator; its colour tells which processors run it, its number the unit it is in.
    Thin lines stay inside of a unit, thick ones cross to another; pointing at a box or a line
    tells more.

    Args:
        partition: What to draw.
        title: Written above it, e.g. the model's name.

    Returns:
        An SVG document that refers to nothing outside of it.

    >>> from coinfer.graph.operators import Operators
    >>> from coinfer.graph.partition import partition_at
    >>> from coinfer.testing.models import tiny_linear
    >>> partition = partition_at(tiny_linear().model, [1], {"cpu": frozenset({0, 1})})
    >>> draw(partition, "tiny").count('class="box"')
    2
    """
    layout = lay_out(partition.operators)
    sets = list(dict.fromkeys(unit.processors for unit in partition.units))
    head = 34.0 + _LINE_HEIGHT * (len(sets) + 1)
    width, height = max(layout.width, _LEAST_WIDTH), layout.height + head
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
            *_heading(partition, title, sets),
            f'<g transform="translate(0 {head:.0f})">',
            *_lines(partition, layout),
            *_boxes(partition, layout, sets),
            "</g>",
            "</svg>\n",
        ]
    )


def _heading(partition: Partition, title: str, sets: Sequence[frozenset[str]]) -> Iterator[str]:
    units, operators = len(partition.units), len(partition.operators)
    yield f'<text class="title" x="16" y="24">{escape(title)}</text>'
    yield (
        f'<text class="note" x="16" y="42">{_count(operators, "operator")} in '
        f"{_count(units, 'unit')}, mode {partition.mode}; thick lines cross from unit to unit"
        "</text>"
    )
    for row, processors in enumerate(sets):
        mine = [unit for unit in partition.units if unit.processors == processors]
        fill, line = _COLOURS[row % len(_COLOURS)]
        y = 34.0 + _LINE_HEIGHT * (row + 1)
        size = sum(len(unit.operators) for unit in mine)
        text = f"{', '.join(sorted(processors))}: {_count(len(mine), 'unit')}, "
        yield (
            f'<rect x="16" y="{y - 2:.0f}" width="14" height="12" fill="{fill}" '
            f'stroke="{line}"/><text class="note" x="36" y="{y + 8:.0f}">'
            f"{escape(text + _count(size, 'operator'))}</text>"
        )


def _lines(partition: Partition, layout: Layout) -> Iterator[str]:
    unit_of = {i: at for at, unit in enumerate(partition.units) for i in unit.operators}
    within, across = [], []
    for (producer, reader), points in layout.edges.items():
        path = f'd="{_path(points)}"'
        if unit_of[producer] == unit_of[reader]:
            within.append(f'<path class="in" {path}/>')
            continue
        reads = set(partition.operators[reader].reads)
        names = [name for name in partition.operators[producer].writes if name in reads]
        size = partition.bytes_of(names)
        shown = "unknown size" if size is None else format_bytes(size)
        text = f"{', '.join(names)}: {shown}, unit {unit_of[producer]} to {unit_of[reader]}"
        across.append(f'<path class="over" {path}><title>{escape(text)}</title></path>')
    yield from within
    yield from across


def _boxes(partition: Partition, layout: Layout, sets: Sequence[frozenset[str]]) -> Iterator[str]:
    for at, unit in enumerate(partition.units):
        fill, line = _COLOURS[sets.index(unit.processors) % len(_COLOURS)]
        for index in unit.operators:
            operator, centre = partition.operators[index], layout.centres[index]
            left, top = centre.x - BOX.x / 2, centre.y - BOX.y / 2
            told = f"{operator.name} ({operator.op_type}), unit {at} on "
            told += ", ".join(sorted(unit.processors))
            yield (
                f'<g><title>{escape(told)}</title><rect class="box" x="{left:.1f}" '
                f'y="{top:.1f}" width="{BOX.x:.0f}" height="{BOX.y:.0f}" fill={quoteattr(fill)} '
                f'stroke={quoteattr(line)}/><text class="unit" x="{left + 5:.1f}" '
                f'y="{centre.y + 3.2:.1f}">{at}</text><text x="{centre.x + 8:.1f}" '
                f'y="{centre.y + 3.6:.1f}" text-anchor="middle">'
                f"{escape(_short(operator.op_type))}</text></g>"
            )


def _path(points: Sequence[Point]) -> str:
    """Draw straight down where it goes straight down, in curves elsewhere."""
    parts = [f"M{points[0].x:.1f} {points[0].y:.1f}"]
    for before, after in pairwise(points):
        if before.x == after.x or before.y == after.y:
            parts.append(f"L{after.x:.1f} {after.y:.1f}")
        else:
            middle = (before.y + after.y) / 2
            parts.append(
                f"C{before.x:.1f} {middle:.1f} {after.x:.1f} {middle:.1f} "
                f"{after.x:.1f} {after.y:.1f}"
            )
    return "".join(parts)


def _short(op_type: str) -> str:
    name = op_type.rpartition(".")[2]
    return name if len(name) <= _LONGEST_TYPE else name[: _LONGEST_TYPE - 1] + "…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
