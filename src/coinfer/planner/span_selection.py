"""Span selection: choose which spans of a model are worth compiling, and measure only these.

The longest runs that each processor supports are measured first; they tell what every other span
should take (`graph.span_times`). Schedules for plausible states of the machine then say which spans
are worth it (`graph.span_choice`). What they want and nobody has measured yet is compiled and
measured, which may change the schedules; so it goes on until they want nothing unknown.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from coinfer.backends.base import Tensors
from coinfer.backends.registry import find_backends
from coinfer.errors import BackendError
from coinfer.graph.cut_model import CutModel
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition, choose_partition
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.graph.size_search import search_sizes
from coinfer.machine.processor import Processor, ordinary
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.planner.span_profiler import A_LITTLE_LONGER, SpanProfiler
from coinfer.profiling import Profiler
from coinfer.profiling.narrow_operators import NarrowOperators
from coinfer.profiling.support import find_support
from coinfer.workload.agreement_spec import AgreementSpec

__all__ = ["prepare"]

_MOST_RUNS = 3
"""Longest runs to measure per processor; on shorter ones it is as fast as on these."""

_MOST_CUTS = 3
"""How often a model is cut anew because its spans turned out too long, or all much too short."""

_MUCH_SHORTER = 0.5
"""Spans that are all shorter than this share of the limit were cut too small."""

_SAMPLES = 2
"""Inputs to measure spans with: values of all borders are kept for each."""


def prepare(
    model: Model,
    processors: Sequence[Processor],
    options: PartitionOptions,
    profiler: Profiler,
    *,
    search: bool = False,
    batch: int = 1,
    tolerance: float = math.inf,
    agreement: AgreementSpec = AgreementSpec(),
    spare: bool = True,
    feeds: Sequence[Tensors] | None = None,
    budget_bytes: float = math.inf,
) -> CutModel:
    """Cut a model where that pays, and measure the spans that are worth compiling.

    Args:
        model: What to cut.
        processors: What may run it, in the order of preference.
        options: How it may be cut.
        profiler: How spans are measured.
        search: Find the minimum subgraph size per processor instead of taking that of the options.
        batch: Batch size to measure at, where the model leaves it open.
        tolerance: Largest output error of a span in a lower precision.
        agreement: How near the outputs of spans must be to those of the reference.
        spare: Keep processors that another one with the same compute units makes superfluous.
        feeds: Sample inputs of the model, of batch 1 where that is open; None: random ones.
        budget_bytes: Memory for what is loaded. If the model's weights need more, spans that take
            half of it are among those that are used, where it is cut so finely: while one runs, the
            next one is loaded.

    Returns:
        The spans that are worth compiling; one unit, the whole model, where no cut is.

    Raises:
        ConfigurationError: the options do not fit the model and the processors.
        BackendError: no chain of spans that run reaches the model's end.
    """
    samples = (feeds or [model.sample_inputs(seed=seed) for seed in range(_SAMPLES)])[:_SAMPLES]
    span_profiler = _span_profiler(
        model, ordinary(processors), profiler, batch, tolerance, agreement, samples
    )
    support = _support(span_profiler)
    if search:
        options = dataclasses.replace(options, minimum_subgraph_size=1)
    longest = dataclasses.replace(options, max_span_s=None, pieces=None, branches=False)
    if options.mode is not Mode.WHOLE:
        longest = dataclasses.replace(longest, mode=Mode.MERGED)
    base = choose_partition(model, support, longest, operators=span_profiler.operators)
    span_profiler.measure(base, _longest_runs(base, span_profiler.times.shares))
    kept = span_profiler.table(base, spare=spare)
    able = {n: known for n, known in support.items() if any(n in row for row in kept.values())}
    if not able:
        raise BackendError(span_profiler.nothing_runs())
    if search:
        sizes = search_sizes(model, able, longest, span_profiler.times, span_profiler.operators)
        options = dataclasses.replace(options, minimum_subgraph_size=sizes)
    partition, chosen = _settled(span_profiler, able, options, spare=spare)
    if model.weight_bytes > budget_bytes:
        chosen |= _small_enough(span_profiler, partition, budget_bytes / 2)
    return span_profiler.finished(partition, chosen)


def _small_enough(
    span_profiler: SpanProfiler, partition: Partition, most_bytes: float
) -> set[tuple[Span, str]]:
    """Measure runs of units with at most so many bytes of weights, one after the other to the end.

    A unit that has more is a span of its own.
    """
    runs: list[tuple[Span, str]] = []
    first, n_units = 0, len(partition.units)
    while first < n_units:
        last = first
        while last + 1 < n_units and partition.spans.get(Span(first, last + 1)):
            if span_profiler.piece(partition, Span(first, last + 1)).weight_bytes > most_bytes:
                break
            last += 1
        span = Span(first, last)
        runs += [(span, name) for name in sorted(partition.spans.get(span, ()))]
        first = last + 1
    unknown = [r for r in runs if (r[1], partition.members(r[0])) not in span_profiler.found]
    span_profiler.measure(partition, unknown)
    return {r for r in runs if (r[1], partition.members(r[0])) in span_profiler.found}


def _span_profiler(
    model: Model,
    processors: Sequence[Processor],
    profiler: Profiler,
    batch: int,
    tolerance: float,
    agreement: AgreementSpec,
    feeds: Sequence[Tensors],
) -> SpanProfiler:
    backends = find_backends(processors, profiler.backends)
    operators = Operators.of(model.graph)
    return SpanProfiler(
        model=model,
        processors=processors,
        backends=backends,
        profiler=profiler,
        batch=batch,
        tolerance=tolerance,
        agreement=agreement,
        feeds=feeds,
        operators=operators,
        narrow=NarrowOperators.of(model, operators, processors, feeds[0], backends),
    )


def _support(span_profiler: SpanProfiler) -> dict[str, frozenset[int]]:
    """Return by processor the operators that it runs and computes in enough bits."""
    found = find_support(
        span_profiler.model,
        span_profiler.processors,
        span_profiler.backends,
        operators=span_profiler.operators,
    )
    span_profiler.problems.update(dict.fromkeys(found.problems.values()))
    right = {n: able - span_profiler.narrow.of_processor(n) for n, able in found.operators.items()}
    return {name: able for name, able in right.items() if able}


def _settled(
    span_profiler: SpanProfiler,
    support: Mapping[str, frozenset[int]],
    options: PartitionOptions,
    *,
    spare: bool,
) -> tuple[Partition, set[tuple[Span, str]]]:
    """Cut and measure, again if what was measured tells better where to cut."""
    model, operators, times = span_profiler.model, span_profiler.operators, span_profiler.times
    limit_s = options.max_span_s or math.inf
    for _ in range(_MOST_CUTS):
        rows = {n: row for n in support if (row := times.operator_seconds(n)) is not None}
        partition = choose_partition(model, support, options, seconds=rows, operators=operators)
        chosen = span_profiler.settle(partition, spare=spare)
        if limit_s == math.inf:
            break
        longest_s = span_profiler.longest_s(partition, chosen)
        fits = _MUCH_SHORTER * limit_s <= longest_s <= A_LITTLE_LONGER * limit_s
        if fits or not longest_s:
            break
    else:
        span_profiler.note_too_long(longest_s, limit_s)
    return partition, chosen


def _longest_runs(partition: Partition, shares: Sequence[float]) -> list[tuple[Span, str]]:
    """Return each processor's spans that no longer one of its own contains, the dearest few."""
    runs: list[tuple[Span, str]] = []
    for name in sorted({name for able in partition.spans.values() for name in able}):
        own = [span for span, able in partition.spans.items() if name in able]
        longest = [
            span
            for span in own
            if not any(o.first <= span.first and span.last <= o.last and o != span for o in own)
        ]
        cost = {span: sum(shares[i] for i in partition.members(span)) for span in longest}
        runs += [(span, name) for span in sorted(longest, key=lambda s: -cost[s])[:_MOST_RUNS]]
    return sorted(runs)
