"""Variants as a scenario or a program asks for them: which, how far off, and when they serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, model_validator

from coinfer.documents.fields import PositiveNumber, Problem, Section, base_of, raise_all
from coinfer.errors import ConfigurationError
from coinfer.machine.variant_use import Use

__all__ = ["AUTO", "VariantsSpec"]

AUTO = "auto"
"""In place of a file: coinfer makes it."""

_USUAL_ERROR = 0.02


def _graph(value: str, info: ValidationInfo) -> str:
    return value if value == AUTO else str(base_of(info) / value)


Graph = Annotated[str, Field(min_length=1), AfterValidator(_graph)]
"""An ONNX file, or `auto`."""


class VariantsSpec(Section):
    """Cheaper variants of a model beside the original.

    It may be written as the rule alone, e.g. `when_late`.

    Attributes:
        max_error: The most that outputs of a variant may be off those of the original,
            ||out - ref|| / ||ref||.
        use: When they serve.
        compressed: A file with a compressed form, or `auto`: it is made. Without it, and without
            `int8`, it is made, too.
        int8: A file with a quantised form, or `auto`.

    >>> VariantsSpec.of("when_late").asked, VariantsSpec.of({"int8": "auto"}).asked
    ({'compressed': 'auto'}, {'int8': 'auto'})
    """

    max_error: PositiveNumber = _USUAL_ERROR
    use: Use = Use.WHEN_LATE
    compressed: Graph | None = None
    int8: Graph | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"use": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _has_one(self) -> VariantsSpec:
        if {"compressed", "int8"} & self.model_fields_set and not (self.compressed or self.int8):
            raise_all([Problem(("compressed",), "names no variant; give a file or `auto`")])
        return self

    @property
    def asked(self) -> dict[str, str]:
        """What is asked for: by kind a file, or `auto`; nothing if none may serve."""
        if self.use is Use.NEVER:
            return {}
        kinds = {"compressed": self.compressed, "int8": self.int8}
        asked = {kind: graph for kind, graph in kinds.items() if graph is not None}
        return asked or {"compressed": AUTO}

    @classmethod
    def of(cls, value: VariantsSpec | Mapping[str, Any] | str) -> VariantsSpec:
        """Return what a program asks for.

        Raises:
            ConfigurationError: an unknown field, or a value that it cannot have.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ConfigurationError(
                f"variants are {value!r}; write 'when_late', 'always', 'never', or e.g. "
                "{'max_error': 0.02, 'use': 'when_late', 'compressed': 'small.onnx'}"
            ) from error
