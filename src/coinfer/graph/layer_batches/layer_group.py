"""Layer group: consecutive layers that run together, in numbers; and the memory that they share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from coinfer.errors import ConfigurationError
from coinfer.units import format_bytes

__all__ = ["BatchProblem", "LayerGroup", "MemoryBudget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """Consecutive layers that run together at one batch size.

    Attributes:
        name: What it is called.
        weight_bytes: What must be loaded before it can run.
        input_bytes: Per sample, all that is kept of one before the group runs.
        output_bytes: Per sample, all that is kept of one after it.
        seconds: What a run takes, by batch size.
        inner_bytes: Per sample, what it needs beside inputs and outputs at its peak.
    """

    name: str
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    seconds: Mapping[int, float]
    inner_bytes: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if min(self.weight_bytes, self.input_bytes, self.output_bytes, self.inner_bytes) < 0:
            raise ConfigurationError(f"group {self.name!r}: bytes must not be negative")
        times = self.seconds.values()
        if not times or min(self.seconds) < 1 or not all(0 <= s < math.inf for s in times):
            raise ConfigurationError(
                f"group {self.name!r} needs finite seconds, by batch sizes from 1"
            )

    def activation_bytes(self, batch: int) -> int:
        """Return what a run holds beside weights."""
        return batch * (self.input_bytes + self.output_bytes + self.inner_bytes)

    def working_set(self, batch: int) -> int:
        """Return all that must be in memory while it runs, in bytes."""
        return self.weight_bytes + self.activation_bytes(batch)

    def seconds_at(self, batch: int) -> float:
        """Return what a run takes; linear between known batch sizes, in proportion outside.

        >>> group = LayerGroup(
        ...     name="a", weight_bytes=0, input_bytes=1, output_bytes=1, seconds={1: 1.0, 4: 2.5}
        ... )
        >>> group.seconds_at(2), group.seconds_at(8)
        (1.5, 5.0)
        """
        known = self.seconds.get(batch)
        if known is not None:
            return known
        sizes = sorted(self.seconds)
        for low, high in pairwise(sizes):
            if low < batch < high:
                share = (batch - low) / (high - low)
                return (1 - share) * self.seconds[low] + share * self.seconds[high]
        nearest = sizes[0] if batch < sizes[0] else sizes[-1]
        return self.seconds[nearest] * batch / nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBudget:
    """Memory that a network may take, and what moving bytes costs.

    Attributes:
        bytes: The budget: weights and activations together.
        load_bytes_per_s: How fast weights are loaded and intermediates written out and read again.
        load_s: Fixed seconds for loading a group, whatever its size.
        copy_bytes_per_s: How fast samples are stacked anew where the batch size changes.
    """

    bytes: int
    load_bytes_per_s: float
    load_s: float = 0.0
    copy_bytes_per_s: float = math.inf

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.bytes <= 0:
            raise ConfigurationError("a memory budget must be larger than 0 bytes")
        if not (self.load_bytes_per_s > 0 and self.copy_bytes_per_s > 0):
            raise ConfigurationError("bandwidths must be larger than 0 bytes per second")
        if not 0 <= self.load_s < math.inf:
            raise ConfigurationError("the fixed seconds of a load must be 0 or more, and finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProblem:
    """What is asked: in which batches does each group run, so that all requests end soonest?

    Attributes:
        groups: In the order in which they run.
        requests: How many samples wait; all of them have arrived.
        memory: The budget.
        batches: Batch sizes that may be chosen, ascending; empty: all that every group knows, up
            to the number of requests.
    """

    groups: Sequence[LayerGroup]
    requests: int
    memory: MemoryBudget
    batches: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Settle the batch sizes; refuse what cannot be.

        Raises:
            ConfigurationError: the budget does not hold one group at batch 1, or numbers are wrong.
        """
        if not self.groups or self.requests < 1:
            raise ConfigurationError(
                "batch sizes are chosen for one group and one request at least"
            )
        for before, after in pairwise(self.groups):
            if before.output_bytes != after.input_bytes:
                raise ConfigurationError(
                    f"{format_bytes(before.output_bytes)} are kept after group {before.name!r}, "
                    f"but {format_bytes(after.input_bytes)} before {after.name!r}"
                )
        known = set.intersection(*(set(group.seconds) for group in self.groups))
        able = sorted(b for b in self.batches or known if 1 <= b <= self.requests)
        if not able:
            raise ConfigurationError(
                "no batch size up to the number of requests has a time in every group"
            )
        object.__setattr__(self, "batches", tuple(dict.fromkeys(able)))
        largest = max(self.groups, key=lambda group: group.working_set(able[0]))
        needed = largest.working_set(able[0])
        if needed > self.memory.bytes:
            raise ConfigurationError(
                f"a budget of {format_bytes(self.memory.bytes)} is too small: {largest.name} alone "
                f"needs {format_bytes(needed)} ({needed} bytes) at batch {able[0]}; give that much "
                "memory, or cut finer"
            )

    @property
    def least_bytes(self) -> int:
        """The smallest budget with which every group runs at the smallest batch."""
        return max(group.working_set(self.batches[0]) for group in self.groups)
