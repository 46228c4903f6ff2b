"""Measured run: the times of one span as they are saved beside a plan, and read again.

A span of a model that is cut is saved by its operators, so that it is found again after the cut was
moved by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from coinfer.errors import ConfigurationError
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span, all_spans
from coinfer.plan.index_ranges import parse_ranges, ranges_text
from coinfer.plan.variant import Variant

__all__ = ["MeasuredRun", "decode_runs", "encode_runs", "profile_of", "runs_of"]

_FORMAT = "coinfer-plan-profile/1"


_TYPES: Mapping[str, tuple[type, ...]] = {
    "processor": (str,),
    "batch": (int,),
    "span": (int,),
    "shape": (int,),
    "operators": (str,),
    "seconds": (int, float),
    "load_s": (int, float),
    "resident_bytes": (int,),
    "run_bytes": (int,),
    "error": (int, float, type(None)),
    "estimated": (bool,),
    "interpolated": (bool,),
}
"""The fields of an entry; those of lists are of what is in them."""


class MeasuredRun(NamedTuple):
    """What was measured of one span on one processor.

    Attributes:
        processor: Its name.
        batch: Samples in each run.
        operators: The span's operators; empty if the model is not cut.
        span: The span, where nobody knows the operators of units.
        measurement: The times.
        shape: The class of sizes of the samples.
    """

    processor: str
    batch: int
    operators: tuple[int, ...]
    span: Span
    measurement: Measurement
    shape: int = 0


def members(variant: Variant, span: Span) -> tuple[int, ...]:
    """Return the operators of a span, ascending; nothing if they are not known."""
    units = variant.units[span.first : span.last + 1]
    return tuple(sorted(index for unit in units for index in unit.operators))


def runs_of(profile: Profile, model: str, variant: Variant) -> list[MeasuredRun]:
    """Return what a profile has of a model, by operators."""
    return [
        MeasuredRun(
            key.processor, key.batch, members(variant, key.span), key.span, entry, key.shape
        )
        for key, entry in profile.restricted([model])
    ]


def profile_of(runs: Iterable[MeasuredRun], model: str, variant: Variant) -> Profile:
    """Return the times of those runs that are spans of a variant as it is cut now."""
    spans = all_spans(variant.n_units) if variant.units else []
    by_members = {members(variant, span): span for span in spans}
    entries = {}
    for run in runs:
        span = by_members.get(run.operators) if run.operators else run.span
        if span is not None and bool(run.operators) == bool(variant.units):
            key = ProfileKey(model, run.processor, run.batch, span, run.shape)
            entries[key] = run.measurement
    return Profile(entries)


def encode_runs(runs: Iterable[MeasuredRun]) -> dict[str, Any]:
    """Return a value that `json.dumps` writes and `decode_runs` reads."""
    rows = []
    for run in runs:
        row = {"processor": run.processor, "batch": run.batch, "span": run.span}
        row |= asdict(run.measurement)
        if run.shape:  # most models have one class only
            row["shape"] = run.shape
        if run.operators:
            row["operators"] = ranges_text(run.operators)
        rows.append(row)
    return {"format": _FORMAT, "entries": rows}


def decode_runs(data: Any) -> list[MeasuredRun]:
    """Read what `encode_runs` made.

    Raises:
        ConfigurationError: it is something else, or of another format version.
    """
    if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
        raise ConfigurationError(f"not a plan's profile of format {_FORMAT}; make the plan anew")
    whole = Profile({}).to_json()
    runs = []
    try:
        for row in data["entries"]:
            _check_row(row)
            operators = parse_ranges(row["operators"]) if "operators" in row else ()
            profile = Profile.from_json({**whole, "entries": [{**row, "model": ""}]})
            [(key, measurement)] = profile
            _, processor, batch, span, shape = key
            runs.append(MeasuredRun(processor, batch, operators, span, measurement, shape))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"damaged profile ({error!r}); make the plan anew") from error
    return runs


def _check_row(row: object) -> None:
    """Refuse fields that are unknown or of another type; true is no number."""
    if not isinstance(row, dict):
        raise TypeError(f"a run is {type(row).__name__}")
    for name, value in row.items():
        if name not in _TYPES:
            raise ValueError(f"unknown field {name!r}")
        values = value if name in ("span", "seconds") else [value]
        for each in values:
            if type(each) not in _TYPES[name]:
                raise TypeError(f"{name}: {each!r}")
