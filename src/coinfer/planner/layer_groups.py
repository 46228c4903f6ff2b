"""Layer groups: cut a model into groups of layers and measure each at a few batch sizes.

What is found are the numbers that `graph.layer_batches` chooses by. Chooses no batch size itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from coinfer.backends.base import Tensors
from coinfer.backends.registry import find_backends
from coinfer.errors import ConfigurationError
from coinfer.graph.cost import total, value_bytes
from coinfer.graph.cut_model import CutModel
from coinfer.graph.extract import pieces_of
from coinfer.graph.layer_batches.layer_group import LayerGroup
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition, choose_partition
from coinfer.graph.partition_options import PartitionOptions
from coinfer.graph.shares import costs_by_operator, operator_shares
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.planner.border_values import Samples
from coinfer.planner.first_axis import first_axis_obstacle
from coinfer.planner.samples import two_samples
from coinfer.profiling import Profiler
from coinfer.profiling.batch_axis import company_error
from coinfer.profiling.support import find_support
from coinfer.runtime.span_io import span_ios_of

__all__ = ["Loading", "MeasuredLayers", "copy_bytes_per_s", "fitted_loading", "measure_layers"]

_COPIED_BYTES = 2**24
_COPIES = 5
_MIB = 2.0**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """What loading weights costs.

    Attributes:
        bytes_per_s: Bandwidth.
        fixed_s: Seconds per load, whatever its size.
    """

    bytes_per_s: float
    fixed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLayers:
    """A model's groups of layers, as measured on one processor.

    Attributes:
        groups: In the order in which they run.
        operators: How many each has.
        loads: Bytes of weights and the seconds that loading took, by group.
    """

    groups: tuple[LayerGroup, ...]
    operators: tuple[int, ...]
    loads: tuple[tuple[int, float], ...]


def measure_layers(
    model: Model,
    processor: Processor,
    options: PartitionOptions,
    batches: Sequence[int],
    profiler: Profiler,
    feeds: Sequence[Tensors],
    *,
    tolerance: float,
) -> MeasuredLayers:
    """Cut a model into groups of layers and measure them.

    Args:
        model: The model; it was found out whether its open first axis is the batch.
        processor: Where.
        options: How it is cut; the groups are the units.
        batches: At which batch sizes.
        profiler: How spans are measured.
        feeds: Samples of batch 1.
        tolerance: By how much answers may change with the company that they are computed in.

    Raises:
        ConfigurationError: the model cannot be run in batches, sizes in it are unknown, or the
            processor does not run all of it.
        BackendError: a group cannot be run.
    """
    _require_batches(model, processor, profiler, feeds, tolerance)
    backends = find_backends([processor], profiler.backends)
    operators = Operators.of(model.graph)
    support = find_support(model, [processor], backends, operators=operators).operators
    missing = len(operators) - len(support[processor.name])
    if missing:
        raise ConfigurationError(
            f"{processor.name} does not run {missing} of the {len(operators)} operators of "
            f"{model.name!r}; name another processor"
        )
    costs = costs_by_operator(model, model.input_check.sizes_of(feeds[0]))
    seconds = None
    if options.max_span_s is not None:
        whole = _profiled(model, processor, 1, profiler, feeds)
        shares = operator_shares(operators, costs)
        seconds = {processor.name: tuple(share * whole.mean_s for share in shares)}
    partition = choose_partition(model, support, options, seconds=seconds, operators=operators)
    _require_stacks(model, partition)
    sizes = value_bytes(costs.values())
    borders = [_kept_bytes(model, partition, sizes, at) for at in range(len(partition.units) + 1)]
    samples = Samples(model, partition, [processor], backends, feeds)
    groups, loads = [], []
    pieces = pieces_of(model, partition, _spans(partition))
    for at, (span, piece) in enumerate(pieces.items()):
        values = samples.of(span)
        found = {b: _profiled(piece.model, processor, b, profiler, values) for b in batches}
        members = partition.members(span)
        cost = total([costs[operators[index].key] for index in members])
        if cost.weight_bytes is None or cost.peak_activation_bytes_estimate is None:
            raise ConfigurationError(
                f"sizes of values in {piece.model.name} are unknown; give those of open "
                "dimensions with --dim"
            )
        around = borders[at] + borders[at + 1]
        group = LayerGroup(
            name=_name(partition, at),
            weight_bytes=cost.weight_bytes,
            input_bytes=borders[at],
            output_bytes=borders[at + 1],
            inner_bytes=max(0, cost.peak_activation_bytes_estimate - around),
            seconds={batch: each.median_s for batch, each in found.items()},
        )
        groups.append(group)
        load_s = statistics.median(each.load_s for each in found.values())
        loads.append((group.weight_bytes, load_s))
    counts = tuple(len(unit.operators) for unit in partition.units)
    return MeasuredLayers(groups=tuple(groups), operators=counts, loads=tuple(loads))


def fitted_loading(loads: Sequence[tuple[int, float]], fastest: float) -> Loading:
    """Fit bandwidth and fixed seconds to measured loads, by least squares, both not negative.

    Args:
        loads: Bytes and seconds.
        fastest: Bytes per second that no load can exceed; taken where size makes no difference.

    >>> loading = fitted_loading([(0, 0.1), (1000, 0.2), (2000, 0.3)], 1e9)
    >>> round(loading.bytes_per_s), round(loading.fixed_s, 3)
    (10000, 0.1)
    """
    from scipy.optimize import nnls  # slow to import

    rows = np.array([[1.0, size / _MIB] for size, _ in loads])
    (fixed_s, per_mib), _ = nnls(rows, np.array([seconds for _, seconds in loads]))
    per_byte = float(per_mib) / _MIB
    return Loading(bytes_per_s=1 / max(per_byte, 1 / fastest), fixed_s=float(fixed_s))


def copy_bytes_per_s() -> float:
    """Measure how fast samples are stacked: the quickest of some copies of 16 MiB."""
    samples = [np.ones(_COPIED_BYTES // 16, np.uint8) for _ in range(16)]
    taken = []
    for _ in range(_COPIES):
        started = time.perf_counter()
        np.concatenate(samples)
        taken.append(time.perf_counter() - started)
    return _COPIED_BYTES / min(taken)


def _require_batches(
    model: Model,
    processor: Processor,
    profiler: Profiler,
    feeds: Sequence[Tensors],
    tolerance: float,
) -> None:
    reason = first_axis_obstacle(model)
    if reason:
        raise ConfigurationError(f"{model.name!r} cannot be run in batches: {reason}")
    pairs = partial(two_samples, model, feeds, model.input_check.sizes_of(feeds[0]))
    backends = find_backends([processor], profiler.backends)
    error = company_error(model, [processor], backends, pairs, profiler.cache)
    if error is not None and error > tolerance:
        raise ConfigurationError(
            f"{model.name!r} cannot be run in batches: on {processor.name} its answers change with "
            f"the company that they are computed in, by {error:.2g}; {tolerance:g} is allowed"
        )


def _require_stacks(model: Model, partition: Partition) -> None:
    pieces = pieces_of(model, partition, _spans(partition))
    cut = CutModel(model=model, units=len(partition.units), pieces=pieces, profile=Profile())
    for span, io in span_ios_of(cut).items():
        if not io.stacks:
            raise ConfigurationError(
                f"{model.name!r} cannot be run in batches layer by layer: of some value that "
                f"{pieces[span].model.name} reads or makes the first axis is not the batch; cut "
                "into fewer pieces"
            )


def _spans(partition: Partition) -> list[Span]:
    return [Span(at, at) for at in range(len(partition.units))]


def _kept_bytes(model: Model, partition: Partition, sizes: Mapping[str, int], position: int) -> int:
    """Return the bytes per sample of what is kept before a unit."""
    names = partition.keep_after(position)
    unknown = sorted(name for name in names if name not in sizes)
    # An input that nothing reads is no operator's, and has no size here.
    read = {name for operator in partition.operators for name in operator.reads}
    for name in unknown:
        if position or name in read:
            raise ConfigurationError(
                f"the size of {name!r} in {model.name!r} is unknown; give those of open dimensions "
                "with --dim"
            )
    return sum(sizes.get(name, 0) for name in names)


def _profiled(
    model: Model, processor: Processor, batch: int, profiler: Profiler, feeds: Sequence[Tensors]
) -> Measurement:
    profile = profiler.profile(
        {model.name: model}, [processor], batch=batch, feeds={model.name: feeds}, skipped=_refuse
    )
    return next(entry for _, entry in profile)


def _refuse(skip: object) -> None:
    raise ConfigurationError(str(getattr(skip, "reason", skip)))


def _name(partition: Partition, at: int) -> str:
    members = partition.units[at].operators
    first, last = (partition.operators[index].name for index in (members[0], members[-1]))
    return first if first == last else f"{first} .. {last}"
