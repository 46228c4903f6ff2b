"""Preparation: from a scenario to models, processors, profile and inputs, ready to be run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from coinfer.backends.base import Backend
from coinfer.backends.pools import POOLS
from coinfer.core.policy import Policy
from coinfer.graph.cut_model import CutModel
from coinfer.machine.processor import Processor, ordinary
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.planner.assignment import Pairs, asked_for, require_assigned
from coinfer.planner.cutting import cut_models, memory_notes
from coinfer.planner.precision import precise_enough, require_precise, unavailable
from coinfer.planner.processors import choose_processors
from coinfer.policies import make_policy
from coinfer.profiling import (
    Effort,
    ProfileCache,
    Profiler,
    Progress,
    Skip,
    require_runnable,
    useful,
    within_pools,
)
from coinfer.workload.inputs import Feed, prepare_feeds
from coinfer.workload.processor_spec import DefaultProcessors
from coinfer.workload.scenario import ModelSpec, Scenario
from coinfer.zoo.source import resolve_model

__all__ = ["Preparation", "prepare"]


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
    cuts: Mapping[str, CutModel]
    processors: tuple[Processor, ...]
    measured: Profile
    profile: Profile
    policy: Policy
    feeds: Mapping[str, list[Feed]]
    warnings: tuple[str, ...]

    @property
    def loads(self) -> dict[str, Model | CutModel]:
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
    found = _Groundwork.of(scenario)
    profiler = Profiler(effort=effort, cache=cache, backends=backends or {}, progress=progress)
    whole, skips = _measured_whole(found, profiler)
    cuts = cut_models(
        scenario,
        found.models,
        found.processors,
        profiler,
        asked={model for model, _ in found.asked},
        feeds=found.samples,
    )
    measured = _merged([whole, *(cut.measured for cut in cuts.values())])
    require_assigned(found.policy, measured, skips)
    profile, notes = _worth_loading(found, whole, cuts)
    reasons = [skip.reason for skip in skips]
    reasons += [warning for cut in cuts.values() for warning in cut.warnings]
    reasons += [*unavailable(scenario.precision, found.processors), *memory_notes(cuts), *notes]
    return Preparation(
        scenario=scenario,
        models=found.models,
        cuts=cuts,
        processors=found.processors,
        measured=measured,
        profile=profile,
        policy=found.policy,
        feeds=found.feeds,
        warnings=tuple(dict.fromkeys(reasons)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Groundwork:
    """What is found out before anything is measured.

    Attributes:
        scenario: What is to be run.
        policy: A fresh policy.
        processors: What may be used.
        models: By name.
        asked: The (model, processor) pairs that the policy names.
        feeds: Prepared inputs by model.
        samples: What to measure with, by model: of batch 1 where the model leaves that open.
    """

    scenario: Scenario
    policy: Policy
    processors: tuple[Processor, ...]
    models: Mapping[str, Model]
    asked: Pairs
    feeds: Mapping[str, list[Feed]]
    samples: Mapping[str, Sequence[Feed]]

    @classmethod
    def of(cls, scenario: Scenario) -> Self:
        """Make the policy, find the processors, load the models, check names, prepare inputs."""
        specs = scenario.models
        policy = make_policy(scenario.policy.name, **scenario.policy.options)
        processors = choose_processors(scenario)
        models = {name: resolve_model(spec.source, name=name) for name, spec in specs.items()}
        asked = asked_for(policy, models, ordinary(processors))
        feeds = {
            name: prepare_feeds(spec.inputs, models[name], batch=spec.batch, seed=scenario.seed)
            for name, spec in specs.items()
        }
        samples = {
            name: feeds[name]
            if spec.batch == 1 or models[name].batch_symbol is None
            else prepare_feeds(spec.inputs, models[name], batch=1, seed=scenario.seed)
            for name, spec in specs.items()
        }
        return cls(
            scenario=scenario,
            policy=policy,
            processors=processors,
            models=models,
            asked=asked,
            feeds=feeds,
            samples=samples,
        )


def _measured_whole(found: _Groundwork, profiler: Profiler) -> tuple[Profile, list[Skip]]:
    """Measure the models that are not cut; return what may run, and why the rest may not."""
    scenario = found.scenario
    whole = {n: spec for n, spec in scenario.models.items() if scenario.partition_of(n) is None}
    skips: list[Skip] = []
    measured = Profile()
    for batch, names in _by_batch(whole):
        models = {name: found.models[name] for name in names}
        feeds = {name: found.samples[name] for name in names}
        profile = profiler.profile(
            models, found.processors, batch=batch, feeds=feeds, skipped=skips.append
        )
        measured = measured.merged(profile)
    require_runnable(whole, measured, skips)
    allowed, refusals = precise_enough(measured, found.processors, scenario.precision.tolerance)
    require_precise(whole, allowed, refusals)
    return allowed, [*skips, *refusals]


def _by_batch(specs: Mapping[str, ModelSpec]) -> Iterator[tuple[int, list[str]]]:
    for batch in sorted({spec.batch for spec in specs.values()}):
        yield batch, [name for name, spec in specs.items() if spec.batch == batch]


def _worth_loading(
    found: _Groundwork, whole: Profile, cuts: Mapping[str, CutModel]
) -> tuple[Profile, list[str]]:
    """Return what to load, and a note if there are too many models for thread pools.

    What is superfluous is left out, unless the scenario describes its processors itself.
    """
    processors, asked = found.processors, found.asked
    if isinstance(found.scenario.processors, DefaultProcessors):
        whole = useful(whole, processors, keep=asked)
    wanted = _merged([whole, *(cut.profile for cut in cuts.values())])
    room = POOLS.room(max(processor.threads for processor in processors))
    profile = within_pools(wanted, processors, threads=room, keep=asked)
    if len(profile.entries) == len(wanted.entries):
        return profile, []
    note = (
        f"processors with several threads are not used: for {len(found.models)} models their "
        f"thread pools would hold more than {room} threads"
    )
    return profile, [note]


def _merged(profiles: Iterable[Profile]) -> Profile:
    return Profile({key: entry for profile in profiles for key, entry in profile})
