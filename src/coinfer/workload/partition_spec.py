"""How a scenario wants models cut into spans. `coinfer.planner.passes.partition` cuts them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from coinfer.documents.fields import (
    Count,
    PositiveSeconds,
    Problem,
    Section,
    raise_all,
    shown,
    wrong,
)

__all__ = ["PartitionSpec", "Partitioning"]


def _size(value: Any) -> Any:
    if value == "search" or (type(value) is int and value >= 1):
        return value
    raise wrong(f"expected a number of operators from 1 or `search`, got {shown(value)}")


class PartitionSpec(Section):
    """How models are cut.

    Attributes:
        mode: `whole`, `fallback_per_processor`, `unit` or `merged`.
        minimum_subgraph_size: A processor is not used for islands of fewer operators; `search`:
            the size with which the model should finish first.
        pieces: Cut into at least so many units of about equal cost.
        max_span_s: No span may take longer than this, so that nothing urgent waits longer for it.
        branches: Cut around branches, so that two processors can run them at the same time.
    """

    mode: Literal["whole", "fallback_per_processor", "unit", "merged"] = "merged"
    minimum_subgraph_size: Annotated[int | Literal["search"], PlainValidator(_size)] = 7
    pieces: Count | None = None
    max_span_s: PositiveSeconds | None = Field(alias="max_span", default=None)
    branches: bool = False

    @model_validator(mode="after")
    def _parts_branches(self) -> PartitionSpec:
        if self.branches and self.mode not in ("unit", "merged"):
            raise_all([Problem(("branches",), "needs `mode: merged` or `mode: unit`")])
        return self


def _short_form(value: Any) -> Any:
    return {"mode": value} if isinstance(value, str) else value


Partitioning: TypeAlias = Annotated[PartitionSpec | None, BeforeValidator(_short_form)]
"""How to cut; a mode alone stands for it with the other fields left as they are."""
