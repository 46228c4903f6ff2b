"""Plan estimates: the times of what an edit added to a saved plan and nobody measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coinfer.errors import ConfigurationError
from coinfer.machine.estimate import by_analogy
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.plan.measured_run import MeasuredRun
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan
from coinfer.plan.plan_folder import SavedPlan
from coinfer.planner.plan_checks import make_anew, place_of

__all__ = ["estimated", "unknown"]


def unknown(plan: Plan, name: str) -> list[tuple[str, Span]]:
    """Return what is to be loaded of a model and was never measured so."""
    planned = plan.models[name]
    known = {
        (key.processor, key.span)
        for key, _ in plan.measured.restricted([name])
        if key.batch == planned.batch
    }
    return [
        (processor, span)
        for processor, spans in plan.models[name].original.spans.items()
        for span in spans
        if (processor, span) not in known
    ]


def estimated(saved: SavedPlan, models: Mapping[str, Model]) -> Plan:
    """Add estimates for what was never measured, and say so.

    Args:
        saved: The plan.
        models: Of the models that are cut, at least those with something to estimate.

    Raises:
        ConfigurationError: nothing tells how long something takes, or it must not run unmeasured.
    """
    plan = saved.plan
    for name in saved.plan.models:
        missing = unknown(plan, name)
        if not missing:
            continue
        planned = plan.models[name]
        _check_estimable(saved, name, missing)
        _check_agreement(saved, name, missing)
        if planned.is_cut:
            seconds = _of_spans(planned, models[name], saved.runs[name])
        else:
            seconds = _of_whole(plan, name)
        entries = {}
        for processor, span in missing:
            expected_s = seconds.get((processor, span))
            if expected_s is None:
                place = place_of(saved, name, "processors", processor)
                raise ConfigurationError(
                    f"{place}: nothing was measured that tells how long {name!r} takes on "
                    f"{processor!r}; take it out, or {make_anew(saved)}"
                )
            key = ProfileKey(name, processor, planned.batch, span)
            entries[key] = Measurement(seconds=(expected_s,), estimated=True)
        plan = plan.with_profile(plan.measured.merged(Profile(entries)))
        pairs = ", ".join(f"{span.first}-{span.last} on {p}" for p, span in missing)
        what = f"units {pairs}" if planned.is_cut else ", ".join(p for p, _ in missing)
        plan = plan.warned(
            f"{name}: the times of {what} are estimated, not measured, and its outputs there were "
            "never compared with the reference"
        )
    return plan


def _check_estimable(saved: SavedPlan, name: str, missing: Iterable[tuple[str, Span]]) -> None:
    """What was not measured may not run below fp32, and at another batch size nothing is known."""
    precisions = {p.name: p.precision for p in saved.plan.processors}
    batch = saved.plan.models[name].batch
    batches = {run.batch for run in saved.runs[name]}
    if batches and batch not in batches:
        measured = ", ".join(map(str, sorted(batches)))
        raise ConfigurationError(
            f"{saved.where('models', name, 'batch')}: {name!r} was measured at batch {measured}, "
            f"not {batch}; {make_anew(saved)}"
        )
    for processor, _ in missing:
        if precisions[processor] != "fp32":
            raise ConfigurationError(
                f"{place_of(saved, name, 'processors', processor)}: {name!r} was not measured on "
                f"{processor!r} or is not precise enough in {precisions[processor]}; take it out, "
                f"or {make_anew(saved)}"
            )


def _check_agreement(saved: SavedPlan, name: str, missing: Iterable[tuple[str, Span]]) -> None:
    """Refuse to run a model again where its outputs were wrong."""
    refused = {
        each.name: each.why
        for choice in saved.plan.models[name].choices
        if choice.by == "agreement"
        for each in choice.alternatives
    }
    for processor, _ in missing:
        if processor in refused:
            raise ConfigurationError(
                f"{place_of(saved, name, 'processors', processor)}: {name!r} must not run on "
                f"{processor!r}: {refused[processor]}; take it out, or {make_anew(saved)}"
            )


def _of_whole(plan: Plan, name: str) -> dict[tuple[str, Span], float]:
    table: dict[str, dict[str, float]] = {}
    for key, entry in plan.measured.at_smallest:
        if key.span == Span() and key.batch == plan.models[key.model].batch:
            table.setdefault(key.model, {})[key.processor] = entry.mean_s
    expected = {p.name: by_analogy(table, name, p.name) for p in plan.processors}
    return {(p, Span()): seconds for p, seconds in expected.items() if seconds is not None}


def _of_spans(
    planned: ModelPlan, model: Model, runs: Iterable[MeasuredRun]
) -> dict[tuple[str, Span], float]:
    from coinfer.graph.recut import partition_of  # need the heavy libraries
    from coinfer.graph.shares import costs_by_operator, operator_shares
    from coinfer.graph.span_times import SpanTimes

    partition = partition_of(model, planned.original)
    times = SpanTimes(operator_shares(partition.operators, costs_by_operator(model)))
    everything = tuple(range(len(partition.operators)))
    for run in runs:  # a run of no operators in particular is one of the whole model
        times.note(run.processor, run.operators or everything, run.measurement.mean_s)
    return {
        (processor, span): seconds
        for span, row in times.table(partition).items()
        for processor, seconds in row.items()
    }
