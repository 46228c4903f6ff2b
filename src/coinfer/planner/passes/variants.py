"""Variants: put what was planned of the cheaper forms of a model beside the model.

Rule: one that serves where the original would be late must be loaded where the scheduler may choose
the original, and is loaded there as far as it is faster there. A processor that only the variant is
worth loading on gets both if the variant is much faster there than on others of the same units.
Where a variant always serves, the original is not loaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from coinfer.machine.span import Span
from coinfer.machine.variant_use import Use
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Variant
from coinfer.planner.planning import PlannedVariant, Planning

__all__ = ["variants"]

_MUCH = 0.9
"""A variant is much faster on another processor if it takes this share of the time at most."""

_Spans = Mapping[str, tuple[Span, ...]]


def variants(plan: Plan, planning: Planning) -> Plan:
    """Make variants of what was planned as models of their own."""
    for name, planned in planning.variants.items():
        plan = _beside(plan, name, planned)
    for planned in planning.variants.values():
        model = plan.models[planned.model]
        has_always = any(
            each.use is Use.ALWAYS and each.may_serve
            for each in model.variants.values()
            if each is not model.original
        )
        if has_always and model.original.spans:
            original = dataclasses.replace(model.original, spans={}, forks=())
            plan = plan.with_variant(planned.model, original)
    return plan


def _beside(plan: Plan, name: str, planned: PlannedVariant) -> Plan:
    own, model = plan.models[name], plan.models[planned.model]
    plan = dataclasses.replace(
        plan, models={each: kept for each, kept in plan.models.items() if each != name}
    )
    original, spans = model.original, own.original.spans
    if planned.use is Use.WHEN_LATE and own.original.n_units == original.n_units == 1:
        spans, originals = _shared(plan, name, planned.model, spans, original.spans)
        original = dataclasses.replace(original, spans=originals)
    choices = [
        Choice(f"{each.by} of {planned.kind}", each.what, each.alternatives) for each in own.choices
    ]
    if not spans:
        why = "it is nowhere faster where the model is loaded"
        choices.append(Choice("variants", "none", (Alternative(planned.kind.value, why),)))
    plan = plan.with_variant(planned.model, original, *choices)
    if not spans:
        return plan.warned(f"{planned.model} has no {planned.kind} variant: {why}")
    variant: Variant = dataclasses.replace(
        own.original,
        kind=planned.kind,
        graph=planned.graph,
        spans=spans,
        error=planned.error,
        use=planned.use,
        batching=own.batching,
    )
    return plan.with_variant(planned.model, variant)


def _shared(
    plan: Plan, name: str, model: str, spans: _Spans, originals: _Spans
) -> tuple[_Spans, _Spans]:
    """Return where a variant is loaded, and where its original is."""
    mine, theirs = _seconds(plan, name), _seconds(plan, model)
    units = {processor.name: processor.units for processor in plan.processors}
    faster = {p for p in mine if p in theirs and mine[p] < theirs[p]}
    both = {p for p in originals if p in faster}
    for processor in spans:
        if processor in both or processor not in faster:
            continue
        alike = [mine[each] for each in both if units[each] == units[processor]]
        if mine[processor] <= _MUCH * min(alike, default=float("inf")) and alike:
            both.add(processor)
    whole = (Span(),)
    kept = {p.name: whole for p in plan.processors if p.name in both}
    needed = {p.name: whole for p in plan.processors if p.name in both or p.name in originals}
    return kept, needed


def _seconds(plan: Plan, name: str) -> dict[str, float]:
    """Return the seconds of a model or variant that runs whole, by processor."""
    return {
        key.processor: entry.mean_s
        for key, entry in sorted(plan.measured.restricted([name]).at_smallest, reverse=True)
    }
