"""Comparison: the outputs of one model on processors beside those of its reference.

Floats must agree within a tolerance, integers and booleans must be equal, unless floats that are
nearly equal decided them. What draws random numbers is not compared. Numbers of 64 bits must be
computed in 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from coinfer.backends.base import Session, Tensor, Tensors
from coinfer.backends.patience import HangError
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling.agreement import Agreement
from coinfer.profiling.context import ProfilingContext
from coinfer.profiling.error import gap, gaps
from coinfer.profiling.near_ties import NearTies, near_ties
from coinfer.profiling.number_width import NARROW_FLOATS, NARROW_INTEGERS, narrows
from coinfer.profiling.probe_inputs import nonfinite
from coinfer.profiling.reference import Reference, computes_alike
from coinfer.profiling.wide_values import wide_values

if TYPE_CHECKING:
    from coinfer.graph.decisions import Decisions

__all__ = ["Comparison"]


@dataclass(kw_only=True)
class Comparison:
    """Compares a model on one processor after the other with the reference.

    Attributes:
        context: Loads models.
        model: A model, or a part of one.
        samples: Its inputs.
        reference: The model where its outputs are right.
        tolerance: The largest relative error of floats.
        wide: Of a part of a model, the integers of the whole one that pass 32 bits; None: find out.
    """

    context: ProfilingContext
    model: Model
    samples: Sequence[Tensors]
    reference: Reference
    tolerance: float
    wide: frozenset[str] | None = None
    _spoiling: dict[Hashable, bool] = field(default_factory=dict, init=False)

    def agreement(self, processor: Processor) -> Agreement:
        """Compare the model on a processor."""
        why = self._narrowed(processor)
        if why or computes_alike(processor, self.reference.processor):
            error = math.inf if why else 0.0
            return Agreement(error=error, why=why, reference=self.reference.name)
        try:
            session = self.context.patient(self.model, processor)
            with closing(session):
                outputs = [session.run(sample) for sample in self.samples]
                error, why = self._compared(processor, outputs)
                spoils = not why and self._spoils(processor, session)
        except Exception as failure:  # noqa: BLE001 - a session is foreign code
            why = f"it fails on the samples: {failure}"
            hangs = isinstance(failure, HangError)
            return Agreement(error=math.inf, why=why, hangs=hangs, reference=self.reference.name)
        return Agreement(error=error, why=why, nonfinite=spoils, reference=self.reference.name)

    @cached_property
    def _decisions(self) -> Decisions:
        from coinfer.graph.decisions import Decisions  # needs the heavy libraries

        return Decisions.of(self.model.graph)

    @cached_property
    def _wide(self) -> frozenset[str]:
        if self.wide is None:
            where = self.reference.processor
            return wide_values(self.context, self.model, where, self.samples[0])
        from coinfer.graph.inference import border_specs  # needs the heavy libraries
        from coinfer.graph.operators import inlined

        return self.wide.intersection(border_specs(inlined(self.model.graph)))

    @cached_property
    def _doubles(self) -> bool:
        from coinfer.graph.wide_numbers import WideNumbers  # needs the heavy libraries

        return bool(WideNumbers.of(self.model.graph).doubles)

    @cached_property
    def _nonfinite(self) -> list[tuple[Tensors, Mapping[str, Tensor]]]:
        """Inputs with NaN or infinity, with the outputs of the reference."""
        session, runs = self.reference.session, []
        for feed in nonfinite(self.samples[0]):
            with suppress(HangError):  # as if it could not run on them
                runs.append((feed, _run_or_none(session, feed)))
        return [(feed, outputs) for feed, outputs in runs if outputs is not None]

    def _narrowed(self, processor: Processor) -> str:
        """Say what the processor would compute in too few bits; nothing: nothing."""
        if self._doubles and narrows(self.context, processor, "float64"):
            return NARROW_FLOATS
        if self._wide and narrows(self.context, processor, "int64"):
            return f"{NARROW_INTEGERS}{min(self._wide)!r}"
        return ""

    def _compared(
        self, processor: Processor, outputs: Sequence[Mapping[str, Tensor]]
    ) -> tuple[float, str]:
        """Return the largest error that counts, and what is wrong."""
        decisions = self._decisions
        found = gaps(outputs, self.reference.outputs)
        compared = {n: error for n, error in found.items() if n not in decisions.random}
        off = {name for name, error in compared.items() if not error <= self.tolerance}
        excused: set[str] = set()
        worst = 0.0
        if any(not off.isdisjoint(decision.outputs) for decision in decisions.items):
            ties = self._near_ties(processor)
            excused = {
                name
                for name in off
                if all(
                    gap(ours[name], theirs[name]) <= self.tolerance or name in tie.outputs
                    for ours, theirs, tie in zip(outputs, self.reference.outputs, ties, strict=True)
                )
            }
            worst = max(tie.error for tie in ties)
        errors = {name: error for name, error in compared.items() if name not in excused}
        error = max((worst, *errors.values()))
        wrong = max(off - excused, key=compared.__getitem__, default=None)
        return error, "" if wrong is None else self._text(wrong, compared[wrong], outputs)

    def _near_ties(self, processor: Processor) -> list[NearTies]:
        """Look into the model, on the processor and on the reference, by sample."""
        items = self._decisions.items
        names = dict.fromkeys(name for each in items for name in (*each.floats, *each.made))
        from coinfer.graph.exposed import exposed  # needs the heavy libraries

        looked_into = exposed(self.model, names)
        values = []
        for where in (processor, self.reference.processor):
            session = self.context.patient(looked_into, where)
            with closing(session):
                values.append([{**sample, **session.run(sample)} for sample in self.samples])
        return [
            near_ties(items, ours, theirs, self.tolerance)
            for ours, theirs in zip(*values, strict=True)
        ]

    def _spoils(self, processor: Processor, session: Session) -> bool:
        """Whether NaN or infinity come out otherwise; found out once for any number of threads."""
        kind = (processor.backend, processor.device, *sorted(processor.options.items()))
        if kind not in self._spoiling:
            self._spoiling[kind] = self._differs_where_not_finite(session)
        return self._spoiling[kind]

    def _differs_where_not_finite(self, session: Session) -> bool:
        random = self._decisions.random
        for feed, expected in self._nonfinite:
            outputs = _run_or_none(session, feed)
            if outputs is None:
                return True
            found = gaps([outputs], [expected])
            if not all(e <= self.tolerance for name, e in found.items() if name not in random):
                return True
        return False

    def _text(self, name: str, error: float, outputs: Sequence[Mapping[str, Tensor]]) -> str:
        """Say how an output is wrong."""
        what, of = f"its output {name!r}", f"that of {self.reference.name}"
        if math.isfinite(error):
            return f"{what} is {error:.3g} off {of}, the tolerance is {self.tolerance:g}"
        for found, expected in zip(outputs, self.reference.outputs, strict=True):
            ours, theirs = found[name], expected[name]
            if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
                return f"{what} has another shape or type than {of}"
            if theirs.dtype.kind not in "fV" and not np.array_equal(ours, theirs):
                count = int((ours != theirs).sum())
                return f"{what} differs from {of} in {count} of {ours.size} elements"
        return f"{what} is not finite where {of} is, or the other way round"


def _run_or_none(session: Session, feed: Tensors) -> Mapping[str, Tensor] | None:
    """Run on inputs that may fit nowhere."""
    with np.errstate(all="ignore"):
        try:
            return session.run(feed)
        except HangError:
            raise
        except Exception:  # noqa: BLE001 - a session is foreign code
            return None
