"""Agreement: what may run where, by how near its outputs are to those of the reference.

Rule: a model runs on a processor only if its outputs on the samples agree with those of onnxruntime
in fp32 on one thread: floats within the tolerance, integers and booleans equal unless a near tie of
floats decided them, numbers of 64 bits computed as such. Below fp32 the processor must agree as it
would compute in fp32, within the larger of the two tolerances. NaN and infinity are noted, and
decide only if that is asked for. Models that are cut are compared span by span: `partition`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from coinfer.errors import ConfigurationError
from coinfer.machine.profile import Profile
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning
from coinfer.profiling import Skip
from coinfer.profiling.agreement import Agreement, refusals, with_errors
from coinfer.profiling.reference import REFERENCE
from coinfer.workload.agreement_spec import AgreementSpec

__all__ = ["agreement"]


def agreement(plan: Plan, planning: Planning) -> Plan:
    """Take out what does not agree with the reference.

    Raises:
        ConfigurationError: a model agrees nowhere.
    """
    known = [name for name in planning.whole if name not in planning.unmeasured]
    judged = {name: _judged(plan, planning, name) for name in known}
    kept = plan.measured
    for name, verdict in judged.items():
        _require_some(name, kept, verdict)
        planning.skips += [
            Skip(name, each, f"{name} on {each}: {why}") for each, why in verdict.refused.items()
        ]
        kept = with_errors(kept, name, verdict.found, plan.processors)
        if verdict.found:
            choice = _choice(verdict, _spec(planning, name).tolerance)
            plan = plan.with_variant(name, plan.models[name].original, choice)
    refused = {(name, each) for name, verdict in judged.items() for each in verdict.refused}
    kept = kept.where(lambda key: (key.model, key.processor) not in refused)
    notes = [note for name, verdict in judged.items() for note in _notes(name, verdict)]
    planning.spoiling |= {name: verdict.spoiling for name, verdict in judged.items()}
    return plan.with_profile(kept).loading(kept, judged).warned(*notes)


class _Judged(NamedTuple):
    """What came of comparing one model: by processor what was found, and why it is refused."""

    found: Mapping[str, Agreement]
    refused: Mapping[str, str]

    @property
    def spoiling(self) -> list[str]:
        """Processors that it runs on, where NaN or infinity come out otherwise."""
        return [n for n, each in self.found.items() if each.nonfinite and n not in self.refused]

    @property
    def reference(self) -> str:
        """What it was compared with."""
        return next(iter(self.found.values())).reference


def _judged(plan: Plan, planning: Planning, name: str) -> _Judged:
    named = {processor.name: processor for processor in plan.processors}
    able = [named[each] for each in plan.measured.spans_by_processor(name)]
    wishes, spec = planning.wishes, _spec(planning, name)
    found = planning.profiler.agreements(
        planning.models[name],
        able,
        spec.tolerance,
        feeds=planning.samples.get(name, ()),
    )
    return _Judged(found, refusals(found, able, spec, wishes.tolerance))


def _spec(planning: Planning, name: str) -> AgreementSpec:
    """Return how near a model must be; a variant may be off by what it may be off its original."""
    spec, variant = planning.wishes.agreement, planning.variants.get(name)
    if variant is None or variant.max_error <= spec.tolerance:
        return spec
    return spec.model_copy(update={"tolerance": variant.max_error})


def _require_some(name: str, profile: Profile, verdict: _Judged) -> None:
    runs = profile.spans_by_processor(name)
    if runs and not runs.keys() - verdict.refused.keys():
        reasons = "; ".join(f"{each}: {why}" for each, why in verdict.refused.items())
        is_finite = any(math.isfinite(verdict.found[each].error) for each in verdict.refused)
        remedy = ", or raise the tolerance of `agreement`" if is_finite else ""
        raise ConfigurationError(
            f"model {name!r} agrees with the reference on no processor: {reasons}; add a processor "
            f"of {REFERENCE.backend}{remedy}"
        )


def _choice(verdict: _Judged, tolerance: float) -> Choice:
    what = f"within {tolerance:g} of {verdict.reference}"
    if verdict.spoiling:
        what += f"; NaN or infinity come out otherwise on {', '.join(verdict.spoiling)}"
    return Choice("agreement", what, tuple(Alternative(*each) for each in verdict.refused.items()))


def _notes(name: str, verdict: _Judged) -> Iterator[str]:
    """Say what does not agree, processors with the same reason together; and an odd reference."""
    by_reason: dict[str, list[str]] = {}
    for each, why in verdict.refused.items():
        by_reason.setdefault(why, []).append(each)
    for why, names in by_reason.items():
        yield f"{name} does not run on {', '.join(names)}: {why}"
    if verdict.found and verdict.reference != REFERENCE.backend:
        yield f"the outputs of {name} are compared with those on {verdict.reference}"
