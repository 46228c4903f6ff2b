"""Agreement as a scenario or a program asks for it: how near outputs must be to the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from coinfer.documents.fields import PositiveNumber, Section
from coinfer.errors import ConfigurationError

__all__ = ["AgreementSpec"]


class AgreementSpec(Section):
    """How near the outputs of a processor must be to those of the reference.

    Attributes:
        tolerance: Largest relative error of floats, `||out - ref|| / ||ref||`.
        nonfinite: What follows where NaN or infinity come out otherwise: `note` it, or be `strict`
            and leave the processor out.

    >>> AgreementSpec.of({"nonfinite": "strict"}).tolerance
    0.001
    """

    tolerance: PositiveNumber = 1e-3
    nonfinite: Literal["note", "strict"] = "note"

    @classmethod
    def of(cls, value: AgreementSpec | Mapping[str, Any]) -> AgreementSpec:
        """Return what a program asks for.

        Raises:
            ConfigurationError: an unknown field, or a value that it cannot have.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the value"
            raise ConfigurationError(
                f"agreement: {field}: {first['msg']}; write e.g. "
                "{'tolerance': 0.001, 'nonfinite': 'strict'}"
            ) from error
