"""Gathering: rows and elements by index. Each model's indices stay inside of its own table.

Embeddings become `GatherND` with M as a batch axis and not one long table with offset ids: a wrong
id is an error then, as in the separate model, and never a row of another model.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.layout import Layout
from coinfer.graph.fusing.rule import Rule, both, need, possible, stacked
from coinfer.graph.fusing.rules.axes import axis_view, normal, shifted
from coinfer.graph.fusing.site import Site

__all__ = ["RULES"]

_BATCHED: Final = 12
"""`GatherND` has batch axes from this opset on."""


def _gather_layouts(site: Site) -> frozenset[Layout]:
    table, ids = site.given(0), site.given(1)
    need(table.is_tensor and ids.is_tensor, "the rank of an input is not known")
    axis = normal(site.number("axis", 0), table.rank)
    if ids.is_shared:
        return possible(site, stacked if axis == 0 else both)
    if table.is_shared:
        need(axis == 0, "it has indices of its own along another axis than the first")
        return possible(site, stacked, inputs=(1,))
    need(axis == 0, "it has indices of its own along another axis than the first")
    need(site.opset >= _BATCHED, f"it needs opset {_BATCHED}")
    return possible(site, stacked, inputs=(0, 1))


def _merge_gather(site: Site, layout: Layout, out: Builder) -> None:
    table, ids = site.given(0), site.given(1)
    axis = normal(site.number("axis", 0), table.rank)
    if ids.is_shared:
        view = axis_view([table], [axis], layout, out)
        (moved,) = shifted([axis], view)
        made = out.copy(site, [out.view(table, view), out.shared(ids)], axis=moved)
        out.give_all(site, made, view)
    elif table.is_shared and axis == 0:
        view = out.best([ids], layout, can_merge=ids.rank > 0)
        out.give_all(site, out.copy(site, [out.shared(table), out.view(ids, view)]), view)
    else:
        given = out.explicit(ids, layout)
        if ids.values[0].dtype != ir.DataType.INT64:  # what `Gather` takes, and `GatherND` does not
            wide = int(ir.DataType.INT64)
            given = out.one("Cast", given, name=f"{site.out.name}.wide", to=wide)
        places = out.unsqueeze(given, [1 + ids.rank], f"{site.out.name}.ids")
        tables = out.explicit(table, layout)
        rows = out.one("GatherND", tables, places, name=site.out.name, batch_dims=1)
        out.give(site.out, rows, View(layout, False))


def _elements_layouts(site: Site) -> frozenset[Layout]:
    need(all(each is not None and each.is_tensor for each in site.inputs), "a rank is not known")
    return possible(site, stacked, inputs=range(len(site.inputs)))


def _merge_elements(site: Site, layout: Layout, out: Builder) -> None:
    axis = normal(site.number("axis", 0), site.given(0).rank)
    operands = [None if each is None else out.explicit(each, layout) for each in site.inputs]
    out.give_all(site, out.copy(site, operands, axis=axis + 1), View(layout, False))


def _nd_layouts(site: Site) -> frozenset[Layout]:
    need(site.opset >= _BATCHED, f"it needs opset {_BATCHED}")
    return _elements_layouts(site)


def _merge_nd(site: Site, layout: Layout, out: Builder) -> None:
    operands = [None if each is None else out.explicit(each, layout) for each in site.inputs]
    made = out.copy(site, operands, batch_dims=site.number("batch_dims", 0) + 1)
    out.give_all(site, made, View(layout, False))


_WITHIN = "M becomes an axis of both inputs"

RULES = {
    "Gather": Rule(_gather_layouts, _merge_gather, "GatherND with M as a batch axis"),
    "GatherElements": Rule(_elements_layouts, _merge_elements, _WITHIN),
    "GatherND": Rule(_nd_layouts, _merge_nd, _WITHIN),
    "ScatterElements": Rule(_elements_layouts, _merge_elements, _WITHIN),
}
