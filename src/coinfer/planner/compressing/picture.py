"""Picture: the error against the time saved, as an SVG that needs nothing outside of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from coinfer.planner.compressing.report import CompressionReport

__all__ = ["picture_of"]

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 50, 50
_STYLE: Final = (
    "text{font:12px system-ui,Helvetica,Arial,sans-serif;fill:#1f2933}"
    ".title{font-size:15px;font-weight:600}.axis{stroke:#8a95a1}"
    ".way{fill:none;stroke:#0072b2;stroke-width:1.5}.dot{fill:#0072b2}"
    ".limit{stroke:#c67f00;stroke-dasharray:5 4}.chosen{fill:#00805c}"
)


def picture_of(report: CompressionReport) -> str:
    """Draw what was measured on the way: one dot per number of layers and ranks tried.

    The time is that of the layers alone, on average over processors; the error is that of the
    whole network on calibration samples, on a logarithmic axis. The line is what was allowed.
    """
    points = sorted({(p.saved_s * 1e3, p.error) for p in report.curve})
    lowest = min((e for _, e in points if 0 < e < math.inf), default=1e-3)
    highest = max([e for _, e in points if e < math.inf] + [report.max_error or lowest, lowest])
    frame = _Frame(
        most_ms=max([ms for ms, _ in points] + [1e-3]),
        low=math.floor(math.log10(lowest)),
        high=max(math.ceil(math.log10(highest)), math.floor(math.log10(lowest)) + 1),
    )
    return "\n".join(_parts(report, points, frame)) + "\n"


class _Frame:
    """Where a point of the chart is."""

    def __init__(self, *, most_ms: float, low: int, high: int) -> None:
        self.most_ms, self.low, self.high = most_ms, low, high

    def x(self, ms: float) -> float:
        """Pixels from the left."""
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ms / self.most_ms

    def y(self, error: float) -> float:
        """Pixels from the top; an error outside of the axis is at its end."""
        at = (math.log10(max(error, 10.0**self.low)) - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * min(at, 1.0)


def _parts(
    report: CompressionReport, points: Sequence[tuple[float, float]], frame: _Frame
) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}">'
    )
    yield f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    title = escape(f"{report.model}: error against time")
    yield f'<text class="title" x="{_LEFT}" y="24">{title}</text>'
    yield from _axes(frame)
    if report.max_error is not None:
        y = frame.y(report.max_error)
        yield f'<path class="limit" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text x="{_LEFT + 6}" y="{y - 5:.1f}">allowed: {report.max_error:g}</text>'
    way = "L".join(f"{frame.x(ms):.1f} {frame.y(error):.1f}" for ms, error in points)
    if way:
        yield f'<path class="way" d="M{way}"/>'
    for ms, error in points:
        inside = report.max_error is None or error <= report.max_error
        kind = "chosen" if inside else "dot"
        yield (
            f'<circle class="{kind}" cx="{frame.x(ms):.1f}" cy="{frame.y(error):.1f}" r="4">'
            f"<title>{ms:.3g} ms saved, error {error:.3g}</title></circle>"
        )
    yield "</svg>"


def _axes(frame: _Frame) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM
    yield f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>'
    for power in range(frame.low, frame.high + 1):
        y = frame.y(10.0**power)
        yield f'<text text-anchor="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{10.0**power:g}</text>'
    for part in range(5):
        ms = frame.most_ms * part / 4
        yield f'<text text-anchor="middle" x="{frame.x(ms):.1f}" y="{bottom + 18}">{ms:.2g}</text>'
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield (
        f'<text text-anchor="middle" x="{middle:.0f}" y="{_HEIGHT - 8}">'
        "ms saved, by the times of layers alone</text>"
    )
    yield f'<text x="{_LEFT - 50}" y="{_TOP - 8}">error</text>'
