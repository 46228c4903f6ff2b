"""Worth loading: on which processors a model is loaded: those that no other makes superfluous.

Rule: a processor is superfluous for a model if one that stays occupies the same units and takes no
longer, or hardly longer and clearly less memory (`LIGHT_GAIN`), or occupies some of them and takes
hardly longer (`WIDE_GAIN`). Where there are widths between one core and all, few of those that are
left are loaded: what the bound uses, what a lone request needs and what a failure would
(`coinfer.planner.columns`). There the spans of models that are cut are looked at like models
(`coinfer.planner.span_columns`); elsewhere they were chosen one by one, and stay.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from coinfer.backends.pools import POOLS
from coinfer.backends.registry import find_backends
from coinfer.hardware.environment import memory_bytes
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import Plan
from coinfer.planner.columns import Columns, Room, few, has_widths
from coinfer.planner.planning import Planning
from coinfer.planner.span_columns import SpanColumns
from coinfer.planner.useful import sizes_of, useful
from coinfer.units import format_bytes

__all__ = ["room_for", "worth_loading"]

_MEMORY_SHARE = 0.25
"""Of the memory, what sessions on many processors may take."""


def worth_loading(plan: Plan, planning: Planning) -> Plan:
    """Load each model only where no other processor makes that superfluous."""
    if planning.wishes.keep_all:
        return plan
    names, asked = planning.whole, planning.wishes.asked
    whole = plan.profile.restricted(names)
    kept = useful(whole, plan.processors, keep=asked, shares=plan.machine.shares)
    cut = plan.profile.restricted(planning.cut_models)
    choices = {name: _choice(plan, name, kept) for name in names}
    if has_widths(plan.processors) and (names or planning.cut_models):
        spans = SpanColumns.of(cut, planning.cut_models, plan.processors)
        columns = _few(plan, planning, kept, spans, cut)
        choices = {name: _columns_choice(columns[name]) for name in names}
        choices |= {name: _spans_choice(name, spans, columns) for name in planning.cut_models}
        kept = kept.of_pairs({(m, p) for m in names for p in columns[m].processors})
        cut = spans.kept(cut, columns)
        demand = planning.wishes.demand
        if demand.is_absolute:
            rates = {m: rate for m, rate in demand.rates.items() if m in plan.models and rate > 0}
            plan = dataclasses.replace(plan, rates=rates)
    for name, choice in choices.items():
        plan = plan.with_variant(name, plan.models[name].original, choice)
    return plan.loading(kept.merged(cut))


def room_for(processors: Sequence[Processor]) -> Room:
    """Return what more sessions on these processors may take of this machine."""
    return Room(
        threads=POOLS.room(max(processor.threads for processor in processors)),
        memory=_MEMORY_SHARE * (memory_bytes() or math.inf),
    )


def _few(
    plan: Plan, planning: Planning, kept: Profile, spans: SpanColumns, cut: Profile
) -> dict[str, Columns]:
    backends = find_backends(plan.processors, planning.profiler.backends)
    asked = planning.wishes.asked
    return few(
        kept.merged(useful(spans.apart(cut), plan.processors, keep=spans.pairs(asked))),
        plan.processors,
        spans.demand(planning.wishes.demand),
        room=room_for(plan.processors),
        keep={*asked, *spans.pairs(asked)},
        session_of=lambda processor: backends[processor.backend].sharing_key(processor),
    )


def _columns_choice(columns: Columns) -> Choice:
    left = tuple(Alternative(name, why) for name, why in columns.left)
    return Choice("worth_loading", "; ".join(columns.why), left)


def _spans_choice(model: str, spans: SpanColumns, columns: Mapping[str, Columns]) -> Choice:
    """Say of each span where it stays, and why."""
    why, left = [], []
    for name, span in spans.of_model(model):
        units = f"units {span.first}-{span.last}"
        why.append(f"{units} on {', '.join(columns[name].why)}")
        left += [Alternative(f"{units} on {where}", reason) for where, reason in columns[name].left]
    return Choice("worth_loading", "; ".join(why), tuple(left))


def _choice(plan: Plan, model: str, kept: Profile) -> Choice:
    """Say on which processors a model stays, and what the others lose by."""
    stays = {key.processor: entry.mean_s for key, entry in kept.restricted([model]).at_smallest}
    processors = {p.name: p for p in plan.processors}
    sizes = sizes_of(plan.profile.restricted([model]), plan.processors, plan.machine.shares)
    lost = []
    for key, entry in plan.profile.restricted([model]).at_smallest:
        if key.processor not in stays:
            mine = processors[key.processor].units
            others = [name for name in stays if processors[name].units <= mine]
            best = min(others, key=stays.__getitem__)
            why = f"{entry.mean_s / stays[best]:.2f}x as long as {best}"
            if len(mine) != (fewer := len(processors[best].units)):
                why += f", on {len(mine)} units instead of {fewer}"
            elif entry.mean_s < stays[best]:
                found = (sizes.get((model, name), 0.0) for name in (key.processor, best))
                own, other = (format_bytes(int(size)) for size in found)
                why += f", with {own} of memory instead of {other}"
            lost.append(Alternative(key.processor, why))
    return Choice("worth_loading", ", ".join(stays), tuple(lost))
