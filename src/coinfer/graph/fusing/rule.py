"""Rule: how one type of operator is merged. Choosing among layouts is not its business."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from coinfer.graph.fusing.builder import Builder
from coinfer.graph.fusing.layout import MERGED_LAYOUTS, Layout
from coinfer.graph.fusing.site import Site

__all__ = ["NotMergedError", "Rule", "both", "need", "possible", "stacked"]

_Layouts = frozenset[Layout]


class NotMergedError(Exception):
    """An operator cannot be merged; says why."""


class Rule(NamedTuple):
    """How one type of operator is merged.

    Attributes:
        layouts: Says in which layouts one operator can do the work of M, none or more; raises
            `NotMergedError` to say why there is none.
        merge: Adds that operator in one of these layouts, and says where its results are.
        text: What becomes of it, for the table in the docs.
    """

    layouts: Callable[[Site], _Layouts]
    merge: Callable[[Site, Layout, Builder], None]
    text: str


stacked: _Layouts = frozenset({Layout.STACKED})
both: _Layouts = MERGED_LAYOUTS


def need(condition: object, otherwise: str) -> None:
    """Refuse to merge unless something holds.

    Raises:
        NotMergedError: it does not; `otherwise` says why.
    """
    if not condition:
        raise NotMergedError(otherwise)


def possible(site: Site, wanted: Iterable[Layout], *, inputs: Iterable[int] = (0,)) -> _Layouts:
    """Keep the layouts that these inputs and all outputs can have."""
    bundles = [site.input(index) for index in inputs] + list(site.outputs)
    return frozenset(
        layout for layout in wanted if all(each is None or each.fits(layout) for each in bundles)
    )
