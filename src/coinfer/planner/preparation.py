"""Preparation: from a scenario to models, processors, profile and inputs, ready to be run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from coinfer.backends.base import Backend
from coinfer.backends.pools import POOLS
from coinfer.core.policy import Policy
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.hardware.catalogue import default_processors
from coinfer.hardware.cores import Cores, find_cores
from coinfer.model import Model
from coinfer.partitioning.partitioned import Partitioned
from coinfer.planner.cutting import cut_models, memory_notes
from coinfer.policies import make_policy
from coinfer.processor import Processor, ordinary, twins
from coinfer.profiles import Profile, Span
from coinfer.profiling import (
    Effort,
    ProfileCache,
    Progress,
    Skip,
    profile_models,
    require_runnable,
    useful,
    within_pools,
)
from coinfer.sources import resolve_model
from coinfer.workload.inputs import Feed, prepare_feeds
from coinfer.workload.processor_spec import DefaultProcessors, ProcessorSpec
from coinfer.workload.scenario import ModelSpec, Scenario

__all__ = ["Preparation", "asked_for", "choose_processors", "find_processors", "prepare"]

_Pairs = set[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """All that a run needs beside the engine.

    Attributes:
        scenario: What was prepared.
        models: By name.
        cuts: Those of them that are partitioned.
        processors: What may be used.
        measured: Everything that was measured and is allowed; the bound rests on it.
        profile: The part of it that is worth loading.
        policy: A fresh policy.
        feeds: Prepared inputs by model.
        warnings: What a reader of the results must know.
    """

    scenario: Scenario
    models: Mapping[str, Model]
    cuts: Mapping[str, Partitioned]
    processors: tuple[Processor, ...]
    measured: Profile
    profile: Profile
    policy: Policy
    feeds: Mapping[str, list[Feed]]
    warnings: tuple[str, ...]

    @property
    def loads(self) -> dict[str, Model | Partitioned]:
        """What an engine is to load, by name."""
        return {**self.models, **self.cuts}

    @property
    def whole_profile(self) -> Profile:
        """Where models run whole: of a model that is cut, what was measured of it uncut."""
        cut = {
            key._replace(span=Span()): entry
            for key, entry in self.measured
            if key.model in self.cuts and key.span == Span(0, self.cuts[key.model].units - 1)
        }
        uncut = {key: entry for key, entry in self.profile if key.model not in self.cuts}
        return Profile({**uncut, **cut})

    @property
    def output_errors(self) -> dict[str, dict[str, float]]:
        """Measured output error of what runs below fp32, `{processor: {model: error}}`."""
        errors: dict[str, dict[str, float]] = {}
        for key, entry in self.profile:
            if entry.error is not None:
                row = errors.setdefault(key.processor, {})
                row[key.model] = max(entry.error, row.get(key.model, 0.0))  # the worst span
        return errors


def prepare(
    scenario: Scenario,
    *,
    effort: Effort = Effort(),
    cache: ProfileCache | None = None,
    backends: Mapping[str, Backend] | None = None,
    progress: Progress | None = None,
) -> Preparation:
    """Load the models, find the processors, measure what is not known, prepare the inputs.

    Args:
        scenario: What is to be run.
        effort: When a measurement is good enough.
        cache: Where measurements are kept; None measures everything.
        backends: Backends by name, for those that are not to be looked up.
        progress: Called before each measurement.

    Raises:
        ModelError, InputError: a model or its inputs cannot be used.
        UnknownNameError: the scenario names a policy, backend, processor or network that is not.
        BackendError: no processor runs a model.
        ConfigurationError: no processor runs a model within the tolerance, or an option does not
            fit.
    """
    policy = make_policy(scenario.policy.name, **scenario.policy.options)
    processors = choose_processors(scenario)
    models = {name: resolve_model(spec.source, name=name) for name, spec in scenario.models.items()}
    asked = asked_for(policy, models, ordinary(processors))
    feeds = {
        name: prepare_feeds(spec.inputs, models[name], batch=spec.batch, seed=scenario.seed)
        for name, spec in scenario.models.items()
    }
    samples = {name: _samples(scenario, name, models[name], feeds[name]) for name in models}
    whole = {n: spec for n, spec in scenario.models.items() if scenario.partition_of(n) is None}
    skips: list[Skip] = []
    measured = Profile()
    for batch, names in _by_batch(whole):
        found = profile_models(
            {name: models[name] for name in names},
            processors,
            batches=(batch,),
            effort=effort,
            cache=cache,
            backends=backends,
            feeds={name: samples[name] for name in names},
            progress=progress,
            skipped=skips.append,
        )
        measured = measured.merged(found)
    require_runnable(whole, measured, skips)
    allowed, refusals = _precise_enough(measured, scenario, processors)
    _check_allowed(whole, allowed, refusals)
    cuts = cut_models(
        scenario,
        models,
        processors,
        asked={model for model, _ in asked},
        effort=effort,
        cache=cache,
        backends=backends,
        feeds=samples,
        progress=progress,
    )
    everything = _merged([allowed, *(cut.measured for cut in cuts.values())])
    _check_assigned(policy, everything, (*skips, *refusals))
    worth = _useful(allowed, scenario, processors, asked)
    profile, notes = _within_pools(
        _merged([worth, *(cut.profile for cut in cuts.values())]), scenario, processors, asked
    )
    reasons = [skip.reason for skip in (*skips, *refusals)]
    reasons += [warning for cut in cuts.values() for warning in cut.warnings]
    reasons += _unavailable(scenario, processors)
    reasons += memory_notes(cuts)
    return Preparation(
        scenario=scenario,
        models=models,
        cuts=cuts,
        processors=processors,
        measured=everything,
        profile=profile,
        policy=policy,
        feeds=feeds,
        warnings=tuple(dict.fromkeys([*reasons, *notes])),
    )


def _unavailable(scenario: Scenario, processors: Iterable[Processor]) -> list[str]:
    """Say which of the allowed precisions no processor here has."""
    found = {processor.precision for processor in processors}
    return [
        f"{precision} is allowed but no device here reports it; nothing runs in it"
        for precision in scenario.precision.allow
        if precision not in found
    ]


def choose_processors(scenario: Scenario) -> tuple[Processor, ...]:
    """Return the processors that a scenario asks for: found, found by name, or described.

    Raises:
        UnknownNameError: a name that no found processor has.
        ConfigurationError: a core that this process may not use, or a name given twice.
    """
    return find_processors(scenario.processors, ("fp32", *scenario.precision.allow))


def find_processors(
    asked: DefaultProcessors | tuple[str | ProcessorSpec, ...], precisions: tuple[str, ...]
) -> tuple[Processor, ...]:
    """Return the processors that are asked for: found, found by name, or described.

    Raises:
        UnknownNameError: a name that no found processor has.
        ConfigurationError: a core that this process may not use, a name given twice, or an express
            processor that stands on no other.
    """
    if isinstance(asked, DefaultProcessors):
        cores = _restricted(find_cores(), asked.cores)
        return default_processors(
            asked.backends or None, cores=cores, precisions=precisions, preempt=asked.preempt
        )
    found: dict[str, Processor] = {}
    if any(isinstance(each, str) for each in asked):
        found = {p.name: p for p in default_processors(precisions=precisions, preempt=True)}
    chosen: dict[str, Processor] = {}
    for each in asked:
        if not isinstance(each, str):
            processor = each.processor()
            _restricted(find_cores(), processor.cores)
        elif each in found:
            processor = found[each]
        else:
            raise UnknownNameError.of("processor", each, found, hint="See `coinfer doctor`.")
        if processor.name in chosen:
            raise ConfigurationError(f"two processors are named {processor.name!r}; rename one")
        chosen[processor.name] = processor
    twins(chosen.values())  # raises where an express one stands on none
    return tuple(chosen.values())


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
    return dataclasses.replace(cores, numbers=wanted)


def _by_batch(specs: Mapping[str, ModelSpec]) -> Iterator[tuple[int, list[str]]]:
    for batch in sorted({spec.batch for spec in specs.values()}):
        yield batch, [name for name, spec in specs.items() if spec.batch == batch]


def _samples(scenario: Scenario, name: str, model: Model, feeds: Sequence[Feed]) -> Sequence[Feed]:
    """Return what the profiler measures with: batch 1 where the model leaves that open."""
    spec = scenario.models[name]
    if spec.batch == 1 or model.batch_symbol is None:
        return feeds
    return prepare_feeds(spec.inputs, model, batch=1, seed=scenario.seed)


def _precise_enough(
    measured: Profile, scenario: Scenario, processors: Iterable[Processor]
) -> tuple[Profile, list[Skip]]:
    """Split what was measured into what may run and why the rest may not."""
    tolerance = scenario.precision.tolerance
    lower = {processor.name for processor in processors if processor.precision != "fp32"}
    refusals = {}
    for key, entry in measured:
        if key.processor not in lower:
            continue
        error = math.inf if entry.error is None else entry.error
        if tolerance is None or not error <= tolerance:
            refusals[key] = Skip(
                key.model,
                key.processor,
                f"{key.model} does not run on {key.processor}: its output error against fp32 is "
                f"{error:.3g}, the tolerance {tolerance or 0:g}",
            )
    kept = {key: entry for key, entry in measured if key not in refusals}
    return Profile(kept), list(refusals.values())


def _check_allowed(models: Iterable[str], allowed: Profile, refusals: Sequence[Skip]) -> None:
    for name in models:
        if name not in allowed.models():
            reasons = "; ".join(skip.reason for skip in refusals if skip.model == name)
            raise ConfigurationError(
                f"no processor runs model {name!r} precisely enough: {reasons}; raise the "
                "tolerance or add a processor in fp32"
            )


def _check_assigned(policy: Policy, allowed: Profile, skips: Iterable[Skip]) -> None:
    reasons = {(skip.model, skip.processor): skip.reason for skip in skips}
    for model, name in _assignment(policy).items():
        if not any(key.model == model and key.processor == name for key, _ in allowed):
            why = reasons.get((model, name), "")
            raise ConfigurationError(
                f"the policy's assignment puts {model!r} on {name!r}, which does not run it"
                + (f": {why}" if why else "")
            )


def _useful(
    allowed: Profile, scenario: Scenario, processors: Sequence[Processor], asked: _Pairs
) -> Profile:
    """Leave out what is superfluous, unless the scenario describes its processors itself."""
    if isinstance(scenario.processors, DefaultProcessors):
        return useful(allowed, processors, keep=asked)
    return allowed


def _within_pools(
    wanted: Profile, scenario: Scenario, processors: Sequence[Processor], asked: _Pairs
) -> tuple[Profile, list[str]]:
    """Return what to load, and a note if there are too many models for thread pools."""
    room = POOLS.room(max(processor.threads for processor in processors))
    profile = within_pools(wanted, processors, threads=room, keep=asked)
    if len(profile.entries) == len(wanted.entries):
        return profile, []
    note = (
        f"processors with several threads are not used: for {len(scenario.models)} models their "
        f"thread pools would hold more than {room} threads"
    )
    return profile, [note]


def _merged(profiles: Iterable[Profile]) -> Profile:
    return Profile({key: entry for profile in profiles for key, entry in profile})


def _assignment(policy: Policy) -> Mapping[str, str]:
    return getattr(policy, "assignment", None) or {}


def asked_for(
    policy: Policy, models: Mapping[str, object], processors: Iterable[Processor]
) -> _Pairs:
    """Return the (model, processor) pairs that the policy's own options name; check the names."""
    given = _assignment(policy)
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
