"""Machine data: what JSON of machines and processors must look like."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    NonNegativeFloat,
    PositiveFloat,
    StrictInt,
    ValidationError,
)

__all__ = ["ContentionData", "MachineData", "ProcessorData", "TopologyData", "read"]


class _Data(BaseModel):
    """Values of JSON: nothing is made of a text that is none."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ProcessorData(_Data):
    """A processor; see there."""

    name: str
    backend: str
    device: str = "CPU"
    units: frozenset[str]
    threads: StrictInt = 1
    precision: str = "fp32"
    cores: tuple[StrictInt, ...] = ()
    options: dict[str, str] = {}
    supported_ops: frozenset[str] = frozenset()
    unsupported_ops: frozenset[str] = frozenset()
    overlays: frozenset[str] = frozenset()
    spread: str = ""
    wake_s: NonNegativeFloat = 0.0


class ContentionData(_Data):
    """Contention; see there."""

    factors: dict[str, dict[str, float]] = {}
    samples: int = 0


class CoresData(_Data):
    """Cores that are alike; see `coinfer.machine.topology_data`."""

    threads: list[str]
    cache: StrictInt = 0
    node: StrictInt = 0
    kind: str = ""


class TopologyData(_Data):
    """A topology; see `coinfer.machine.topology_data`."""

    cores: list[CoresData]
    used: str = ""
    quota: float | None = None


_Factors: TypeAlias = tuple[PositiveFloat, ...]


def _with_factors(value: Any) -> Any:
    """Make three of two: files from before say nothing of how it varies."""
    return [*value, []] if isinstance(value, list) and len(value) == 2 else value


_Submission: TypeAlias = Annotated[
    tuple[NonNegativeFloat, NonNegativeFloat, _Factors], BeforeValidator(_with_factors)
]


class MachineData(_Data):
    """A machine without its profile; see there."""

    format: str
    name: str
    identity: dict[str, str]
    processors: list[ProcessorData]
    spreads: list[tuple[str, str, float]]
    swaps: frozenset[str]
    keeps: frozenset[str]
    contention: ContentionData
    cold: list[tuple[str, str, float, float]]
    overhead_s: NonNegativeFloat
    overhead_factors: _Factors = ()
    submission: _Submission = (0.0, 0.0, ())
    topology: TopologyData | None = None
    shares: dict[str, str] = {}


T = TypeVar("T", bound=BaseModel)


def read(kind: type[T], data: Any) -> T:
    """Check what was read.

    Raises:
        ValueError: it is something else; says in one line which field.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise ValueError(f"{where}: {first['msg']}") from error
