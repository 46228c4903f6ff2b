"""Border values: real values at the borders of a partition, to measure spans with.

Random numbers would not do: an index must be in range, and a shape computed inside must fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing

from coinfer.backends.base import Backend, Tensor, Tensors
from coinfer.backends.loading import load
from coinfer.errors import BackendError
from coinfer.graph.extract import extract
from coinfer.graph.partition import Partition
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.profiling.patient_sessions import PatientSession, running
from coinfer.profiling.reference import REFERENCE

__all__ = ["Samples"]


class Samples:
    """Values before each unit, computed when they are asked for.

    Args:
        model: The whole model.
        partition: How it is cut.
        processors: What may run it; those in fp32 go first, of the
            reference's library first of all.
        backends: Backends by name.
        feeds: Inputs of the whole model.
    """

    def __init__(
        self,
        model: Model,
        partition: Partition,
        processors: Sequence[Processor],
        backends: Mapping[str, Backend],
        feeds: Sequence[Tensors],
    ) -> None:
        self._model = model
        self._partition = partition
        # First where outputs count as right.
        self._processors = sorted(
            processors,
            key=lambda p: (p.precision != "fp32", p.backend != REFERENCE.backend, p.threads),
        )
        self._backends = backends
        self._before: dict[int, list[dict[str, Tensor]]] = {0: [dict(feed) for feed in feeds]}

    def of(self, span: Span) -> list[Tensors]:
        """Return inputs of a span, one per feed.

        Raises:
            BackendError: no processor computes what is before it.
        """
        reads = self._partition.reads(span)
        return [{name: known[name] for name in reads} for known in self._values(span.first)]

    def _values(self, position: int) -> list[dict[str, Tensor]]:
        at = max(known for known in self._before if known <= position)
        while at < position:
            at = self._go_on(at, position)
        return self._before[position]

    def _go_on(self, first: int, position: int) -> int:
        """Run units from `first` on, as many as one processor can; return where that ends."""
        units = self._partition.units
        runners, last = units[first].processors, first
        while last + 1 < position and runners & units[last + 1].processors:
            last += 1
            runners &= units[last].processors
        span = Span(first, last)
        piece = extract(self._model, self._partition, span)
        errors = []
        for processor in self._processors:
            if processor.name not in runners:
                continue
            try:
                outputs = self._run(piece, processor, self.of(span))
            except BackendError as error:
                errors.append(str(error))
                continue
            keep = self._partition.keep_after(last + 1)
            self._before[last + 1] = [
                {name: value for name, value in {**known, **made}.items() if name in keep}
                for known, made in zip(self._before[first], outputs, strict=True)
            ]
            return last + 1
        if last > first:  # together it does not compile; perhaps one by one
            return self._go_on(first, last)
        raise BackendError(
            "; ".join(errors) or f"no processor runs unit {first} of {self._model.name!r}"
        )

    def _run(
        self, piece: Model, processor: Processor, feeds: Sequence[Tensors]
    ) -> list[dict[str, Tensor]]:
        backend = self._backends[processor.backend]
        # Python reads these values, so the library must not keep them in a form of its own.
        alone = dataclasses.replace(piece, borders=frozenset())
        session = PatientSession(load(backend, alone, processor), running(piece, processor))
        with closing(session):
            return [session.run(feed) for feed in feeds]
