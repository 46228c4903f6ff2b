"""Recut: cut a model again where a plan says, and check that it still can be cut there."""

from __future__ import annotations

from coinfer.errors import ConfigurationError
from coinfer.graph.cost import value_bytes
from coinfer.graph.cut_model import CutModel
from coinfer.graph.extract import pieces_of
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition
from coinfer.graph.partition_options import Mode
from coinfer.graph.shares import costs_by_operator
from coinfer.graph.units import UnitSubgraph
from coinfer.machine.profile import Profile
from coinfer.machine.span import Fork, Span
from coinfer.model import Model
from coinfer.plan.variant import Unit, Variant

__all__ = ["check_cut", "partition_of", "recut"]


def recut(model: Model, variant: Variant, profile: Profile) -> CutModel:
    """Return a model with the spans that a variant of it loads.

    Args:
        model: The whole model.
        variant: A variant in several units.
        profile: The times of its spans.

    Raises:
        ConfigurationError: the model cannot be cut there.
    """
    partition = partition_of(model, variant)
    spans = sorted({span for row in variant.spans.values() for span in row})
    return CutModel(
        model=model,
        units=variant.n_units,
        pieces=pieces_of(model, partition, spans),
        forks=variant.forks,
        profile=profile,
        operators=variant.units,
    )


def check_cut(model: Model, variant: Variant) -> Operators:
    """See that a model can be cut where a variant says; return its operators.

    Raises:
        ConfigurationError: it cannot: an operator is in no unit or in two, a unit reads what a
            later one makes, operators that cannot be parted are, the right side of a fork reads
            what the left one makes, or the model has other operators.
    """
    operators = Operators.of(model.graph)
    _check_complete(operators, variant.units, model.name)
    _check_order(operators, variant.units, model.name)
    for fork in variant.forks:
        _check_fork(operators, variant.units, fork, model.name)
    return operators


def partition_of(model: Model, variant: Variant) -> Partition:
    """Return the partition that a variant stands for.

    Raises:
        ConfigurationError: as of `check_cut`.
    """
    operators = check_cut(model, variant)
    spans: dict[Span, set[str]] = {}
    for processor, row in variant.spans.items():
        for span in row:
            spans.setdefault(span, set()).add(processor)
    return Partition(
        mode=Mode.MERGED,
        operators=operators,
        units=tuple(
            UnitSubgraph(operators=unit.operators, processors=frozenset(variant.spans))
            for unit in variant.units
        ),
        spans={span: frozenset(names) for span, names in spans.items()},
        value_bytes=value_bytes(costs_by_operator(model).values()),
    )


def _check_complete(operators: Operators, units: tuple[Unit, ...], model: str) -> None:
    """Every operator is in just one unit, and bears the name that the plan knows."""
    seen: set[int] = set()
    for at, unit in enumerate(units):
        for index in unit.operators:
            if index >= len(operators):
                raise ConfigurationError(
                    f"unit {at} of {model!r} has operator {index}, but the model has "
                    f"{len(operators)}, counted from 0"
                )
            if index in seen:
                raise ConfigurationError(
                    f"operator {index} ({operators[index].name!r}) of {model!r} is in two units; "
                    "leave it in one"
                )
            seen.add(index)
        first = operators[unit.operators[0]].name
        if unit.first and unit.first != first:
            raise ConfigurationError(
                f"unit {at} of {model!r} should begin with operator {unit.first!r}, but operator "
                f"{unit.operators[0]} is {first!r}; correct the name, or leave it out"
            )
    missing = sorted(set(range(len(operators))) - seen)
    if missing:
        raise ConfigurationError(
            f"operator {missing[0]} ({operators[missing[0]].name!r}) of {model!r} is in no unit; "
            "add it to one"
        )


def _check_order(operators: Operators, units: tuple[Unit, ...], model: str) -> None:
    """What a unit reads is made in it or before it, and what belongs together is not parted."""
    unit_of = {index: at for at, unit in enumerate(units) for index in unit.operators}
    for operator in operators:
        for producer in operator.producers:
            if unit_of[producer] > unit_of[operator.index]:
                raise ConfigurationError(
                    f"{model!r} cannot be cut so: operator {operator.index} ({operator.name!r}) in "
                    f"unit {unit_of[operator.index]} reads what operator {producer} "
                    f"({operators[producer].name!r}) makes in unit {unit_of[producer]}"
                )
    for members in operators.groups:
        if len({unit_of[index] for index in members}) > 1:
            first, last = operators[members[0]], operators[members[-1]]
            raise ConfigurationError(
                f"{model!r} cannot be cut so: operators {first.name!r} to {last.name!r} cannot be "
                "parted, because what they pass on is no tensor of known rank"
            )


def _check_fork(operators: Operators, units: tuple[Unit, ...], fork: Fork, model: str) -> None:
    """The right side reads nothing that the left one makes: both may run at the same time."""
    left = {i for unit in units[fork.first : fork.middle] for i in unit.operators}
    for unit in units[fork.middle : fork.last + 1]:
        for index in unit.operators:
            if made := left.intersection(operators[index].producers):
                raise ConfigurationError(
                    f"fork {list(fork)} of {model!r} is none: operator {index} "
                    f"({operators[index].name!r}) reads what operator {min(made)} makes on the "
                    "other side; take it out of `forks`"
                )
