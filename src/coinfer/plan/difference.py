"""Difference of two plans, as sentences for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from coinfer.machine.span import Fork, Span
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Kind, Variant
from coinfer.units import format_seconds

__all__ = ["differences"]

_NOISE = 0.05
"""Times that differ by less than this share are the same, measured twice."""


def differences(one: Plan, other: Plan) -> Iterator[str]:
    """Say what is not the same in two plans, the first one before the arrow.

    >>> from coinfer.machine.machine import Machine
    >>> from coinfer.machine.processor import Processor
    >>> from coinfer.machine.profile import Profile
    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> a, b = (Plan.of(Machine(processors=(cpu,), profile=Profile.from_seconds({"m": {"cpu": s}})))
    ...         for s in (0.01, 0.02))
    >>> list(differences(a, b))
    ['m on cpu: 10 ms -> 20 ms']
    """
    if one.policy != other.policy:
        yield f"policy: {one.policy.text} -> {other.policy.text}"
    yield from _changed("memory", dict(one.memory), dict(other.memory))
    yield from _changed("pinned", ", ".join(one.pinned), ", ".join(other.pinned))
    yield from _changed("rates", dict(one.rates), dict(other.rates))
    for what in sorted({*one.machine.identity, *other.machine.identity}):
        texts = (plan.machine.identity.get(what) or "none" for plan in (one, other))
        yield from _changed(f"machine: {what}", *texts)
    for name in [*one.models, *(n for n in other.models if n not in one.models)]:
        if name not in other.models:
            yield f"{name}: only in the first"
        elif name not in one.models:
            yield f"{name}: only in the second"
        else:
            yield from _of_model(one, other, name)
    for name in dict.fromkeys((*one.fused, *other.fused)):
        if name not in other.fused:
            yield f"fused {name}: only in the first"
        elif name not in one.fused:
            yield f"fused {name}: only in the second"
        else:
            before, after = one.fused[name], other.fused[name]
            for what in ("models", "processors", "batch"):
                yield from _changed(
                    f"fused {name}: {what}", getattr(before, what), getattr(after, what)
                )
    yield from (f"warning only in the first: {w}" for w in one.warnings if w not in other.warnings)
    yield from (f"warning only in the second: {w}" for w in other.warnings if w not in one.warnings)


def _of_model(one: Plan, other: Plan, name: str) -> Iterator[str]:
    before, after = one.models[name], other.models[name]
    for what in (
        "source",
        "fingerprint",
        "batch",
        "fixed_batch",
        "filling",
        "batching",
        "padding",
        "sizes",
    ):
        yield from _changed(f"{name}: {what}", getattr(before, what), getattr(after, what))
    cuts = before.original, after.original
    if cuts[0].units != cuts[1].units:
        yield f"{name}: cut: {cuts[0].n_units} -> {cuts[1].n_units} units"
    yield from _changed(f"{name}: forks", *(_forks(cut.forks) for cut in cuts))
    spans = [_spans(cut.spans) for cut in cuts]
    for processor in sorted({*spans[0], *spans[1]}):
        texts = (row.get(processor, "not loaded") for row in spans)
        yield from _changed(f"{name} on {processor}", *texts)
    times = one.profile.restricted([name]), other.profile.restricted([name])
    for key, entry in times[0]:
        found = times[1].entries.get(key)
        if found is not None and abs(found.mean_s - entry.mean_s) > _NOISE * entry.mean_s:
            where = f"{name} on {key.processor}" + _span(key.span, cuts[0].n_units)
            yield f"{where}: {format_seconds(entry.mean_s)} -> {format_seconds(found.mean_s)}"
    for kind in sorted({*before.variants, *after.variants} - {Kind.ORIGINAL}):
        texts = (_variant(each.variants.get(kind)) for each in (before, after))
        yield from _changed(f"{name}: {kind} variant", *texts)
    errors = one.output_errors, other.output_errors
    for processor in sorted({*errors[0], *errors[1]}):
        texts = (_error(plan.get(processor, {}).get(name)) for plan in errors)
        yield from _changed(f"{name} on {processor}: output error", *texts)


def _changed(what: str, before: object, after: object) -> Iterator[str]:
    if before != after:
        yield f"{what}: {before} -> {after}"


def _variant(variant: Variant | None) -> str:
    if variant is None:
        return "none"
    where = ", ".join(variant.spans) or "nowhere"
    return f"{variant.use.value.replace('_', ' ')}, error {variant.error:.3g}, on {where}"


def _error(error: float | None) -> str:
    return "none" if error is None else f"{error:.3g}"


def _forks(forks: Iterable[Fork]) -> str:
    return ", ".join(f"{first}-{middle}-{last}" for first, middle, last in forks) or "none"


def _spans(row: Mapping[str, tuple[Span, ...]]) -> dict[str, str]:
    return {
        processor: "units " + ", ".join(f"{span.first}-{span.last}" for span in spans)
        for processor, spans in row.items()
    }


def _span(span: Span, n_units: int) -> str:
    return "" if n_units == 1 else f", units {span.first}-{span.last}"
