"""Processors of every useful width on cores that are all alike."""

from __future__ import annotations

from coinfer.machine.core_groups import core_groups
from coinfer.machine.processor import Processor
from coinfer.machine.topology import Topology

__all__ = ["every_width"]


def every_width(cores: int) -> list[Processor]:
    """One for each group of cores, with a thread on each of them."""
    return [
        Processor(
            name=f"p{group.name}",
            backend="null",
            units=frozenset(f"core{n}" for n in group.numbers),
            threads=len(group.numbers),
        )
        for group in core_groups(Topology.flat(range(cores)))
    ]
