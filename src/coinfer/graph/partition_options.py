"""Partition options: how a model is to be cut. A value; knows no graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from coinfer.errors import ConfigurationError

__all__ = ["Mode", "PartitionOptions"]

DEFAULT_MINIMUM_SIZE = 7
"""Band's: an island of fewer operators is not worth a switch."""


class Mode(StrEnum):
    """Which spans of a model may be run.

    Members:
        WHOLE: The model is not cut.
        FALLBACK_PER_PROCESSOR: For each processor, its maximal supported groups, and between them
            what others must run.
        UNIT: Single units.
        MERGED: Every contiguous run of units that one processor supports.
    """

    WHOLE = "whole"
    FALLBACK_PER_PROCESSOR = "fallback_per_processor"
    UNIT = "unit"
    MERGED = "merged"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOptions:
    """How a model is to be cut.

    Attributes:
        mode: Which spans there are.
        minimum_subgraph_size: A processor is left out for islands of fewer operators; one number
            or one per processor.
        pieces: Cut into at least so many units of about equal cost; None: only where support
            changes.
        max_span_s: No span may take longer than this, in seconds, unless it is a single operator.
        branches: Cut around branches that do not need each other, so that two processors can run
            them at the same time.
    """

    mode: Mode = Mode.MERGED
    minimum_subgraph_size: int | Mapping[str, int] = DEFAULT_MINIMUM_SIZE
    pieces: int | None = None
    max_span_s: float | None = None
    branches: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant.

        Raises:
            ConfigurationError: names the option.
        """
        sizes = self.minimum_subgraph_size
        for size in (sizes,) if isinstance(sizes, int) else sizes.values():
            if size < 1:
                raise ConfigurationError(f"minimum_subgraph_size must be at least 1, got {size}")
        if self.pieces is not None and self.pieces < 1:
            raise ConfigurationError(f"pieces must be at least 1, got {self.pieces}")
        if self.max_span_s is not None and not self.max_span_s > 0:
            raise ConfigurationError(f"max_span must be longer than 0, got {self.max_span_s} s")
        if self.branches and self.mode not in (Mode.UNIT, Mode.MERGED):
            raise ConfigurationError(
                f"mode {self.mode} keeps branches together; use unit or merged with `branches`"
            )
