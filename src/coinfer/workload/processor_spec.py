"""Processors as a scenario asks for them. `coinfer.hardware` finds what the machine has."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from coinfer.documents.fields import (
    Count,
    Name,
    OperatorTypes,
    PositiveNumber,
    Problem,
    Section,
    WholeNumber,
    check_one_declaration,
    raise_all,
    wrong,
)
from coinfer.machine.processor import WAKE_S, Processor

__all__ = ["DefaultProcessors", "PrecisionSpec", "Preempt", "ProcessorSpec", "Processors"]


def _preempt(value: Any) -> Any:
    if value is True or value is False or value == "auto":
        return value
    raise wrong(f"expected true, false or auto, got {value!r}")


Preempt: TypeAlias = Annotated[bool | Literal["auto"], BeforeValidator(_preempt)]
"""Whether urgent requests preempt others; `auto`: where that pays."""


class DefaultProcessors(Section):
    """The processors that are found on the machine, perhaps fewer of them.

    Attributes:
        backends: Only these backends; empty means all that are installed.
        cores: Only these cores, by the operating system's numbers; empty means all allowed ones.
        preempt: Add express processors, so that urgent requests preempt by priority; `auto` where
            that pays.
    """

    backends: tuple[str, ...] = ()
    cores: tuple[WholeNumber, ...] = ()
    preempt: Preempt = "auto"


class ProcessorSpec(Section):
    """One processor, described in full.

    Attributes:
        supported_ops: Operator types that it runs; empty: the backend is asked.
        unsupported_ops: Operator types that it must not be given; at most one of the two.
        overlays: Units on top of which it runs by priority, as an express processor.
    """

    name: Name
    backend: str
    device: str = "CPU"
    units: tuple[str, ...] = ()
    cores: tuple[WholeNumber, ...] = ()
    threads: Count | None = None
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    supported_ops: OperatorTypes = ()
    unsupported_ops: OperatorTypes = ()
    overlays: tuple[str, ...] = ()

    @field_validator("cores")
    @classmethod
    def _once_each(cls, cores: tuple[int, ...]) -> tuple[int, ...]:
        for core in cores:
            if cores.count(core) > 1:
                raise wrong(f"core {core} is there twice; name each core once")
        return cores

    @model_validator(mode="after")
    def _fits_together(self) -> ProcessorSpec:
        if self.device == "CPU" and not (self.units or self.cores):
            raise wrong("nothing says what it occupies; add e.g. `cores: [0]` or `units: [core0]`")
        if self.overlays and (self.threads or 1) > 1:
            raise_all([Problem(("threads",), "must be 1 beside `overlays`")])
        if not set(self.overlays).isdisjoint(self.units):
            raise_all([Problem(("units",), "must not be among `overlays`; leave them out")])
        check_one_declaration(self.supported_ops, self.unsupported_ops)
        return self

    def processor(self) -> Processor:
        """Build the processor.

        Units are the cores unless they are given; else the device. Those of an express processor
        are named after what it overlays.
        """
        cores = frozenset(f"core{core}" for core in self.cores)
        own = frozenset(f"{unit}+" for unit in self.overlays)
        return Processor(
            name=self.name,
            backend=self.backend,
            device=self.device,
            units=frozenset(self.units) or own or cores or frozenset({self.device}),
            threads=self.threads or (1 if own else max(1, len(self.cores))),
            precision=self.precision,
            cores=self.cores,
            options={key: str(value) for key, value in self.options.items()},
            supported_ops=frozenset(self.supported_ops),
            unsupported_ops=frozenset(self.unsupported_ops),
            overlays=frozenset(self.overlays),
            wake_s=WAKE_S if self.device == "CPU" else 0.0,
        )


class PrecisionSpec(Section):
    """Which precisions below fp32 may be used, and for which models.

    Attributes:
        allow: The lower precisions that may be used.
        tolerance: Largest relative error against fp32, `||out - ref|| / ||ref||`, that a model may
            have in a lower precision to be run in it.
    """

    allow: tuple[Literal["bf16", "fp16", "int8"], ...] = ()
    tolerance: PositiveNumber | None = None

    @model_validator(mode="after")
    def _is_bounded(self) -> PrecisionSpec:
        if self.allow and self.tolerance is None:
            raise_all([Problem(("allow",), "needs a `tolerance` beside it, e.g. 0.02")])
        return self


def _named_or_described(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str | ProcessorSpec):
        return value
    return ProcessorSpec.model_validate(value, context=info.context)


_LIST = TypeAdapter(tuple[Annotated[Any, BeforeValidator(_named_or_described)], ...])


def _pick(value: Any, info: ValidationInfo) -> Any:
    """Choose the one form that is meant, so that errors speak of that one only."""
    if value == "default":
        return DefaultProcessors()
    if isinstance(value, dict):
        return DefaultProcessors.model_validate(value, context=info.context)
    if isinstance(value, list) and value:
        return _LIST.validate_python(value, context=info.context)
    if isinstance(value, DefaultProcessors | tuple):
        return value
    raise wrong("expected `default`, {backends: [...]} or a list of processors")


Processors: TypeAlias = Annotated[
    DefaultProcessors | tuple[str | ProcessorSpec, ...], BeforeValidator(_pick)
]
"""What to run on: what is found, found ones by name, or described ones."""
