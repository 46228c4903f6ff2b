"""Cutting: the models of a scenario that are to be partitioned, prepared for an engine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from coinfer.backends.base import Tensors
from coinfer.graph.cut_model import CutModel
from coinfer.graph.partition import Mode, PartitionOptions
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling import Profiler
from coinfer.profiling.partition import prepare
from coinfer.units import format_bytes
from coinfer.workload.partition_spec import PartitionSpec
from coinfer.workload.processor_spec import DefaultProcessors
from coinfer.workload.scenario import Scenario

__all__ = ["cut_models", "memory_notes"]


def cut_models(
    scenario: Scenario,
    models: Mapping[str, Model],
    processors: Sequence[Processor],
    profiler: Profiler,
    *,
    asked: Collection[str],
    feeds: Mapping[str, Sequence[Tensors]],
) -> dict[str, CutModel]:
    """Partition the models that the scenario wants to be; by name.

    Args:
        scenario: What is to be run.
        models: By name.
        processors: What may be used.
        profiler: How spans are measured.
        asked: Models for which the policy names processors: none of theirs is left out.
        feeds: Sample inputs by model, of batch 1 where that is open.

    Raises:
        BackendError: the processors cannot run all of a model together.
        ConfigurationError: an option does not fit.
    """
    is_described = not isinstance(scenario.processors, DefaultProcessors)
    return {
        name: prepare(
            models[name],
            processors,
            _options(spec),
            profiler,
            search=spec.minimum_subgraph_size == "search",
            batch=scenario.models[name].batch,
            tolerance=scenario.precision.tolerance,
            spare=is_described or name in asked,
            feeds=feeds[name],
        )
        for name in models
        if (spec := scenario.partition_of(name)) is not None
    }


def memory_notes(cuts: Mapping[str, CutModel]) -> Iterator[str]:
    """Say what partitioning costs in memory, where it does cost something."""
    for name, cut in cuts.items():
        extra = cut.resident_bytes - cut.whole_bytes
        if cut.units > 1 and cut.whole_bytes and extra > 0:
            yield (
                f"{name} is cut into {len(cut.pieces)} spans of {cut.units} units: they hold "
                f"{format_bytes(cut.resident_bytes)}, {format_bytes(extra)} more than the whole "
                f"model"
            )


def _options(spec: PartitionSpec) -> PartitionOptions:
    size = spec.minimum_subgraph_size
    return PartitionOptions(
        mode=Mode(spec.mode),
        minimum_subgraph_size=1 if size == "search" else size,
        pieces=spec.pieces,
        max_span_s=spec.max_span_s,
        branches=spec.branches,
    )
