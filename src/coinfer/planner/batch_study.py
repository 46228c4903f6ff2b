"""Batch study: measures models layer by layer, and chooses batch sizes and units under a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coinfer.graph.layer_batches.batch_path import (
    BatchPath,
    count_plans,
    exhaustive_s,
    find_batch_path,
)
from coinfer.graph.layer_batches.layer_group import BatchProblem, MemoryBudget
from coinfer.graph.layer_batches.unit_split import Contender, UnitSplit, split_units
from coinfer.graph.partition_options import PartitionOptions
from coinfer.machine.processor import Processor
from coinfer.planner.layer_groups import (
    Loading,
    MeasuredLayers,
    copy_bytes_per_s,
    fitted_loading,
    measure_layers,
)
from coinfer.planner.samples import Measurable
from coinfer.profiling import Profiler
from coinfer.profiling.measure import Effort
from coinfer.workload.agreement_spec import AgreementSpec

__all__ = ["EFFORT", "BatchStudy", "StudiedNetwork", "study_batches"]

EFFORT = Effort(warmup_runs=1, min_runs=5, max_runs=50, max_s=0.6, precision=0.02)
"""There are many times to measure, and small differences decide nothing."""

_MOST_PLANS = 50_000
"""Of so many plans each is looked at, to show that the path is the shortest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudiedNetwork:
    """One network: what was measured, and what was chosen on the widest processor.

    Attributes:
        name: The model.
        measured: Its groups of layers on that processor.
        loading: What loading its weights costs.
        problem: What was asked.
        path: The batch sizes chosen.
        plans: In how many ways it could be run.
        exhaustive_s: The least seconds over all of these; None: there are too many.
    """

    name: str
    measured: MeasuredLayers
    loading: Loading
    problem: BatchProblem
    path: BatchPath
    plans: int
    exhaustive_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStudy:
    """What was found out.

    Attributes:
        budget_bytes: The memory budget.
        weight_bytes: All weights of all networks.
        processors: By number of compute units the processor that was measured.
        networks: One by one.
        split: How several networks share units and memory; None: there is one.
    """

    budget_bytes: int
    weight_bytes: int
    processors: Mapping[int, str]
    networks: tuple[StudiedNetwork, ...]
    split: UnitSplit | None


def study_batches(
    found: Measurable,
    processors: Sequence[Processor],
    options: PartitionOptions,
    profiler: Profiler,
    *,
    requests: int,
    batches: Sequence[int],
    budget: Callable[[int], int],
    bytes_per_s: float | None = None,
) -> BatchStudy:
    """Measure models group by group, and choose batch sizes; of several models also units.

    Args:
        found: Models with their samples.
        processors: Of different widths; networks alone run on the widest.
        options: How models are cut; groups are units.
        profiler: How spans are measured.
        requests: How many wait, of each model.
        batches: Batch sizes to measure.
        budget: Returns the bytes of the memory budget, given those of all weights.
        bytes_per_s: Bandwidth of loading and spilling; None: as sessions were made here.

    Raises:
        ConfigurationError: a model cannot be run in batches, or the budget holds not one group.
        BackendError: a group of layers cannot be run.
    """
    by_width = {len(processor.units): processor for processor in processors}
    measured = {
        (name, width): measure_layers(
            model,
            processor,
            options,
            batches,
            profiler,
            found.samples[name].feeds,
            tolerance=AgreementSpec().tolerance,
        )
        for name, model in found.models.items()
        for width, processor in by_width.items()
    }
    widest = max(by_width)
    weights = sum(g.weight_bytes for n in found.models for g in measured[n, widest].groups)
    size, copied = budget(weights), copy_bytes_per_s()
    loadings = {key: _loading(each, copied, bytes_per_s) for key, each in measured.items()}
    problems = {
        key: _problem(each, loadings[key], size, copied, requests) for key, each in measured.items()
    }
    split = None
    if len(found.models) > 1:
        contenders = [
            Contender(name=name, problems={width: problems[name, width] for width in by_width})
            for name in found.models
        ]
        split = split_units(contenders, widest)
    return BatchStudy(
        budget_bytes=size,
        weight_bytes=weights,
        processors={width: each.name for width, each in by_width.items()},
        networks=tuple(
            _studied(n, measured[n, widest], loadings[n, widest], problems[n, widest])
            for n in found.models
        ),
        split=split,
    )


def _loading(measured: MeasuredLayers, fastest: float, bytes_per_s: float | None) -> Loading:
    if bytes_per_s is not None:
        return Loading(bytes_per_s=bytes_per_s, fixed_s=0.0)
    return fitted_loading(measured.loads, fastest)


def _problem(
    measured: MeasuredLayers, loading: Loading, size: int, copied: float, requests: int
) -> BatchProblem:
    memory = MemoryBudget(
        bytes=size,
        load_bytes_per_s=loading.bytes_per_s,
        load_s=loading.fixed_s,
        copy_bytes_per_s=copied,
    )
    return BatchProblem(groups=measured.groups, requests=requests, memory=memory)


def _studied(
    name: str, measured: MeasuredLayers, loading: Loading, problem: BatchProblem
) -> StudiedNetwork:
    plans, path = count_plans(problem), find_batch_path(problem)
    least_s = exhaustive_s(problem) if plans <= _MOST_PLANS else None
    return StudiedNetwork(
        name=name,
        measured=measured,
        loading=loading,
        problem=problem,
        path=path,
        plans=plans,
        exhaustive_s=least_s,
    )
