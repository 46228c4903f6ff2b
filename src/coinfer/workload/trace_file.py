"""Read recorded arrival times from CSV or JSON lines."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from coinfer.documents.fields import shown
from coinfer.documents.raw import parse_json, read_bytes
from coinfer.errors import ScenarioError
from coinfer.workload.times import Times

__all__ = ["TraceTimes", "read_trace", "times_of"]

_Row: TypeAlias = tuple[int, object, str | None]
"""Line number, time as written, model if the file names it."""


TraceTimes: TypeAlias = Mapping[str | None, Times]
"""Times by model, in seconds and in order; of None if the file does not name models."""


def times_of(model: str, trace: TraceTimes, path: Path) -> Times:
    """Return a model's times. A file without a model column has them for any model.

    Raises:
        ScenarioError: the file names models, and this one is not among them.
    """
    found = trace.get(None, trace.get(model))
    if found is None:
        known = ", ".join(sorted(filter(None, trace)))
        raise ScenarioError(f"{path}: has no rows for model {model!r}; it has {known}")
    return found


def read_trace(path: Path) -> TraceTimes:
    """Read a trace file.

    CSV with the columns `time_s,model`, or one column of times; a header is optional. With the
    ending `.jsonl`: one object per line, `{"time_s": 0.5, "model": "net"}`, `model` optional.
    Rows may be in any order.

    Raises:
        ScenarioError: no such file, no rows, or a row that is not understood, with its line.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot read this trace file: {error}") from error
    rows = _json_rows(text, path) if path.suffix in {".jsonl", ".ndjson"} else _csv_rows(text, path)
    times: dict[str | None, list[float]] = {}
    for line, time, model in rows:
        times.setdefault(model, []).append(_seconds(time, path, line))
    if not times:
        raise ScenarioError(f"{path}: has no arrival times; give one row per request")
    if None in times and len(times) > 1:
        raise ScenarioError(f"{path}: some rows name a model and some do not; name all or none")
    return {model: np.sort(np.array(all_)) for model, all_ in times.items()}


def _csv_rows(text: str, path: Path) -> Iterator[_Row]:
    rows = csv.reader(text.splitlines())
    try:
        for number, row in enumerate(rows, start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or (number == 1 and cells[0] == "time_s"):
                continue
            yield number, cells[0], cells[1] if len(cells) > 1 else None
    except csv.Error as error:
        raise ScenarioError(f"{path}:{rows.line_num}: no row of a CSV file: {error}") from error


def _json_rows(text: str, path: Path) -> Iterator[_Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            match parse_json(line):
                case {"time_s": time, "model": str(model)}:
                    yield number, time, model
                case {"time_s": time, **others} if "model" not in others:
                    yield number, time, None
                case _:
                    raise ValueError("not a row")
        except ValueError as error:
            raise ScenarioError(
                f'{path}:{number}: expected an object like {{"time_s": 0.5, "model": "net"}}'
            ) from error


def _seconds(value: object, path: Path, line: int) -> float:
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ScenarioError(
            f"{path}:{line}: {shown(value)} is not a time in seconds from the start"
        )
    return seconds
