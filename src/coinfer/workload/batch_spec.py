"""Batch as a scenario or a program asks for it: samples per request, and who shares executions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import PlainValidator, ValidationError, model_validator

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


class BatchSpec(Section):
    """How requests of a model are batched.

    It may be written as the number of samples in each request, as `auto`, or as `off`.

    Attributes:
        samples: Samples in each request, as its caller stacked them.
        max: Samples that one execution serves at most, for several requests; `auto`: as many as
            the measured times say that it pays, up to 16; `off`: it serves one request.
        max_delay: Seconds for which a request may be held back until others come.

    >>> BatchSpec.of("off").max, BatchSpec.of({"max": 8, "max_delay": "2ms"}).max_delay
    ('off', 0.002)
    """

    samples: Count = 1
    max: Annotated[Most, PlainValidator(_most)] = "auto"
    max_delay: NonNegativeSeconds = 0.0

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
