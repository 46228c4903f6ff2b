"""Memory as scenarios, plans and programs write it: a budget, and what is always loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from coinfer.documents.fields import ByteSize, Name, Section
from coinfer.errors import ConfigurationError
from coinfer.machine.memories import HOST

__all__ = ["MemorySpec"]


def _by_name(value: Any) -> Any:
    return value if isinstance(value, Mapping) else {HOST: value}


class MemorySpec(Section):
    """How much may be loaded, and what is never evicted.

    It may be written as the budget alone.

    Attributes:
        budget: Bytes for what is loaded, by name of the memory: `host`, or a device. Written as one
            size, it is that of `host`. Empty: what is loaded is not limited.
        pin: Models that are loaded at the start and never evicted.

    >>> MemorySpec.of("1MiB").budget, MemorySpec.of({"budget": "1MiB", "pin": ["front"]}).pin
    ({'host': 1048576}, ('front',))
    """

    budget: Annotated[dict[str, ByteSize], BeforeValidator(_by_name)] = Field(default_factory=dict)
    pin: tuple[Name, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        is_long = isinstance(data, Mapping) and data.keys() & {"budget", "pin"}
        return data if is_long or isinstance(data, MemorySpec) else {"budget": data}

    @classmethod
    def of(cls, value: Any) -> MemorySpec:
        """Return what a program says.

        Raises:
            ConfigurationError: an unknown field, or a value that it cannot have.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(["memory", *(str(at) for at in problem["loc"])])
            text = problem["msg"].removeprefix("Value error, ")
            raise ConfigurationError(f"{where}: {text}") from error
