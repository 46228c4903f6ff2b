"""Partition: cut models where that pays, and load only the spans that are worth it.

Rule: a cut is made where support changes or where the user wants it, and a span is loaded if some
plausible state of the machine wants it, after Band's dynamic program (MobiSys 2022, section 4.2):
`planner.span_selection`.
"""

from __future__ import annotations

import math

from coinfer.graph.cut_model import CutModel
from coinfer.machine.memories import HOST
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Variant
from coinfer.planner.planning import Planning
from coinfer.units import format_bytes, format_seconds
from coinfer.workload.agreement_spec import AgreementSpec

__all__ = ["partition"]


def partition(plan: Plan, planning: Planning) -> Plan:
    """Cut the models that are wished to be, and add those that were given cut.

    Raises:
        BackendError: the processors cannot run all of a model together.
        ConfigurationError: an option does not fit.
    """
    wishes = planning.wishes
    if wishes.cuts:
        from coinfer.planner.span_selection import prepare  # needs the heavy libraries
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
            agreement=wishes.agreement,
            spare=wishes.keep_all or name in asked,
            feeds=planning.samples[name],
            budget_bytes=wishes.memory.get(HOST, math.inf),
        )
        planning.cut_models[name] = cut
        notes += cut.warnings
    for name, cut in planning.cut_models.items():
        own = cut.renamed(name)
        loaded = own.profile.spans_by_processor(name)
        variant = Variant(n_units=cut.units, units=cut.operators, forks=cut.forks, spans=loaded)
        plan = plan.with_profile(plan.measured.merged(own.measured.merged(own.profile)))
        plan = plan.with_variant(name, variant, *_agreement(own, wishes.agreement), _choice(own))
        planning.spoiling[name] = sorted(cut.spoiling)
        notes += _memory_notes(name, cut)
    return plan.warned(*notes)


def _agreement(cut: CutModel, spec: AgreementSpec) -> list[Choice]:
    """Say which spans must not run where, and where NaN or infinity come out otherwise."""
    if not cut.refused and not cut.spoiling:
        return []
    what = f"within {spec.tolerance:g} of the reference, span by span"
    if cut.spoiling:
        what += f"; NaN or infinity come out otherwise on {', '.join(sorted(cut.spoiling))}"
    return [Choice("agreement", what, cut.refused)]


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
