"""Gantt chart: executions as bars in the row of their processor, in a few windows of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coinfer.metrics.records import ExecutionOutcome, ExecutionRecord
from coinfer.report.chart import Chart, Trace, View, axis, model_trace, names_axis, row_height
from coinfer.report.facts import Facts, Ints
from coinfer.report.moves import has_moves, moves_caption, moves_traces
from coinfer.report.palette import OUTCOME_COLOURS
from coinfer.report.words import count, escaped, label, seconds

__all__ = ["gantt"]

_DRAWN = 1500
"""Bars per window: each is a shape in the browser, and this many still pan smoothly."""

_SEEN = 120
"""Bars that a window shows at first: so many can be told apart on a screen."""

_LISTED = 8
"""Requests that are named of one execution."""

_HOVER = (
    " on %{customdata[0]}<br>"
    "execution %{customdata[1]}, %{customdata[2]}<br>"
    "request %{customdata[3]}<br>"
    "batch %{customdata[4]}, started at %{base:.4f} s<br>"
    "waited %{customdata[5]} before it<br>"
    "took %{customdata[6]}, expected %{customdata[7]}<br>"
    "service %{customdata[8]}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A moment worth looking at: the position of an execution there, and what to call it."""

    label: str
    why: str
    position: int


def gantt(facts: Facts, colours: dict[str, str]) -> Chart | None:
    """Draw the executions around the moments worth looking at; None if nothing ran."""
    if not facts.executions:
        return None
    used = np.unique(facts.run_processor)
    rows = {int(number): row for row, number in enumerate(used)}
    total = len(facts.executions)
    sets: list[list[Trace]] = []
    views: list[View] = []
    drawn: dict[tuple[int, int], int] = {}
    places: dict[int, _Place] = {}
    for place in _places(facts):
        places.setdefault(place.position, place)
    for place in places.values():
        part = _around(place.position, _DRAWN, total)
        if part not in drawn:
            drawn[part] = len(sets)
            sets.append(_traces(facts, part, rows, colours))
        views.append(_view(facts, place, part, drawn[part]))
    labels = [label(facts.processors[number]) for number in used]
    if has_moves(facts):
        labels.append("loading")
        moves = list(moves_traces(facts, len(rows), colours))
        sets = [[*traces, *moves] for traces in sets]
    return Chart(
        id="gantt",
        title="What ran where",
        caption=_caption(facts, used),
        sets=sets,
        views=views,
        height=row_height(len(labels), 46),
        layout={
            "barmode": "overlay",
            "bargap": 0.2,
            "dragmode": "pan",
            "xaxis": axis("seconds since the load began", range=list(views[0].range_s)),
            "yaxis": names_axis(labels),
        },
    )


def _caption(facts: Facts, used: Ints) -> str:
    idle = [escaped(n) for i, n in enumerate(facts.processors) if i not in set(used.tolist())]
    never = f" Never used: {', '.join(idle)}." if idle else ""
    return (
        "One bar per execution, in the colour of its model; a number: so many requests shared it; "
        "a red frame: it served a request that was late; black: it failed or was abandoned. "
        "Drag to pan; zoom with Ctrl and the "
        f"wheel or with + and −; double-click to go back; hover for details.{never}"
        + moves_caption(facts)
    )


def _around(position: int, most: int, total: int) -> tuple[int, int]:
    """First and last (exclusive) of at most so many positions around one."""
    first = max(0, min(position - most // 2, total - most))
    return first, min(total, first + most)


def _places(facts: Facts) -> Iterator[_Place]:
    """Where to look, the most telling first; some may be at the same position."""

    def place(label: str, why: str, at_s: float) -> _Place:
        """The place of the first execution that starts from a moment on."""
        at = int(np.searchsorted(facts.run_start_s, at_s))
        return _Place(label=label, why=why, position=min(at, len(facts.executions) - 1))

    yield place("Start of measuring", "from the start of measuring", facts.begin_s)
    latencies_s = np.where(facts.counted & facts.completed, facts.answered_s - facts.due_s, -1.0)
    if latencies_s.size and latencies_s.max() > 0:
        at = int(np.argmax(latencies_s))
        number = list(facts.requests)[at]
        why = f"around request {number}, the slowest ({seconds(float(latencies_s[at]))})"
        yield place("Slowest request", why, facts.left_s[at])
    at_s, waiting = _longest_queue(facts)
    if waiting >= 2:
        why = f"around the longest queue ({waiting} requests waited)"
        yield place("Longest queue", why, at_s)


def _longest_queue(facts: Facts) -> tuple[float, int]:
    """When most requests waited, inside the measuring window, and how many."""
    moments = np.concatenate([facts.due_s, facts.left_s])
    steps = np.repeat([1, -1], len(facts.due_s))
    order = np.lexsort((steps, moments))
    waiting = np.cumsum(steps[order])
    inside = (moments[order] >= facts.begin_s) & (moments[order] < facts.end_s)
    if not inside.any():
        return 0.0, 0
    best = int(np.argmax(np.where(inside, waiting, -1)))
    return float(moments[order][best]), int(waiting[best])


def _view(facts: Facts, place: _Place, part: tuple[int, int], traces: int) -> View:
    total = len(facts.executions)
    first, last = _around(place.position, _SEEN, total)
    if place.label == "Start of measuring":
        first, last = place.position, min(total, place.position + _SEEN)
    low_s = float(facts.run_start_s[first])
    high_s = float(facts.run_end_s[first:last].max())
    room_s = max((high_s - low_s) * 0.01, 1e-6)
    if part == (0, total):
        held = f"all {count(total)} executions can be reached by panning"
    else:
        held = (
            f"executions {count(part[0] + 1)} to {count(part[1])} of {count(total)} are drawn here "
            "and can be reached by panning; the others are only in the charts over time"
        )
    note = f"Shown: {place.why}, {seconds(low_s)} to {seconds(high_s)}; {held}."
    return View(
        label=place.label, note=note, range_s=(low_s - room_s, high_s + room_s), traces=traces
    )


def _traces(
    facts: Facts, part: tuple[int, int], rows: dict[int, int], colours: dict[str, str]
) -> list[Trace]:
    positions = np.arange(*part)
    return [
        _bars(facts, positions[facts.run_model[positions] == number], rows, model, colours[model])
        for number, model in enumerate(facts.models)
        if (facts.run_model[positions] == number).any()
    ]


def _bars(facts: Facts, positions: Ints, rows: dict[int, int], model: str, colour: str) -> Trace:
    records = [facts.executions[i] for i in positions.tolist()]
    good = [record.outcome is ExecutionOutcome.OK for record in records]
    late = [_served_late(facts, record) for record in records]
    return model_trace(
        "bar",
        model,
        _HOVER,
        orientation="h",
        base=facts.run_start_s[positions].round(6).tolist(),
        x=(facts.run_end_s[positions] - facts.run_start_s[positions]).round(6).tolist(),
        y=[rows[number] for number in facts.run_processor[positions].tolist()],
        width=0.8,
        marker={
            "color": [colour if fine else OUTCOME_COLOURS["failed"] for fine in good],
            "line": {
                "color": [OUTCOME_COLOURS["dropped"] if bad else "#ffffff" for bad in late],
                "width": [2 if bad else 0.6 for bad in late],
            },
        },
        customdata=[_details(facts, record) for record in records],
        **_shared_texts(records),
    )


def _shared_texts(records: Sequence[ExecutionRecord]) -> dict[str, Any]:
    """Return what lets bars say how many requests they serve; nothing if each serves one."""
    texts = [str(served) if (served := len(r.request_ids)) > 1 else "" for r in records]
    if not any(texts):
        return {}
    return {
        "text": texts,
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "constraintext": "inside",
    }


def _served_late(facts: Facts, record: ExecutionRecord) -> bool:
    served = (facts.requests.get(number) for number in record.request_ids)
    return any(request is not None and request.late for request in served)


def _details(facts: Facts, record: ExecutionRecord) -> list[str]:
    dues_s = [r.due_s for n in record.request_ids if (r := facts.requests.get(n)) is not None]
    waited_s = record.started_s - min(dues_s) if dues_s else None
    outcome = record.outcome.value + (f": {record.reason}" if record.reason else "")
    return [
        label(record.processor),
        str(record.id),
        label(outcome[:120]),
        _few(record.request_ids),
        str(record.batch),
        _ms(waited_s),
        _ms(record.finished_s - record.started_s),
        _ms(record.expected_s),
        _ms(record.service_s),
    ]


def _few(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_LISTED]))
    return shown + (f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else "")


def _ms(value_s: float | None) -> str:
    return "unknown" if value_s is None else f"{value_s * 1e3:,.2f} ms"
