"""Plan fit: whether a saved plan is of a scenario's models, and what it does otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.machine.processor import Processor
from coinfer.plan.plan import Plan
from coinfer.workload.processor_spec import DefaultProcessors, ProcessorSpec
from coinfer.workload.scenario import Scenario

__all__ = ["require_same_models", "unlike_sections"]

_ZOO, _FIRST_SEED = "zoo:", "?seed=0"


def require_same_models(plan: Plan, scenario: Scenario, folder: Path) -> None:
    """See that a plan has all models of a scenario, from the same places and in the same batches.

    Raises:
        UnknownNameError: a model is not in the plan.
        ConfigurationError: it is another one there, or has another batch.
    """
    anew = f"make the plan anew with `coinfer plan SCENARIO -o {folder}`"
    for name, spec in scenario.models.items():
        if name not in plan.models:
            hint = f"{anew[0].upper()}{anew[1:]}."
            raise UnknownNameError.of(f"model in the plan {folder}:", name, plan.models, hint=hint)
        planned = plan.models[name]
        if not _is_same(spec.source, planned.source):
            raise ConfigurationError(
                f"model {name!r} is {spec.source} in the scenario and {planned.source} in the plan "
                f"{folder}; {anew}"
            )
        if plan.machine.identity and not planned.fixed_batch and spec.batch != planned.batch:
            raise ConfigurationError(
                f"model {name!r} has a batch of {spec.batch} in the scenario and of "
                f"{planned.batch} in the plan {folder}; {anew}"
            )


def unlike_sections(plan: Plan, scenario: Scenario) -> list[str]:
    """Name the sections of a scenario that a plan was not made by, as far as it shows."""
    found = {
        "machine": scenario.machine is not None and bool(plan.machine.identity),
        "processors": not _has_processors(plan, scenario),
        "precision": not _has_precision(plan, scenario),
        "agreement": not _has_agreement(plan, scenario),
        "partition": not _has_partition(plan, scenario),
        "variants": not _has_variants(plan, scenario),
    }
    return [section for section, is_unlike in found.items() if is_unlike]


def _is_same(source: str, planned: str) -> bool:
    """Tell whether two sources are one; a file that is not here is told by its name only."""
    if not source or not planned:  # described, or made in memory
        return True
    if source.startswith(_ZOO) or planned.startswith(_ZOO):
        return source.removesuffix(_FIRST_SEED) == planned.removesuffix(_FIRST_SEED)
    own, other = (Path(text).expanduser() for text in (source, planned))
    return own.resolve() == other.resolve() if other.exists() else own.name == other.name


def _has_processors(plan: Plan, scenario: Scenario) -> bool:
    asked, used = scenario.processors, plan.processors
    if isinstance(asked, DefaultProcessors):
        return all(_is_asked_for(processor, asked) for processor in used) and (
            asked.preempt == "auto"
            or asked.preempt == any(processor.overlays for processor in used)
        )
    described = {p.name: _anywhere(p.processor()) for p in asked if isinstance(p, ProcessorSpec)}
    names = {p if isinstance(p, str) else p.name for p in asked}
    return names == {p.name for p in used} and all(
        described.get(p.name) in (None, _anywhere(p)) for p in used
    )


def _is_asked_for(processor: Processor, asked: DefaultProcessors) -> bool:
    has_backend = not asked.backends or processor.backend in asked.backends
    return has_backend and (not asked.cores or set(processor.cores) <= set(asked.cores))


def _anywhere(processor: Processor) -> Processor:
    """Copy it without its cores, which it has only where threads can be pinned."""
    return dataclasses.replace(processor, cores=())


def _has_precision(plan: Plan, scenario: Scenario) -> bool:
    asked = scenario.precision
    if asked.tolerance is None:
        return True
    worst = max((e for row in plan.output_errors.values() for e in row.values()), default=0.0)
    known = {processor.precision for processor in plan.processors}
    return worst <= asked.tolerance and set(asked.allow) <= known <= {"fp32", *asked.allow}


def _has_agreement(plan: Plan, scenario: Scenario) -> bool:
    """Tell it by what the pass says it chose."""
    asked = scenario.agreement
    said = [c.what for m in plan.models.values() for c in m.choices if c.by == "agreement"]
    within = all(what.startswith(f"within {asked.tolerance:g} of ") for what in said)
    return within and not (asked.nonfinite == "strict" and any("NaN" in what for what in said))


def _has_partition(plan: Plan, scenario: Scenario) -> bool:
    """Tell whether the partition pass had a look at all models that are to be cut."""
    seen = {n for n, m in plan.models.items() if any(c.by == "partition" for c in m.choices)}
    return all(name in seen for name in scenario.models if scenario.partition_of(name))


def _has_variants(plan: Plan, scenario: Scenario) -> bool:
    """Tell whether models have the variants that a scenario wants, with its rule and its error."""
    for name, spec in scenario.models.items():
        model, wanted = plan.models[name], spec.variants
        others = [each for each in model.variants.values() if each.may_serve]
        others = [each for each in others if each is not model.original]
        if wanted is None or not wanted.asked:
            if others:
                return False
            continue
        if any(each.use is not wanted.use or each.error > wanted.max_error for each in others):
            return False
        if not others and not any(choice.by == "compress" for choice in model.choices):
            return False
    return True
