"""Widths in a machine file: processors of every useful width over its cores, and their times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field, model_validator

from coinfer.documents.fields import (
    NonNegativeSeconds,
    Number,
    PositiveNumber,
    PositiveSeconds,
    Problem,
    Section,
    WholeNumber,
    raise_all,
)
from coinfer.errors import ConfigurationError
from coinfer.machine.core_groups import core_groups
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, ProfileKey
from coinfer.machine.scaling import Scaling
from coinfer.machine.topology import Topology
from coinfer.machine.topology_data import decode_topology

__all__ = ["TopologySection", "WidthsSection"]


class CoresSection(Section):
    """Cores that are alike.

    Attributes:
        threads: Their hardware threads as Linux lists them, `["0-7"]`; with SMT the second of each
            in a list of its own, `["0-7", "16-23"]`.
        cache: Number of the last-level cache that they share.
        node: Number of their NUMA node.
        kind: `performance` or `efficiency`; empty where all are alike.
    """

    threads: Annotated[tuple[str, ...], Field(min_length=1)]
    cache: WholeNumber = 0
    node: WholeNumber = 0
    kind: str = ""


class TopologySection(Section):
    """Cores, what they share, and which are used; by default all, through their first thread."""

    cores: Annotated[tuple[CoresSection, ...], Field(min_length=1)]
    used: str = ""
    quota: PositiveNumber | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> TopologySection:
        try:
            self.topology()
        except (ValueError, ConfigurationError) as error:
            raise_all([Problem(("cores",), f"is no topology: {error}")])
        return self

    def topology(self) -> Topology:
        """Build the topology."""
        return decode_topology(self.model_dump())


class ScalingSection(Section):
    """How long a model takes on several cores (`coinfer.machine.scaling`).

    Attributes:
        mean_s: Mean seconds on one core of the fastest kind.
        serial: Share of that which more cores do not make shorter.
        least_s: Seconds below which no number of cores gets.
    """

    mean_s: PositiveSeconds = Field(alias="mean")
    serial: Annotated[Number, Field(ge=0, le=1)] = 0.0
    least_s: NonNegativeSeconds = Field(alias="least", default=0.0)


class WidthsSection(Section):
    """Processors of every useful width of one backend.

    Attributes:
        times: By model, how it scales.
        factors: By what tells cores from others (`efficiency`, `2 caches`, `2 nodes`), how many
            times longer a model takes there.
    """

    times: Annotated[dict[str, ScalingSection], Field(min_length=1)]
    factors: dict[str, PositiveNumber] = Field(default_factory=dict)

    def processors(self, topology: Topology, prefix: str) -> tuple[Processor, ...]:
        """Return an imagined processor per group of cores that is worth using together."""
        return tuple(
            Processor(
                name=f"{prefix}{group.name}",
                backend="imagined",
                device="CPU",
                units=frozenset(f"core{number}" for number in group.numbers),
                threads=len(group.numbers),
                cores=group.numbers,
                options={"widths": prefix},
                spread=group.spread,
            )
            for group in core_groups(topology)
        )

    def entries(self, processors: Iterable[Processor]) -> Iterator[tuple[ProfileKey, Measurement]]:
        """Yield the times on these processors."""
        for processor in processors:
            words = processor.spread.split(", ")
            factor = max(self.factors.get(word, 1.0) for word in words)
            for model, spec in self.times.items():
                scaling = Scaling(mean_s=spec.mean_s, serial=spec.serial, least_s=spec.least_s)
                seconds = scaling.seconds(processor.threads, factor)
                yield ProfileKey(model, processor.name), Measurement(seconds=(seconds,))
