"""Narrow operators: those of a model that a processor would compute in too few bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coinfer.backends.base import Backend, Tensors, computes
from coinfer.backends.registry import find_backends
from coinfer.graph.operators import Operators
from coinfer.graph.wide_numbers import WideNumbers
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling.context import ProfilingContext
from coinfer.profiling.measure import Effort
from coinfer.profiling.number_width import NARROW_FLOATS, NARROW_INTEGERS, narrows
from coinfer.profiling.reference import REFERENCE, reference_backends
from coinfer.profiling.wide_values import wide_values

__all__ = ["NarrowOperators"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowOperators:
    """The operators of a model that must not run on some processors.

    Attributes:
        by_processor: Why an operator must not run there, by its index.
        wide: The integers of the model that pass 32 bits.
    """

    by_processor: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    wide: frozenset[str] = frozenset()

    def of_processor(self, name: str) -> frozenset[int]:
        """Return the operators that must not run on a processor."""
        return frozenset(self.by_processor.get(name, ()))

    @classmethod
    def of(
        cls,
        model: Model,
        operators: Operators,
        processors: Sequence[Processor],
        sample: Tensors,
        backends: Mapping[str, Backend],
    ) -> NarrowOperators:
        """Find them.

        Args:
            model: The whole model.
            operators: Its operators.
            processors: Those that may run parts of it.
            sample: Inputs of it.
            backends: Backends by name, for those that are not to be looked up.
        """
        numbers = WideNumbers.of(model.graph)
        if not numbers.doubles and not numbers.results:
            return cls()
        found = reference_backends(find_backends(processors, backends))
        everyone = [*processors, *([REFERENCE] if REFERENCE.backend in found else [])]
        samples = {model.name: [sample]}
        context = ProfilingContext(
            models={model.name: model},
            samples={name: {0: each} for name, each in samples.items()},
            backends=found,
            effort=Effort(),
            cache=None,
        )
        # Without the reference nobody can tell which of them are wide.
        wide = frozenset(numbers.results)
        if REFERENCE in everyone:
            wide = wide_values(context, model, REFERENCE, sample)
        touching = {
            operator.index: f"{NARROW_INTEGERS}{min(names)!r}"
            for operator in operators
            if (names := wide.intersection((*operator.reads, *operator.writes)))
        }
        by_processor: dict[str, Mapping[int, str]] = {}
        for processor in processors:
            if not computes(found[processor.backend]):
                continue
            narrow: dict[int, str] = {}
            if touching and narrows(context, processor, "int64"):
                narrow |= touching
            if numbers.doubles and narrows(context, processor, "float64"):
                narrow |= dict.fromkeys(numbers.doubles, NARROW_FLOATS)
            if narrow:
                by_processor[processor.name] = narrow
        return cls(by_processor=by_processor, wide=wide)
