"""Layer path: at which batch size each part of a cut model runs, so that what waits ends soonest.

The parts are the smallest spans that are loaded and lead through the model. Each is measured by
itself at a few batch sizes. The shortest path of `graph.layer_batches` then finds the batch size of
each, with what is kept between parts, stacked anew where the size changes, and loaded under a
budget of memory. Longer spans are taken to gain as their parts do.

Source: the question is that of the Batch Inference Scheduler (National Taiwan University of Science
and Technology, 2023); the model is our reconstruction (docs/batching.md).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from coinfer.backends.base import Tensors
from coinfer.backends.loading import load
from coinfer.backends.registry import find_backends
from coinfer.errors import CoinferError, ConfigurationError
from coinfer.graph.cut_model import CutModel
from coinfer.graph.layer_batches.batch_path import BatchPath, find_batch_path
from coinfer.graph.layer_batches.layer_group import BatchProblem, LayerGroup, MemoryBudget
from coinfer.machine.memories import HOST, memory_of
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.plan.plan import Plan
from coinfer.profiling import Profiler

__all__ = ["LayerPath", "Part", "layer_path", "measured_layers", "parts_of"]

_MOST_PARTS = 16
"""So many parts are measured one by one; a model of more is measured whole."""

_COPIED_PER_S = 4e9
"""Bytes per second at which samples are stacked anew: a low figure, so that little gain changes no
batch size."""

_AMPLE = 2**62
"""Bytes of a memory without a budget."""


class Part(NamedTuple):
    """A part of a cut model.

    Attributes:
        span: Its units.
        processor: Where its times are from: where one sample takes least.
    """

    span: Span
    processor: str


class LayerPath(NamedTuple):
    """The batch sizes found.

    Attributes:
        parts: Of the model, in order.
        path: What the shortest path says of each.
        requests: How many were taken to wait.
    """

    parts: Sequence[Part]
    path: BatchPath
    requests: int

    @property
    def by_unit(self) -> tuple[int, ...]:
        """The batch size of each unit."""
        return tuple(
            group.batch
            for part, group in zip(self.parts, self.path.groups, strict=True)
            for _ in range(part.span.first, part.span.last + 1)
        )

    @property
    def text(self) -> str:
        """Which units run at which batch size: `units 0-2 at 1, 3 at 8`."""
        sizes, texts, first = self.by_unit, [], 0
        for at, size in enumerate(sizes):
            if at + 1 == len(sizes) or sizes[at + 1] != size:
                texts.append(f"{first if first == at else f'{first}-{at}'} at {size}")
                first = at + 1
        return f"units {', '.join(texts)}"


def parts_of(plan: Plan, name: str) -> list[Part]:
    """Return the parts of a model: as many loaded spans as there are that lead through it."""
    samples, n_units = plan.models[name].batch, plan.models[name].original.n_units
    best: dict[Span, tuple[float, str]] = {}
    for key, entry in plan.profile.restricted([name]).at_smallest:
        if key.batch == samples:
            best[key.span] = min(best.get(key.span, (math.inf, "")), (entry.mean_s, key.processor))
    ways: list[tuple[int, float, list[Part]] | None] = [(0, 0.0, []), *[None] * n_units]
    for span, (seconds, processor) in sorted(best.items()):
        before, after = ways[span.first], span.last + 1
        if before is None or after > n_units:
            continue
        way = (before[0] + 1, before[1] - seconds, [*before[2], Part(span, processor)])
        known = ways[after]
        if known is None or way[:2] > known[:2]:
            ways[after] = way
    found = ways[n_units]
    return [] if found is None else found[2]


def measured_layers(
    plan: Plan,
    name: str,
    cut: CutModel,
    batches: Sequence[int],
    feeds: Sequence[Tensors],
    profiler: Profiler,
) -> tuple[Profile, Sequence[int]]:
    """Measure the parts of a cut model at some batch sizes.

    Args:
        plan: The plan, with the times of a request alone.
        name: The model.
        cut: It, with its spans.
        batches: Batch sizes.
        feeds: Samples of batch 1.
        profiler: How spans are measured.

    Returns:
        The times of all spans that are loaded: of parts where they were measured as they are, of
        others in proportion to their parts. And bytes of one sample that are kept before each part
        and behind the last. Both empty if that cannot be measured: the model is in too many parts,
        or one cannot run by itself.
    """
    parts = parts_of(plan, name)
    if not 1 < len(parts) <= _MOST_PARTS or any(part.span not in cut.pieces for part in parts):
        return Profile(), ()
    by_name = {processor.name: processor for processor in plan.processors}
    try:
        reads, kept = _border_values(cut, parts, by_name, feeds[0], profiler)
    except (CoinferError, KeyError):
        return Profile(), ()
    factors: dict[tuple[Span, int], float] = {}
    found: dict[ProfileKey, Measurement] = {}
    samples = plan.models[name].batch
    for part, read in zip(parts, reads, strict=True):
        piece = cut.pieces[part.span].model
        times = {}
        for batch in (samples, *batches):
            profile = profiler.profile(
                {piece.name: piece},
                [by_name[part.processor]],
                batch=batch,
                feeds={piece.name: [read]},
                skipped=lambda _skip: None,
            )
            times[batch] = next((entry for _, entry in profile), None)
        alone = times.pop(samples)
        for batch, entry in times.items():
            if alone is None or entry is None or alone.estimated or entry.estimated:
                return Profile(), ()
            factors[part.span, batch] = entry.mean_s / alone.mean_s
    for key, entry in plan.profile.restricted([name]).at_smallest:
        inside = [p.span for p in parts if key.span.first <= p.span.last <= key.span.last]
        if key.batch != samples or not inside:
            continue
        alone_s = {s: plan.profile.expected_s(name, key.processor, span=s) for s in inside}
        weights = {s: seconds or 1.0 for s, seconds in alone_s.items()}
        for batch in batches:
            factor = sum(weights[s] * factors[s, batch] for s in inside) / sum(weights.values())
            seconds = tuple(factor * each for each in entry.seconds)
            is_part = Part(key.span, key.processor) in parts
            found[key._replace(batch=batch)] = dataclasses.replace(
                entry, seconds=seconds, estimated=entry.estimated or not is_part
            )
    return Profile(found), kept


def _border_values(
    cut: CutModel,
    parts: Sequence[Part],
    processors: Mapping[str, Processor],
    feed: Tensors,
    profiler: Profiler,
) -> tuple[list[Tensors], list[int]]:
    """Run a sample part by part; return what each reads, and the bytes kept before and behind."""
    backends = find_backends(list(processors.values()), profiler.backends)
    values, reads = dict(feed), list[Tensors]()
    kept = [sum(value.nbytes for value in values.values())]
    for part in parts:
        piece, processor = cut.pieces[part.span], processors[part.processor]
        read = {spec.name: values[spec.name] for spec in piece.model.inputs}
        with closing(load(backends[processor.backend], piece.model, processor)) as session:
            values.update(session.run(read))
        values = {name: values[name] for name in piece.keeps}
        reads.append(read)
        kept.append(sum(value.nbytes for value in values.values()))
    return reads, kept


def layer_path(
    plan: Plan,
    name: str,
    most: int,
    kept: Sequence[int] = (),
    weights: Mapping[Span, int] | None = None,
) -> LayerPath | None:
    """Find the batch sizes of the parts of a cut model, by the times that a plan has.

    Args:
        plan: The plan.
        name: The model.
        most: Samples that one execution serves at most, and that wait.
        kept: Bytes of one sample that are kept before each part and behind the last; none: nothing
            is known of them, and they cost nothing.
        weights: Bytes of weights by part; None: what was measured to stay loaded.

    Returns:
        None if there are not several parts with times at several batch sizes, or memory does not
        hold one of them.
    """
    parts = parts_of(plan, name)
    if len(parts) < 2:
        return None
    kept = kept if len(kept) == len(parts) + 1 else [0] * (len(parts) + 1)
    groups, loads = [], list[tuple[int, float]]()
    for at, part in enumerate(parts):
        times = {
            key.batch: entry
            for key, entry in plan.profile.restricted([name]).at_smallest
            if (key.span, key.processor) == part and key.batch <= most
        }
        if len(times) < 2:
            return None
        first = next(iter(times.values()))
        size = first.resident_bytes if weights is None else weights.get(part.span, 0)
        loads.append((size, first.load_s))
        groups.append(
            LayerGroup(
                name=f"{part.span.first}-{part.span.last}",
                weight_bytes=size,
                input_bytes=kept[at],
                output_bytes=kept[at + 1],
                seconds={batch: entry.mean_s for batch, entry in times.items()},
            )
        )
    total, load_s = sum(size for size, _ in loads), sum(seconds for _, seconds in loads)
    processors = {each.name: each for each in plan.processors}
    pools = {memory_of(processors[part.processor]) for part in parts}
    pool = pools.pop() if len(pools) == 1 else HOST
    is_tight = pool in plan.memory and total > 0 and load_s > 0
    memory = MemoryBudget(
        bytes=plan.memory.get(pool, _AMPLE),
        # Without a budget all is loaded before anything runs.
        load_bytes_per_s=total / load_s if is_tight else math.inf,
        copy_bytes_per_s=_COPIED_PER_S,
    )
    try:
        path = find_batch_path(BatchProblem(groups=groups, requests=most, memory=memory))
    except ConfigurationError:  # the budget does not hold a part beside its values
        return None
    return LayerPath(parts, path, most)
