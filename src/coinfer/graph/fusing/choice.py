"""Choice: how each operator of matched models is merged. A value that can be printed.

Layouts are chosen at least cost: what operators cost in each, and what it costs to change between
two of them. `cut` finds the least; what things cost is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.costs import Costs
from coinfer.graph.fusing.cut import Change, least_labels
from coinfer.graph.fusing.layout import Layout
from coinfer.graph.fusing.rule import NotMergedError
from coinfer.graph.fusing.rules import RULES
from coinfer.graph.fusing.site import Site, Sites

__all__ = ["Decision", "Form", "choose"]

_CONTROLS = ("If", "Loop", "Scan")
_CONTROL_FLOW = "control flow runs per model; to merge it, export without it"

_LAYOUTS = (Layout.STACKED, Layout.PACKED, Layout.BRANCHES)


class Form(StrEnum):
    """What becomes of an operator.

    Members:
        ONCE: It computes the same in all models, so it is there once.
        GROUPED: One operator does the work of all.
        BRANCHES: One operator per model side by side, because that costs less.
        APART: One operator per model, because they cannot be merged.
    """

    ONCE = "once"
    GROUPED = "grouped"
    BRANCHES = "branches"
    APART = "apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one operator.

    Attributes:
        name: The operator's name in the first model.
        op_type: Its type.
        form: What becomes of it.
        layout: In which layout it works.
        reason: Why it is apart; empty otherwise.
    """

    name: str
    op_type: str
    form: Form
    layout: Layout
    reason: str = ""


def choose(sites: Sites, costs: Costs) -> tuple[Decision, ...]:
    """Choose for each site, in their order.

    Args:
        sites: Operators that correspond.
        costs: What they cost in each layout; modelled or measured.
    """
    able = [_layouts(site) for site in sites.items]
    prices: list[list[float | None]] = [
        [costs.run_s(site, layout) if layout in layouts else None for layout in _LAYOUTS]
        for site, (layouts, _) in zip(sites.items, able, strict=True)
    ]
    ends = [*sites.inputs, *sites.outputs]
    prices += [[0.0 if layout is Layout.BRANCHES else None for layout in _LAYOUTS] for _ in ends]
    labels = least_labels(prices, _changes(sites, costs))
    return tuple(
        _decision(site, _LAYOUTS[label], reason)
        for site, label, (_, reason) in zip(sites.items, labels, able, strict=False)
    )


def _decision(site: Site, layout: Layout, reason: str) -> Decision:
    form = Form.GROUPED
    if site.is_shared:
        form = Form.ONCE
    elif layout is Layout.BRANCHES:
        form = Form.APART if reason else Form.BRANCHES
    return Decision(name=site.name, op_type=site.op_type, form=form, layout=layout, reason=reason)


def _layouts(site: Site) -> tuple[frozenset[Layout], str]:
    """Return the layouts that an operator can work in, and why it is apart if it must be."""
    apart = frozenset({Layout.BRANCHES})
    if site.is_shared:
        return apart, ""
    rule = RULES.get(site.op_type)
    if rule is None:
        return apart, _CONTROL_FLOW if site.op_type in _CONTROLS else "no rule"
    ragged = [b for b in (*site.inputs, *site.outputs) if b is not None and not b.is_uniform]
    if ragged:
        return apart, f"the shape of {ragged[0].name!r} depends on data"
    try:
        found = rule.layouts(site)
    except NotMergedError as error:
        return apart, str(error)
    if not found:
        return apart, "no layout suits it"
    return found | apart, ""


def _changes(sites: Sites, costs: Costs) -> list[Change]:
    """List who hands a value to whom, and what it costs to change its layout in between.

    What the models are given and give are one tensor per model, as in branches.
    """
    count = len(sites.items)
    maker = {bundle: count + index for index, bundle in enumerate(sites.inputs)}
    readers: list[tuple[int, Bundle]] = []
    for index, site in enumerate(sites.items):
        maker.update({bundle: index for bundle in site.outputs if bundle is not None})
        readers += [(index, b) for b in dict.fromkeys(site.inputs) if b is not None]
    first = count + len(sites.inputs)
    readers += [(first + index, bundle) for index, bundle in enumerate(sites.outputs)]
    return [
        Change(maker[bundle], index, _costs_of(bundle, costs))
        for index, bundle in readers
        if bundle in maker and not bundle.is_shared
    ]


def _costs_of(bundle: Bundle, costs: Costs) -> tuple[tuple[float, ...], ...]:
    return tuple(
        tuple(costs.change_s(bundle, one, other) for other in _LAYOUTS) for one in _LAYOUTS
    )
