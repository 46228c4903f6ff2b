"""Trace: records as a Chrome trace-event file that opens in Perfetto (ui.perfetto.dev).

Format: "Trace Event Format" (Google, 2016), the JSON object form. Processors are the threads of
one process, with a complete slice ('X') per execution. Requests are asynchronous slices ('b',
'e') of a second process from due to answered, one group per model, with a counter ('C') of the
requests that wait. With a memory budget a third process has a slice per load and a mark per
eviction, and counters of the bytes that are loaded and that the process holds. Events are written
one by one; only the sort order is held in memory.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from coinfer.documents.writing import replacing
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.metrics.memory_track import NO_MEMORY, MemoryRecords
from coinfer.metrics.records import ExecutionRecord, RequestRecord

__all__ = ["trace_events", "write_trace"]

_PROCESSORS = 1
_REQUESTS = 2
_MEMORY = 3

_Event = dict[str, Any]


def write_trace(
    path: Path,
    *,
    requests: Iterable[RequestRecord],
    executions: Iterable[ExecutionRecord],
    processors: Sequence[Processor],
    memory: MemoryRecords = NO_MEMORY,
    metadata: Mapping[str, Any] | None = None,
    origin_s: float = 0.0,
) -> None:
    """Write a trace file; the file is replaced in one step.

    Args:
        path: Where to; compressed if it ends in `.gz`.
        requests: `Recorder.requests()`.
        executions: `Recorder.executions()`.
        processors: Each gets a track, in this order.
        memory: `Recorder.memory()`.
        metadata: JSON values that Perfetto shows beside the trace, e.g. scenario and policy.
        origin_s: The moment, in the driver's time, that the trace calls zero.

    Raises:
        OSError: the file cannot be written.
    """
    with _opened(path, compressed=path.suffix == ".gz") as file:
        other = json.dumps(dict(metadata or {}), default=str)
        file.write(f'{{"displayTimeUnit":"ms","otherData":{other},"traceEvents":[')
        # One encoder serves all events: `json.dumps` with options makes a new one per call.
        encode = json.JSONEncoder(separators=(",", ":")).encode
        separator = "\n"
        events = trace_events(requests, executions, processors, origin_s=origin_s)
        for event in chain(events, _loading(memory, origin_s)):
            file.write(separator)
            file.write(encode(event))
            separator = ",\n"
        file.write("\n]}\n")


def trace_events(
    requests: Iterable[RequestRecord],
    executions: Iterable[ExecutionRecord],
    processors: Sequence[Processor],
    *,
    origin_s: float = 0.0,
) -> Iterator[_Event]:
    """Yield the trace events: names of tracks, then each track in the order of time."""
    tracks = {processor.name: number for number, processor in enumerate(processors, start=1)}
    yield from _names(processors)
    ordered = sorted(executions, key=lambda record: record.started_s)
    for record in ordered:
        track = tracks.setdefault(record.processor, len(tracks) + 1)
        yield _slice(record, track, origin_s)
    end_s = max((record.finished_s for record in ordered), default=origin_s)
    for group in _by_model(requests).values():
        yield from _request_slices(group, origin_s, end_s)
        yield from _waiting(group, origin_s)


@contextmanager
def _opened(path: Path, *, compressed: bool) -> Iterator[TextIO]:
    with replacing(path) as raw, ExitStack() as layers:
        stream = raw
        if compressed:
            # The header gets no name and no time, so that equal runs give equal files.
            packed = gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=5, mtime=0)
            stream = cast(BinaryIO, layers.enter_context(packed))
        yield layers.enter_context(io.TextIOWrapper(stream, encoding="utf-8"))


def _names(processors: Sequence[Processor]) -> Iterator[_Event]:
    for process, name in ((_PROCESSORS, "processors"), (_REQUESTS, "requests")):
        yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
        order = {"sort_index": process}
        yield {"ph": "M", "name": "process_sort_index", "pid": process, "args": order}
    for track, processor in enumerate(processors, start=1):
        where = {"ph": "M", "pid": _PROCESSORS, "tid": track}
        label = f"{processor.name} ({processor.backend} {processor.precision})"
        yield {**where, "name": "thread_name", "args": {"name": label}}
        yield {**where, "name": "thread_sort_index", "args": {"sort_index": track}}


def _us(at_s: float, origin_s: float) -> float:
    return round((at_s - origin_s) * 1e6, 3)


def _slice(record: ExecutionRecord, track: int, origin_s: float) -> _Event:
    start_us = _us(record.started_s, origin_s)
    return {
        "ph": "X",
        "pid": _PROCESSORS,
        "tid": track,
        "name": f"{record.model}{_span_text(record.span)}",
        "cat": record.outcome.value,
        "ts": start_us,
        # Computed from the rounded ends: back-to-back slices then touch and do not overlap.
        "dur": round(_us(record.finished_s, origin_s) - start_us, 3),
        "args": {
            "execution": record.id,
            "model": record.model,
            "batch": record.batch,
            "requests": list(record.request_ids),
            "expected_ms": round(record.expected_s * 1e3, 6),
            "outcome": record.outcome.value,
            **({"reason": record.reason} if record.reason else {}),
        },
    }


def _loading(memory: MemoryRecords, origin_s: float) -> Iterator[_Event]:
    """Yield what was loaded and evicted, and the bytes that were taken."""
    if not any(memory):
        return
    where = {"pid": _MEMORY, "tid": 0}
    yield {"ph": "M", "name": "process_name", "pid": _MEMORY, "args": {"name": "memory"}}
    yield {"ph": "M", "name": "thread_name", **where, "args": {"name": "loader"}}
    for record in memory.loads:
        if record.finished_s is None:
            continue
        begin_us, end_us = _us(record.started_s, origin_s), _us(record.finished_s, origin_s)
        name = record.model + _span_text(record.span)
        args: _Event = {"bytes": record.size_bytes, "processors": list(record.processors)}
        if record.reason:
            args["reason"] = record.reason
        load = {"ph": "X", **where, "name": name, "cat": "load", "ts": begin_us}
        yield {**load, "dur": round(end_us - begin_us, 3), "args": args}
    for gone in memory.evictions:
        name = f"evict {gone.model}{_span_text(gone.span)}"
        yield {"ph": "i", **where, "name": name, "s": "t", "ts": _us(gone.at_s, origin_s)}
    for sample in memory.samples:
        counted = {"ph": "C", **where, "ts": _us(sample.at_s, origin_s)}
        for name, (budget, taken) in sample.believed.items():
            yield {**counted, "name": name, "args": {"loaded": taken, "free": budget - taken}}
        if sample.held is not None:
            held = {"own": sample.held.anonymous, "files": sample.held.mapped}
            yield {**counted, "name": "process", "args": held}


def _span_text(span: Span) -> str:
    return "" if span == Span() else f"[{span.first}..{span.last}]"


def _by_model(requests: Iterable[RequestRecord]) -> dict[str, list[RequestRecord]]:
    groups: dict[str, list[RequestRecord]] = {}
    for record in requests:
        groups.setdefault(record.model, []).append(record)
    return groups


def _request_slices(
    records: Sequence[RequestRecord], origin_s: float, end_s: float
) -> Iterator[_Event]:
    # A request may be answered at once: its end must sort after its beginning.
    moments = [(record.due_s, 0, record.id, record) for record in records]
    moments += [(_closing_s(record, end_s), 1, record.id, record) for record in records]
    moments.sort(key=lambda moment: moment[:3])
    for at_s, closing, number, record in moments:
        yield {
            "ph": "e" if closing else "b",
            "pid": _REQUESTS,
            "tid": 0,
            "cat": record.model,
            "name": record.model,
            "id": f"0x{number:x}",
            "ts": _us(at_s, origin_s),
            "args": {} if closing else _request_args(record),
        }


def _closing_s(record: RequestRecord, end_s: float) -> float:
    return max(record.due_s, end_s) if record.finished_s is None else record.finished_s


def _request_args(record: RequestRecord) -> _Event:
    waited_s = None if record.started_s is None else record.started_s - record.due_s
    return {
        "request": record.id,
        "outcome": record.outcome.value if record.outcome else "unfinished",
        "late": record.late,
        "waited_ms": None if waited_s is None else round(waited_s * 1e3, 6),
        "priority": record.priority,
        "batch": record.batch,
        "processors": list(record.processors),
        **({"reason": record.reason} if record.reason else {}),
    }


def _waiting(records: Sequence[RequestRecord], origin_s: float) -> Iterator[_Event]:
    """Count the requests that are due and neither started nor answered."""
    changes = Counter(_us(record.due_s, origin_s) for record in records)
    for record in records:
        left_s = record.finished_s if record.started_s is None else record.started_s
        if left_s is not None:
            changes[_us(max(left_s, record.due_s), origin_s)] -= 1
    waiting = 0
    for at_us, change in sorted(changes.items()):
        waiting += change
        yield {
            "ph": "C",
            "pid": _REQUESTS,
            "tid": 0,
            "name": f"waiting: {records[0].model}",
            "ts": at_us,
            "args": {"requests": waiting},
        }
