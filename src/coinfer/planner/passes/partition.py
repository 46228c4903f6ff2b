"""Partition: cut models where that pays, and load only the spans that are worth it.

Rule: a cut is made where support changes or where the user wants it, and a span is loaded if some
plausible state of the machine wants it (`graph.span_choice`, after Band's dynamic program, MobiSys
2022). The longest runs that each processor supports are measured first; they tell what every other
span should take (`graph.span_times`). What the schedules want and nobody has measured yet is
compiled and measured, which may change them; so it goes on until they want nothing unknown.
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
from coinfer.graph.partition import Mode, Partition, PartitionOptions, choose_partition
from coinfer.graph.size_search import search_sizes
from coinfer.machine.processor import Processor, ordinary
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Variant
from coinfer.planner.planning import Planning
from coinfer.planner.span_profiler import A_LITTLE_LONGER, SpanProfiler
from coinfer.profiling import Profiler
from coinfer.profiling.support import find_support
from coinfer.units import format_bytes, format_seconds

__all__ = ["partition", "prepare"]

_MOST_RUNS = 3
"""Longest runs to measure per processor; on shorter ones it is as fast as on these."""

_MOST_CUTS = 3
"""How often a model is cut anew because its spans turned out too long, or all much too short."""

_MUCH_SHORTER = 0.5
"""Spans that are all shorter than this share of the limit were cut too small."""

_SAMPLES = 2
"""Inputs to measure spans with: values of all borders are kept for each."""


def partition(plan: Plan, planning: Planning) -> Plan:
    """Cut the models that are wished to be, and add those that were given cut.

    Raises:
        BackendError: the processors cannot run all of a model together.
        ConfigurationError: an option does not fit.
    """
    wishes = planning.wishes
    asked = {model for model, _ in wishes.asked}
    notes: list[str] = []
    for name, wish in wishes.cuts.items():
        cut = prepare(
            planning.models[name],
            plan.processors,
            wish.options,
            planning.profiler,
            search=wish.search,
            batch=wishes.batches.get(name, 1),
            tolerance=wishes.tolerance,
            spare=wishes.keep_all or name in asked,
            feeds=planning.samples.get(name),
        )
        planning.cut_models[name] = cut
        notes += cut.warnings
    for name, cut in planning.cut_models.items():
        own = cut.renamed(name)
        loaded = own.profile.spans_by_processor(name)
        variant = Variant(n_units=cut.units, units=cut.operators, forks=cut.forks, spans=loaded)
        plan = plan.with_profile(plan.measured.merged(own.measured.merged(own.profile)))
        plan = plan.with_variant(name, variant, _choice(own))
        notes += _memory_notes(name, cut)
    return plan.warned(*notes)


def _choice(cut: CutModel) -> Choice:
    """Say what was chosen, and which spans were measured and are not worth loading."""
    loaded = {(key.span, key.processor) for key, _ in cut.profile}
    left = [
        Alternative(
            f"{key.span.first}-{key.span.last} on {key.processor}",
            f"{format_seconds(entry.mean_s)}, not wanted",
        )
        for key, entry in cut.measured
        if (key.span, key.processor) not in loaded
    ]
    what = "runs whole" if cut.units == 1 else f"{cut.units} units, {len(cut.pieces)} spans"
    return Choice("partition", what, tuple(left))


def _memory_notes(name: str, cut: CutModel) -> list[str]:
    """Say what partitioning costs in memory, if it does cost something."""
    extra = cut.resident_bytes - cut.whole_bytes
    if cut.units == 1 or not cut.whole_bytes or extra <= 0:
        return []
    return [
        f"{name} is cut into {len(cut.pieces)} spans of {cut.units} units: they hold "
        f"{format_bytes(cut.resident_bytes)}, {format_bytes(extra)} more than the whole model"
    ]


def prepare(
    model: Model,
    processors: Sequence[Processor],
    options: PartitionOptions,
    profiler: Profiler,
    *,
    search: bool = False,
    batch: int = 1,
    tolerance: float | None = None,
    spare: bool = True,
    feeds: Sequence[Tensors] | None = None,
) -> CutModel:
    """Cut a model where that pays, and measure the spans that are worth compiling.

    Args:
        model: What to cut.
        processors: What may run it, in the order of preference.
        options: How it may be cut.
        profiler: How spans are measured.
        search: Find the minimum subgraph size per processor instead of taking that of the options.
        batch: Batch size to measure at, where the model leaves it open.
        tolerance: Largest output error of a span in a lower precision; None: any.
        spare: Keep processors that another one with the same compute units makes superfluous.
        feeds: Sample inputs of the model, of batch 1 where that is open; None: random ones.

    Returns:
        The spans that are worth compiling; one unit, the whole model, where no cut is.

    Raises:
        ConfigurationError: the options do not fit the model and the processors.
        BackendError: no chain of spans that run reaches the model's end.
    """
    processors = ordinary(processors)
    backends = find_backends(processors, profiler.backends)
    span_profiler = SpanProfiler(
        model=model,
        processors=processors,
        backends=backends,
        profiler=profiler,
        batch=batch,
        tolerance=tolerance,
        feeds=(feeds or [model.sample_inputs(seed=seed) for seed in range(_SAMPLES)])[:_SAMPLES],
        operators=Operators.of(model.graph),
    )
    found = find_support(model, processors, backends, operators=span_profiler.operators)
    span_profiler.problems.update(dict.fromkeys(found.problems.values()))
    support = {name: able for name, able in found.operators.items() if able}
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
    return span_profiler.finished(partition, chosen)


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
