"""Partition: how a graph is cut into units, and which spans of them may run on which processor.

A partition is a value beside the model; `extract` makes a model of a span. Knows no library and
reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from coinfer.core.fork_routes import FORK_S
from coinfer.errors import ConfigurationError
from coinfer.graph.branches import branch_pieces
from coinfer.graph.cost import known_sum, value_bytes
from coinfer.graph.operators import Operators
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.graph.pieces import balanced_pieces, limited_pieces
from coinfer.graph.shares import costs_by_operator, operator_shares
from coinfer.graph.spans import SpanLimit, fallback_spans, merged_spans, unit_spans
from coinfer.graph.units import Support, UnitSubgraph, able_to_run, fallback_units, find_units
from coinfer.machine.span import Fork, Span
from coinfer.model import Model

__all__ = [
    "Border",
    "Partition",
    "choose_partition",
    "partition_at",
]

_LEAST_BRANCH_S = 2 * FORK_S
"""What a branch must take to be cut off: its borders cost time as well."""

_LEAST_BRANCH_SHARE = 0.005
"""What a branch must have of the model's cost where no times are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """What must be handed over before a unit.

    Attributes:
        values: Inputs and intermediates that exist by then and that this or a later unit reads.
        bytes: Their sum at batch 1; None if one is unknown.
    """

    values: tuple[str, ...]
    bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Units of a model in an order in which they can run, and the spans that may be run.

    Attributes:
        mode: How it was made.
        operators: The operators that units refer to.
        units: In topological order; every operator is in exactly one.
        spans: Which processors may run each span; a span that none may run is left out.
        value_bytes: Bytes at batch 1 of values whose size is known.
    """

    mode: Mode
    operators: Operators
    units: tuple[UnitSubgraph, ...]
    spans: Mapping[Span, frozenset[str]]
    value_bytes: Mapping[str, int] = field(repr=False)
    _written: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _last_read: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Note in which unit each value is written first and read last."""
        written: dict[str, int] = {}
        last_read: dict[str, int] = {}
        for at, unit in enumerate(self.units):
            for index in unit.operators:
                written.update(dict.fromkeys(self.operators[index].writes, at))
                last_read.update(dict.fromkeys(self.operators[index].reads, at))
        object.__setattr__(self, "_written", written)
        object.__setattr__(self, "_last_read", last_read)

    @property
    def whole(self) -> Span:
        """The span of all units."""
        return Span(0, len(self.units) - 1)

    @property
    def dependencies(self) -> tuple[frozenset[int], ...]:
        """The units that each unit reads from."""
        return tuple(
            frozenset(
                self._written[name]
                for index in unit.operators
                for name in self.operators[index].reads
                if name in self._written
            )
            - {at}
            for at, unit in enumerate(self.units)
        )

    @property
    def forks(self) -> tuple[Fork, ...]:
        """Pairs of neighbouring spans that may run at the same time.

        From each boundary and for each border between the two, the right span is as long as it can
        be on its processors.
        """
        reads = self.dependencies
        found = []
        for middle in range(1, len(self.units)):
            ends: list[tuple[int, int]] = []  # a last unit, and the last that it needs on the left
            needed = -1
            for last in range(middle, len(self.units)):
                needed = max([needed, *(unit for unit in reads[last] if unit < middle)])
                if needed == middle - 1:
                    break
                if Span(middle, last) in self.spans:
                    ends.append((last, needed))
            for first in range(middle) if ends else ():
                if Span(first, middle - 1) in self.spans:
                    lasts = [last for last, needed in ends if needed < first]
                    found += [Fork(first, middle, last) for last in self._longest(middle, lasts)]
        return tuple(sorted(found))

    def _longest(self, first: int, lasts: Sequence[int]) -> list[int]:
        """Leave out ends of spans that run on the same processors as the next longer one."""
        by_processors = groupby(lasts, lambda last: self.spans[Span(first, last)])
        return [max(group) for _, group in by_processors]

    @property
    def borders(self) -> tuple[Border, ...]:
        """What must be handed over before each unit; before the first, the inputs."""
        return tuple(self.border(at) for at in range(len(self.units)))

    def border(self, position: int) -> Border:
        """What must be handed over before the unit at `position`."""
        values = tuple(
            n for n in self._existing(position) if self._last_read.get(n, -1) >= position
        )
        return Border(values=values, bytes=self.bytes_of(values))

    def reads(self, span: Span) -> tuple[str, ...]:
        """Names of what a span takes: model inputs and values of earlier units.

        The whole model takes all its inputs, even those that it does not use.
        """
        if span == self.whole:
            return self.operators.inputs
        names = (name for index in self.members(span) for name in self.operators[index].reads)
        return tuple(n for n in dict.fromkeys(names) if self._written.get(n, -1) < span.first)

    def writes(self, span: Span) -> tuple[str, ...]:
        """Names of what a span gives: what later units read, and model outputs.

        Outputs that are constants come with the last unit. An output that is also an input of the
        model is written by no span but the whole.
        """
        if span == self.whole:
            return self.operators.outputs
        outputs = set(self.operators.outputs)
        made = (name for index in self.members(span) for name in self.operators[index].writes)
        names = [n for n in made if n in outputs or self._last_read.get(n, -1) > span.last]
        if span.last == self.whole.last:
            given = {*self._written, *self.operators.inputs}
            names += [name for name in self.operators.outputs if name not in given]
        return tuple(names)

    def keep_after(self, position: int) -> frozenset[str]:
        """Names that are still needed once all units before `position` have run.

        These are what units from there on read, and the outputs of the model that exist by then,
        those that are inputs of the model too.
        """
        if position == 0:
            return frozenset(self.operators.inputs)
        outputs = frozenset(self.operators.outputs)
        if position == len(self.units):
            return outputs
        return outputs.intersection(self._existing(position)).union(self.border(position).values)

    def members(self, span: Span) -> tuple[int, ...]:
        """Indices of a span's operators, ascending.

        Raises:
            ConfigurationError: there is no such span.
        """
        if not 0 <= span.first <= span.last < len(self.units):
            raise ConfigurationError(
                f"there is no span {span.first}..{span.last} of {len(self.units)} units; units "
                f"count from 0"
            )
        units = self.units[span.first : span.last + 1]
        return tuple(sorted(index for unit in units for index in unit.operators))

    def bytes_of(self, names: Iterable[str]) -> int | None:
        """Bytes of values at batch 1, or None if one is unknown."""
        return known_sum(self.value_bytes.get(name) for name in names)

    def _existing(self, position: int) -> list[str]:
        made = [name for name, at in self._written.items() if at < position]
        return [*self.operators.inputs, *made]


def choose_partition(
    model: Model,
    support: Support,
    options: PartitionOptions | None = None,
    *,
    seconds: Mapping[str, Sequence[float]] | None = None,
    operators: Operators | None = None,
) -> Partition:
    """Cut a model into units and find the spans that may be run, by Band's rules.

    Args:
        model: The model; it is not changed.
        support: Per processor, the indices of the operators (`Operators.of`) that it can run.
        options: How to cut; by default `merged` with Band's minimum size.
        seconds: Per processor, the expected seconds of each operator, for `max_span_s` and
            `branches`. A processor that is left out is not limited. Without, `pieces` and
            `branches` are balanced by arithmetic and bytes.
        operators: `Operators.of(model.graph)`, if it is there already.

    Raises:
        ConfigurationError: no processor runs an operator; none runs all of it and the mode is
            `whole`; or `max_span_s` is given without `seconds`.

    >>> from coinfer.testing.models import tiny_linear
    >>> support = {"cpu": frozenset({0, 1}), "npu": frozenset({0})}
    >>> options = PartitionOptions(minimum_subgraph_size=1)
    >>> partition = choose_partition(tiny_linear().model, support, options)
    >>> [(unit.operators, sorted(unit.processors)) for unit in partition.units]
    [((0,), ['cpu', 'npu']), ((1,), ['cpu'])]
    """
    options = options or PartitionOptions()
    operators = operators or Operators.of(model.graph)
    limit = _span_limit(operators, options.max_span_s, seconds)
    costs = costs_by_operator(model)
    sizes, shares = value_bytes(costs.values()), operator_shares(operators, costs)
    units = _units(model.name, operators, support, options)
    if options.branches:
        units = _around_branches(units, operators, seconds, shares)
    if options.pieces is not None and options.mode is not Mode.WHOLE:
        units = balanced_pieces(units, operators, sizes, shares, options.pieces)
    if limit.seconds and options.mode is not Mode.WHOLE:
        units = limited_pieces(units, operators, sizes, limit.seconds, limit.longest_s)
    return Partition(
        mode=options.mode,
        operators=operators,
        units=units,
        spans=_spans(options.mode, units, support, limit),
        value_bytes=sizes,
    )


def partition_at(
    model: Model,
    positions: Iterable[int],
    support: Support,
    *,
    mode: Mode = Mode.MERGED,
    operators: Operators | None = None,
) -> Partition:
    """Cut a model at given places, whatever they cost.

    Args:
        model: The model; it is not changed.
        positions: Cut before these of `Operators.groups`; 1 to one less than there are.
        support: Per processor, the indices of the operators that it can run.
        mode: `unit` or `merged`.
        operators: `Operators.of(model.graph)`, if it is there already.

    Raises:
        ConfigurationError: a position is not a place between two groups, no processor runs all
            of a unit, or the mode is another one.

    >>> from coinfer.testing.models import tiny_linear
    >>> partition = partition_at(tiny_linear().model, [1], {"cpu": frozenset({0, 1})})
    >>> partition.writes(Span(0, 0)), partition.reads(Span(1, 1))
    (('p',), ('p',))
    """
    if mode not in (Mode.UNIT, Mode.MERGED):
        raise ConfigurationError(f"mode {mode} chooses its own cuts; use unit or merged")
    operators = operators or Operators.of(model.graph)
    cuts = sorted(set(positions))
    groups = operators.groups
    if cuts and not (cuts[0] >= 1 and cuts[-1] < len(groups)):
        wrong = cuts[0] if cuts[0] < 1 else cuts[-1]
        raise ConfigurationError(
            f"cannot cut before {wrong}: there are {len(groups)} groups of operators, so cuts go "
            f"from 1 to {len(groups) - 1}"
        )
    units: list[UnitSubgraph] = []
    for first, end in pairwise((0, *cuts, len(groups))):
        members = operators.members(range(first, end))
        able = able_to_run(members, support)
        if not able:
            raise ConfigurationError(
                f"no processor runs all of unit {len(units)}, operators "
                f"{operators[members[0]].name!r} to {operators[members[-1]].name!r}; cut elsewhere"
            )
        units.append(UnitSubgraph(operators=members, processors=able))
    return Partition(
        mode=mode,
        operators=operators,
        units=tuple(units),
        spans=_spans(mode, units, support, SpanLimit()),
        value_bytes=value_bytes(costs_by_operator(model).values()),
    )


def _span_limit(
    operators: Operators,
    max_span_s: float | None,
    seconds: Mapping[str, Sequence[float]] | None,
) -> SpanLimit:
    if max_span_s is None:
        return SpanLimit()
    if seconds is None:
        raise ConfigurationError(
            "max_span needs the expected seconds of each operator; give `seconds`"
        )
    for name, row in seconds.items():
        if len(row) != len(operators):
            raise ConfigurationError(
                f"`seconds` of processor {name!r} has {len(row)} entries for {len(operators)} "
                f"operators; give one for each of `Operators.of(model.graph)`"
            )
    return SpanLimit(seconds=seconds, longest_s=max_span_s)


def _units(
    name: str, operators: Operators, support: Support, options: PartitionOptions
) -> tuple[UnitSubgraph, ...]:
    """Cut only where support changes, and not where the whole is wanted."""
    match options.mode:
        case Mode.UNIT | Mode.MERGED:
            return find_units(operators, support, options.minimum_subgraph_size)
        case Mode.FALLBACK_PER_PROCESSOR:
            return fallback_units(operators, support, options.minimum_subgraph_size)
        case Mode.WHOLE:
            everything = tuple(range(len(operators)))
            able = able_to_run(everything, support)
            if not able:
                raise ConfigurationError(
                    f"no processor runs all of model {name!r}: "
                    f"{', '.join(support) or 'none given'}; use mode merged to cut it"
                )
            return (UnitSubgraph(operators=everything, processors=able),)


def _spans(
    mode: Mode, units: Sequence[UnitSubgraph], names: Iterable[str], limit: SpanLimit
) -> Mapping[Span, frozenset[str]]:
    match mode:
        case Mode.UNIT | Mode.WHOLE:
            return unit_spans(units)
        case Mode.MERGED:
            return merged_spans(units, limit)
        case Mode.FALLBACK_PER_PROCESSOR:
            return fallback_spans(units, names, limit)


def _around_branches(
    units: Sequence[UnitSubgraph],
    operators: Operators,
    seconds: Mapping[str, Sequence[float]] | None,
    shares: Sequence[float],
) -> tuple[UnitSubgraph, ...]:
    """Cut out branches that the fastest processor would still be busy with for long enough."""
    if not seconds:
        return branch_pieces(units, operators, shares, _LEAST_BRANCH_SHARE)
    fastest = [min(row) for row in zip(*seconds.values(), strict=True)]
    return branch_pieces(units, operators, fastest, _LEAST_BRANCH_S)
