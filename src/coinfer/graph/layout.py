"""Layout: place the operators of a graph in layers from top to bottom, in columns.

Knows operators and widths; knows no processor and no picture format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import numpy as np

from coinfer.graph.operators import Operators

__all__ = ["BOX", "Layout", "Point", "lay_out"]


class Point(NamedTuple):
    """A place in a picture, in pixels from its upper left corner."""

    x: float
    y: float


BOX: Final = Point(134.0, 18.0)
"""Width and height of an operator."""

_ROW: Final = 34.0
_GAP: Final = 14.0
_WIRE: Final = 4.0
"""Room that a line takes that only passes a layer."""

_GUTTER: Final = 46.0
_ROWS_PER_COLUMN: Final = 48
_MARGIN: Final = 16.0
_TRACK: Final = 4.0
_MOST_TRACKS: Final = 8
"""Lines that go on in the next column side by side; beyond these they run on top of another."""

_HEADROOM: Final = _TRACK * _MOST_TRACKS + 8.0
"""Above and below the columns, for these lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where everything goes.

    Attributes:
        centres: Centre of each operator's box.
        edges: Points of the line from a producer to a reader, by (producer, reader).
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
    """

    centres: Sequence[Point]
    edges: Mapping[tuple[int, int], tuple[Point, ...]]
    width: float
    height: float


class _Spot(NamedTuple):
    """What takes room in a layer: an operator, or a line that passes (of its producer)."""

    operator: int
    passes: bool


def lay_out(operators: Operators) -> Layout:
    """Place operators so that each is below all that it reads from.

    Layers are as in Sugiyama's method: an operator is one below its lowest producer, a line that
    passes a layer takes room there, and within a layer everything comes as near below what it
    comes from as its neighbours allow. After 48 layers a new column begins.
    """
    layers = _layers(operators)
    rows = _spots(operators, layers)
    across = _across(operators, rows, layers)
    columns = _Columns(rows, across)
    centres = [columns.place(_Spot(o.index, False), layers[o.index]) for o in operators]
    edges: dict[tuple[int, int], tuple[Point, ...]] = {}
    for operator in operators:
        for reader in operator.readers:
            middle = [
                columns.place(_Spot(operator.index, True), layer)
                for layer in range(layers[operator.index] + 1, layers[reader])
            ]
            start, end = centres[operator.index], centres[reader]
            first = Point(start.x, start.y + BOX.y / 2)
            last = Point(end.x, end.y - BOX.y / 2)
            edges[operator.index, reader] = (first, *middle, last)
    edges = columns.around(edges)
    return Layout(centres=centres, edges=edges, width=columns.width, height=columns.height)


def _layers(operators: Operators) -> list[int]:
    layers: list[int] = []
    for operator in operators:
        layers.append(max((layers[p] + 1 for p in operator.producers), default=0))
    return layers


def _spots(operators: Operators, layers: Sequence[int]) -> list[list[_Spot]]:
    """What is in each layer. A line passes until its last reader, for all of them once."""
    rows: list[list[_Spot]] = [[] for _ in range(max(layers, default=0) + 1)]
    for operator in operators:
        at = layers[operator.index]
        rows[at].append(_Spot(operator.index, False))
        for layer in range(at + 1, max((layers[r] for r in operator.readers), default=at)):
            rows[layer].append(_Spot(operator.index, True))
    return rows


def _across(
    operators: Operators, rows: Sequence[Sequence[_Spot]], layers: Sequence[int]
) -> list[dict[_Spot, float]]:
    """Horizontal centres by layer; the origin is arbitrary."""
    placed: list[dict[_Spot, float]] = []
    for at, row in enumerate(rows):
        wanted = []
        for spot in row:
            sources = (spot.operator,) if spot.passes else operators[spot.operator].producers
            above = [placed[-1][_Spot(source, layers[source] < at - 1)] for source in sources]
            wanted.append((sum(above) / len(above) if above else 0.0, spot))
        wanted.sort()
        centres = _spread([x for x, _ in wanted], [_width(spot) for _, spot in wanted])
        placed.append({spot: x for (_, spot), x in zip(wanted, centres, strict=True)})
    return placed


def _spread(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Move places apart until they do not overlap, each as little as that allows."""
    from scipy.optimize import isotonic_regression  # slow to import

    steps = ((left + right) / 2 + _GAP for left, right in pairwise(widths))
    offsets = np.fromiter(accumulate(steps, initial=0.0), np.float64)
    # Without the room that the places to their left take, the places must only be in order.
    centres: list[float] = (isotonic_regression(wanted - offsets).x + offsets).tolist()
    return centres


def _width(spot: _Spot) -> float:
    return _WIRE if spot.passes else BOX.x


class _Columns:
    """Turns layers and places across into points, column after column."""

    def __init__(
        self, rows: Sequence[Sequence[_Spot]], across: Sequence[Mapping[_Spot, float]]
    ) -> None:
        self._across = across
        count = -(-len(rows) // _ROWS_PER_COLUMN)
        self._rows = -(-len(rows) // count)
        self._shift: list[float] = []
        self._starts: list[float] = []
        self.width = _MARGIN
        for column in range(count):
            inside = [
                (x - _width(spot) / 2, x + _width(spot) / 2)
                for layer in across[column * self._rows : (column + 1) * self._rows]
                for spot, x in layer.items()
            ] or [(0.0, BOX.x)]
            left, right = min(low for low, _ in inside), max(high for _, high in inside)
            self._shift.append(self.width - left)
            self._starts.append(self.width)
            self.width += right - left + (_GUTTER if column < count - 1 else _MARGIN)
        self._headroom = _HEADROOM if count > 1 else _MARGIN
        self.height = 2 * self._headroom + self._rows * _ROW

    def place(self, spot: _Spot, layer: int) -> Point:
        column, row = divmod(layer, self._rows)
        x = self._across[layer][spot] + self._shift[column]
        return Point(x, self._headroom + (row + 0.5) * _ROW)

    def around(
        self, edges: Mapping[tuple[int, int], tuple[Point, ...]]
    ) -> dict[tuple[int, int], tuple[Point, ...]]:
        """Lead lines that go on in the next column down, up between the columns and over.

        They run side by side and do not cross: the leftmost is the lowest below, the rightmost
        between the columns, and the lowest again above.
        """
        leaving: dict[int, set[tuple[float, int]]] = {}
        for (producer, _), points in edges.items():
            for before, after in pairwise(points):
                if after.y < before.y:
                    leaving.setdefault(self._column(after), set()).add((before.x, producer))
        tracks = {
            (column, producer): max(0, min(len(lines), _MOST_TRACKS) - 1 - at)
            for column, lines in leaving.items()
            for at, (_, producer) in enumerate(sorted(lines))
        }
        return {key: tuple(self._led(points, key[0], tracks)) for key, points in edges.items()}

    def _led(
        self, points: tuple[Point, ...], producer: int, tracks: Mapping[tuple[int, int], int]
    ) -> Iterator[Point]:
        yield points[0]
        for before, after in pairwise(points):
            if after.y < before.y:
                column = self._column(after)
                aside = tracks[column, producer] * _TRACK
                below = self.height - self._headroom + 4.0 + aside
                above = 4.0 + aside
                between = self._starts[column] - _GUTTER + 8.0 + aside
                yield Point(before.x, below)
                yield Point(between, below)
                yield Point(between, above)
                yield Point(after.x, above)
            yield after

    def _column(self, point: Point) -> int:
        return sum(start <= point.x for start in self._starts) - 1
