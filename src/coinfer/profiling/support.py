"""Support: which operators of a model each processor can run, and how that was found out.

Asks declarations first, then backends, and tries to compile where neither can tell. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from coinfer.backends.base import Backend
from coinfer.backends.loading import ask_support, load
from coinfer.backends.patience import HangError
from coinfer.errors import BackendError
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operators, inlined
from coinfer.graph.partition import Partition, partition_at
from coinfer.graph.partition_options import Mode
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span, runs
from coinfer.model import Model

__all__ = ["Support", "SupportSource", "find_support"]


class SupportSource(StrEnum):
    """How it was found out what a processor can run.

    Members:
        DECLARED: By the processor's own lists, or their absence, alone: it has no backend here.
        ASKED: The backend could tell.
        TRIED: By compiling the whole model, then parts of it.
    """

    DECLARED = "declared"
    ASKED = "asked"
    TRIED = "tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What each processor can run of one model.

    Attributes:
        operators: Indices of operators (`Operators.of`) by processor.
        sources: How that was found out, by processor. What a processor declares limits the other
            two.
        problems: Why a processor can run nothing at all, where the backend says so.
    """

    operators: Mapping[str, frozenset[int]]
    sources: Mapping[str, SupportSource]
    problems: Mapping[str, str] = field(default_factory=dict)


def find_support(
    model: Model,
    processors: Sequence[Processor],
    backends: Mapping[str, Backend],
    *,
    operators: Operators | None = None,
) -> Support:
    """Find out which operators of a model each processor can run.

    An operator counts as supported if the processor's declaration allows it and all that is nested
    in it, and if the backend says that it can run it, within the model or alone. If the backend
    cannot tell, the model is compiled; if that fails, its halves are, down to single operators.

    Args:
        model: The model.
        processors: Those to look at.
        backends: Backends by name. A processor whose backend is not among them is taken at its
            word: what it does not declare, it runs.
        operators: `Operators.of(model.graph)`, if it is there already.

    >>> from coinfer.testing.models import tiny_linear
    >>> npu = Processor(name="npu", backend="imagined", units=frozenset({"npu"}),
    ...                 unsupported_ops=frozenset({"Add"}))
    >>> find_support(tiny_linear().model, [npu], {}).operators["npu"]
    frozenset({0})
    """
    operators = operators or Operators.of(model.graph)
    survey = _Survey(model=model, operators=operators, backends=backends)
    found: dict[str, frozenset[int]] = {}
    sources: dict[str, SupportSource] = {}
    problems: dict[str, str] = {}
    for processor in processors:
        declared = frozenset(
            operator.index
            for operator in operators
            if all(processor.declared(op_type) for op_type in operator.op_types)
        )
        if processor.backend not in backends:
            found[processor.name], sources[processor.name] = declared, SupportSource.DECLARED
            continue
        try:
            able, sources[processor.name] = survey.supported(processor, declared)
        except BackendError as error:
            able, sources[processor.name] = frozenset(), SupportSource.ASKED
            problems[processor.name] = str(error)
        found[processor.name] = declared & able
    return Support(operators=found, sources=sources, problems=problems)


@dataclass(kw_only=True)
class _Survey:
    """Asks backends about one model, once per kind of processor."""

    model: Model
    operators: Operators
    backends: Mapping[str, Backend]
    _answers: dict[Hashable, tuple[frozenset[int], SupportSource]] = field(default_factory=dict)

    def supported(
        self, processor: Processor, wanted: frozenset[int]
    ) -> tuple[frozenset[int], SupportSource]:
        """Return what a processor can run of the operators wanted, and how that was found out."""
        key = (
            processor.backend,
            processor.device,
            processor.precision,
            frozenset(processor.options.items()),
            wanted,
        )
        if key not in self._answers:
            self._answers[key] = self._find(processor, wanted)
        return self._answers[key]

    def _find(
        self, processor: Processor, wanted: frozenset[int]
    ) -> tuple[frozenset[int], SupportSource]:
        backend = self.backends[processor.backend]
        names = ask_support(backend, self._flat_model, processor)
        if names is None:
            return self._try(processor, wanted), SupportSource.TRIED
        able = {operator.index for operator in self.operators if operator.key in names}
        for at, members in enumerate(self.operators.groups):
            # Perhaps the backend declined it only for the operators that it reads from: ask for it
            # alone.
            if wanted.issuperset(members) and not able.issuperset(members):
                part = self._part(Span(at, at))
                alone = ask_support(backend, part, processor) or frozenset()
                able.update(i for i in members if self.operators[i].key in alone)
        return frozenset(able), SupportSource.ASKED

    def _try(self, processor: Processor, wanted: frozenset[int]) -> frozenset[int]:
        able: set[int] = set()
        groups = self.operators.groups
        waiting = runs(at for at, members in enumerate(groups) if wanted.issuperset(members))
        while waiting:
            span = waiting.pop()
            if self._compiles(processor, span):
                able.update(self._finest_partition.members(span))
            elif span.first < span.last:
                middle = (span.first + span.last) // 2
                waiting += [Span(span.first, middle), Span(middle + 1, span.last)]
        return frozenset(able)

    def _compiles(self, processor: Processor, span: Span) -> bool:
        part = self._part(span)
        try:
            load(self.backends[processor.backend], part, processor).close()
        except HangError:  # it would hang in each part that is tried, too
            raise
        except BackendError:
            return False
        return True

    def _part(self, span: Span) -> Model:
        return extract(self._flat_model, self._finest_partition, span)

    @cached_property
    def _flat_model(self) -> Model:
        """The model with its own functions put in place, as `operators` sees it."""
        flat = inlined(self.model.graph)
        return self.model if flat is self.model.graph else self.model.with_graph(flat)

    @cached_property
    def _finest_partition(self) -> Partition:
        """Each of `Operators.groups` as a unit of its own."""
        everything = {"any": frozenset(range(len(self.operators)))}
        cuts = range(1, len(self.operators.groups))
        return partition_at(
            self._flat_model, cuts, everything, mode=Mode.UNIT, operators=self.operators
        )
