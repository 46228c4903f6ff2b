"""Batch as a scenario or a program asks for it: samples per request, and who shares executions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationError, model_validator

from coinfer.documents.fields import Count, NonNegativeSeconds, Section, shown, wrong
from coinfer.errors import ConfigurationError

__all__ = ["AUTO_MOST", "BatchSpec"]

AUTO_MOST = 16
"""Samples that one execution serves at most where nobody says how many."""


Most = Literal["auto", "off"] | int
"""`auto`, `off`, or samples."""


def _most(value: Any) -> Any:
    """Read `auto`, `off` (which is false in YAML) or a number of samples."""
    if value is False:
        return "off"
    if value in ("auto", "off") or (type(value) is int and value >= 1):
        return value
    raise wrong(f"expected `auto`, `off` or a number of samples from 1, got {shown(value)}")


def _pad(value: Any) -> dict[str, dict[str, float]]:
    """Read `[seq]`, `{seq: 1}` or `{seq: {ids: 1, mask: 0}}`; what is not named is 0."""
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return {each: {} for each in value}
    if isinstance(value, Mapping) and all(isinstance(each, str) for each in value):
        found = {
            name: row if isinstance(row, Mapping) else {"": row} for name, row in value.items()
        }
        fills = [each for row in found.values() for each in row.values()]
        names = [each for row in found.values() for each in row]
        if all(isinstance(each, str) for each in names) and all(map(_is_fill, fills)):
            return {n: {of: float(fill) for of, fill in row.items()} for n, row in found.items()}
    raise wrong(
        "expected names of open dimensions, e.g. `[seq]`, or what to pad with, e.g. `{seq: 0}` or "
        f"`{{seq: {{ids: 1, mask: 0}}}}`, got {shown(value)}"
    )


def _is_fill(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


class BatchSpec(Section):
    """How requests of a model are batched.

    It may be written as the number of samples in each request, as `auto`, or as `off`.

    Attributes:
        samples: Samples in each request, as its caller stacked them.
        max: Samples that one execution serves at most, for several requests; `auto`: as many as
            the measured times say that it pays, up to 16; `off`: it serves one request.
        pad: Open dimensions, or inputs with one, along which requests may be padded so that those
            of unequal sizes share executions; what is filled in, by input, or as one number.
        max_delay: Seconds for which a request may be held back until others come.

    >>> BatchSpec.of("off").max, BatchSpec.of({"max": 8, "max_delay": "2ms"}).max_delay
    ('off', 0.002)
    """

    samples: Count = 1
    max: Annotated[Most, PlainValidator(_most)] = "auto"
    max_delay: NonNegativeSeconds = 0.0
    pad: Annotated[Mapping[str, Mapping[str, float]], PlainValidator(_pad)] = Field(
        default_factory=dict
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if isinstance(data, str) or data is False:
            return {"max": data}
        if isinstance(data, int) and not isinstance(data, bool):
            return {"samples": data}
        return data

    @property
    def most(self) -> int:
        """Samples that one execution serves at most; 0 if it serves one request."""
        if self.max == "off":
            return 0
        return AUTO_MOST if self.max == "auto" else int(self.max)

    def at_most(self, samples: int) -> BatchSpec:
        """Return the same with no more samples in an execution."""
        if self.max in ("auto", "off") or int(self.max) <= samples:
            return self
        return self.model_copy(update={"max": samples})

    @classmethod
    def of(cls, value: BatchSpec | Mapping[str, Any] | str) -> BatchSpec:
        """Return what a program asks for.

        Raises:
            ConfigurationError: an unknown field, or a value that it cannot have.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ConfigurationError(
                f"batch is {value!r}; write 'auto', 'off', or e.g. "
                "{'max': 16, 'max_delay': 0.002}"
            ) from error
