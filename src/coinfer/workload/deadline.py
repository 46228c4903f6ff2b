"""Deadline: by when an answer is wanted, as a scenario states it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import PlainValidator

from coinfer.documents.fields import positive_seconds

__all__ = ["PERIOD", "Deadline"]

PERIOD: Literal["period"] = "period"


def _deadline(value: Any) -> Any:
    return value if value is None or value == PERIOD else positive_seconds(value)


Deadline: TypeAlias = Annotated[float | Literal["period"] | None, PlainValidator(_deadline)]
"""Seconds from the moment a request is due; `period`: until the next one of the process is due."""
