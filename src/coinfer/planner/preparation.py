"""Preparation: from a scenario to models, processors, profile and inputs, ready to be run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coinfer.core.policy import Policy
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.hardware.catalogue import default_processors
from coinfer.hardware.cores import Cores, find_cores
from coinfer.model import Model
from coinfer.policies import make_policy
from coinfer.processor import Processor
from coinfer.profiles import Profile
from coinfer.profiling import Effort, ProfileCache, Progress, profile_models, useful
from coinfer.sources import resolve_model
from coinfer.workload.inputs import Feed, prepare_feeds
from coinfer.workload.processor_spec import DefaultProcessors
from coinfer.workload.scenario import Scenario

__all__ = ["Preparation", "choose_processors", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """All that a run needs beside the engine.

    Attributes:
        scenario: What was prepared.
        models: By name.
        processors: What may be used.
        measured: Everything that was measured and is allowed; the bound rests on it.
        profile: The part of it that is worth loading.
        policy: A fresh policy.
        feeds: Prepared inputs by model.
        warnings: What a reader of the results must know.
    """

    scenario: Scenario
    models: Mapping[str, Model]
    processors: tuple[Processor, ...]
    measured: Profile
    profile: Profile
    policy: Policy
    feeds: Mapping[str, list[Feed]]
    warnings: tuple[str, ...]

    @property
    def output_errors(self) -> dict[str, dict[str, float]]:
        """Measured output error of what runs below fp32, `{processor: {model: error}}`."""
        errors: dict[str, dict[str, float]] = {}
        for key, entry in self.profile:
            if entry.error is not None:
                errors.setdefault(key.processor, {})[key.model] = entry.error
        return errors


def prepare(
    scenario: Scenario,
    *,
    effort: Effort = Effort(),
    cache: ProfileCache | None = None,
    progress: Progress | None = None,
) -> Preparation:
    """Load the models, find the processors, measure what is not known, prepare the inputs.

    Raises:
        ModelError, InputError: a model or its inputs cannot be used.
        UnknownNameError: the scenario names a policy, backend, processor or network that is not.
        ConfigurationError: no processor runs a model, or an option does not fit.
    """
    policy = make_policy(scenario.policy.name, **scenario.policy.options)
    processors = choose_processors(scenario)
    models = {name: resolve_model(spec.source, name=name) for name, spec in scenario.models.items()}
    feeds = {
        name: prepare_feeds(spec.inputs, models[name], batch=spec.batch, seed=scenario.seed)
        for name, spec in scenario.models.items()
    }
    warnings: list[str] = []
    measured = Profile()
    for batch in sorted({spec.batch for spec in scenario.models.values()}):
        chosen = [name for name, spec in scenario.models.items() if spec.batch == batch]
        measured = measured.merged(
            profile_models(
                {name: models[name] for name in chosen},
                processors,
                batches=(batch,),
                effort=effort,
                cache=cache,
                feeds={
                    name: prepare_feeds(
                        scenario.models[name].inputs, models[name], batch=1, seed=scenario.seed
                    )
                    for name in chosen
                },
                progress=progress,
                skipped=warnings.append,
            )
        )
    measured = _precise_enough(measured, scenario, warnings)
    _check_runnable(models, measured, processors)
    asked = _asked_for(policy, models, processors)
    keep_all = not isinstance(scenario.processors, DefaultProcessors)
    profile = measured if keep_all else useful(measured, processors, keep=asked)
    return Preparation(
        scenario=scenario,
        models=models,
        processors=processors,
        measured=measured,
        profile=profile,
        policy=policy,
        feeds=feeds,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def choose_processors(scenario: Scenario) -> tuple[Processor, ...]:
    """Return the processors that a scenario asks for: found, found by name, or described.

    Raises:
        UnknownNameError: a name that no found processor has.
        ConfigurationError: a core that this process may not use.
    """
    asked = scenario.processors
    precisions = ("fp32", *scenario.precision.allow)
    if isinstance(asked, DefaultProcessors):
        cores = _restricted(find_cores(), asked.cores)
        return default_processors(asked.backends or None, cores=cores, precisions=precisions)
    found: dict[str, Processor] = {}
    if any(isinstance(each, str) for each in asked):
        found = {p.name: p for p in default_processors(precisions=precisions)}
    chosen = []
    for each in asked:
        if not isinstance(each, str):
            chosen.append(each.processor())
        elif each in found:
            chosen.append(found[each])
        else:
            raise UnknownNameError.of("processor", each, found, hint="See `coinfer doctor`.")
    return tuple(chosen)


def _restricted(cores: Cores, numbers: Iterable[int]) -> Cores:
    wanted = tuple(sorted(set(numbers)))
    if not wanted:
        return cores
    foreign = [number for number in wanted if number not in cores.numbers]
    if foreign:
        raise ConfigurationError(
            f"core {foreign[0]} may not be used here; the usable ones are "
            f"{', '.join(map(str, cores.numbers))}"
        )
    return Cores(
        numbers=wanted,
        host=cores.host,
        allowed=cores.allowed,
        physical=cores.physical,
        quota=cores.quota,
        pinnable=cores.pinnable,
    )


def _precise_enough(measured: Profile, scenario: Scenario, warnings: list[str]) -> Profile:
    tolerance = scenario.precision.tolerance
    limit = math.inf if tolerance is None else tolerance
    kept = {}
    for key, entry in measured:
        if entry.error is not None and not entry.error <= limit:
            warnings.append(
                f"{key.model} does not run on {key.processor}: its output error against fp32 is "
                f"{entry.error:.3g}, the tolerance {limit:g}"
            )
        else:
            kept[key] = entry
    return Profile(kept)


def _check_runnable(
    models: Mapping[str, Model], measured: Profile, processors: Iterable[Processor]
) -> None:
    for name in models:
        if name not in measured.models():
            names = ", ".join(processor.name for processor in processors)
            raise ConfigurationError(
                f"no processor runs model {name!r}; tried {names}. `coinfer profile` shows why"
            )


def _asked_for(
    policy: Policy, models: Mapping[str, Model], processors: Iterable[Processor]
) -> set[tuple[str, str]]:
    """Return the (model, processor) pairs that the policy's own options name; check the names."""
    given: Mapping[str, str] = getattr(policy, "assignment", None) or {}
    table: Mapping[str, Mapping[str, int]] = getattr(policy, "table", None) or {}
    pairs = {*given.items(), *((model, name) for name, row in table.items() for model in row)}
    known = [processor.name for processor in processors]
    for model, name in sorted(pairs):
        if model not in models:
            raise UnknownNameError.of("model in the policy's options", model, models)
        if name not in known:
            raise UnknownNameError.of("processor in the policy's options", name, known)
    for model in models if given else ():
        if model not in given:
            raise ConfigurationError(f"the policy's assignment has no processor for {model!r}")
    return pairs
