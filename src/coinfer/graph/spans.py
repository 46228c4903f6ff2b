"""Spans: which sequences of units may be executed as one, and on which processors.

Knows units and how long they take; knows no graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from coinfer.graph.units import UnitSubgraph
from coinfer.machine.span import Span

__all__ = ["SpanLimit", "fallback_spans", "merged_spans", "unit_spans"]

_Spans = dict[Span, frozenset[str]]

_ROUNDING = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanLimit:
    """How long a span of several units may take; by default, as long as it likes.

    Attributes:
        seconds: Expected seconds of each operator, by processor; others are not limited.
        longest_s: What a span may take at most, in seconds.
    """

    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    longest_s: float = math.inf


class _Clock:
    """Tells on which processors a run of units is short enough."""

    def __init__(self, units: Sequence[UnitSubgraph], limit: SpanLimit) -> None:
        self._longest_s = limit.longest_s * _ROUNDING
        self._ends = {
            name: [0.0, *accumulate(sum(row[i] for i in unit.operators) for unit in units)]
            for name, row in limit.seconds.items()
        }

    def within(self, processors: frozenset[str], span: Span) -> frozenset[str]:
        if span.first == span.last:
            return processors
        too_long = {
            name
            for name, ends in self._ends.items()
            if ends[span.last + 1] - ends[span.first] > self._longest_s
        }
        return processors - too_long


def unit_spans(units: Sequence[UnitSubgraph]) -> _Spans:
    """Give every unit on its own.

    >>> unit_spans([UnitSubgraph(operators=(0,), processors=frozenset({"cpu"}))])
    {Span(first=0, last=0): frozenset({'cpu'})}
    """
    return {Span(at, at): unit.processors for at, unit in enumerate(units)}


def merged_spans(units: Sequence[UnitSubgraph], limit: SpanLimit) -> _Spans:
    """Give every run of units with the processors that may run all of it."""
    clock = _Clock(units, limit)
    spans: _Spans = {}
    for first in range(len(units)):
        able = units[first].processors
        for last in range(first, len(units)):
            span = Span(first, last)
            able = clock.within(able & units[last].processors, span)
            if not able:
                break  # a longer run is no shorter, and no more processors support it
            spans[span] = able
    return spans


def fallback_spans(units: Sequence[UnitSubgraph], names: Iterable[str], limit: SpanLimit) -> _Spans:
    """Give the runs that each processor supports, and between them what others must run.

    Others are those that support everything; where none does, those that support the run.
    """
    clock = _Clock(units, limit)
    full = frozenset.intersection(*(unit.processors for unit in units))
    spans: _Spans = {}
    for name in names:
        first = 0
        while first < len(units):
            own = name in units[first].processors
            able = frozenset({name}) if own else full or units[first].processors
            last = first
            while last + 1 < len(units) and (name in units[last + 1].processors) == own:
                longer = Span(first, last + 1)
                still = clock.within(able & units[last + 1].processors, longer)
                if not still:
                    break
                able, last = still, last + 1
            spans[Span(first, last)] = spans.get(Span(first, last), frozenset()) | able
            first = last + 1
    return spans
