"""Run a span: one session, the values of one or several requests. Knows no engine and no clock."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from coinfer.backends.base import Session
from coinfer.backends.values import Value, Values, joined, parted, run_part, to_host
from coinfer.runtime.padded_values import padded, trimmed
from coinfer.runtime.span_io import SpanIO

__all__ = ["run_span"]


def run_span(
    session: Session, span_io: SpanIO, values: Sequence[Values], sizes: Sequence[int]
) -> Sequence[Values]:
    """Run a span for several requests: in one run if they can be stacked, else one by one.

    They can if every value that the span reads or makes either has the batch in front or cannot
    depend on it, and those that it reads without one are the same in all requests. Where they may
    be padded, they are, to the longest. A request with an empty batch runs alone: what has no batch
    may depend on there being none.

    Args:
        session: What runs the span.
        span_io: The span.
        values: What it reads, of each request.
        sizes: The batch of each request.

    Returns:
        What it makes, of each request; what has no batch is the same for all.

    Raises:
        ValueError: an output's first axis is not the batch, so it cannot be told whose it is.
    """
    stacks = len(values) > 1 and span_io.stacks and all(sizes)
    given = values
    if stacks and span_io.padding:
        given = padded(span_io, values)
    stacked = _stacked(span_io, given, sizes) if stacks else None
    if stacked is None:
        return [run_part(session, each) for each in values]
    *cuts, total = accumulate(sizes)
    parts: list[dict[str, Value]] = [{} for _ in sizes]
    for name, value in run_part(session, stacked).items():
        if name in span_io.batched_writes:
            if isinstance(value, np.ndarray) and value.shape[:1] != (total,):
                raise ValueError(f"output {name!r} of shape {value.shape} has no batch of {total}")
            each = parted(value, cuts)
        else:  # some of it may be answers, and callers may write into theirs
            each = [value, *(value.copy() for _ in cuts)]
        for part, own in zip(parts, each, strict=True):
            part[name] = own
    if given is not values and span_io.trimming:
        return [trimmed(span_io, own, part) for own, part in zip(values, parts, strict=True)]
    return parts


def _stacked(span_io: SpanIO, values: Sequence[Values], sizes: Sequence[int]) -> Values | None:
    stacked: dict[str, Value] = {}
    for name in span_io.reads:
        each = [known[name] for known in values]
        if name in span_io.batched:
            if span_io.may_differ and not _have(each, sizes):
                return None
            stacked[name] = joined(each)
        elif _all_equal(each):
            stacked[name] = each[0]
        else:
            return None
    return stacked


def _have(values: Sequence[Value], sizes: Sequence[int]) -> bool:
    """Whether each array has the batch of its request."""
    return all(
        not isinstance(value, np.ndarray) or len(value) == size
        for value, size in zip(values, sizes, strict=True)
    )


def _all_equal(values: Sequence[Value]) -> bool:
    first = values[0]
    return all(value is first or _equal(first, value) for value in values[1:])


def _equal(one: Value, other: Value) -> bool:
    arrays = to_host({"one": one, "other": other})
    return np.array_equal(arrays["one"], arrays["other"])
