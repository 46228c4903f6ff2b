"""Prepare a scenario: find processors, load models, plan, and make the inputs.

On a described machine nothing is loaded or measured: the plan is to use all of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from coinfer.backends.base import Backend
from coinfer.errors import ConfigurationError
from coinfer.experiments.calibration import calibrate, check_seconds
from coinfer.experiments.certificate import certify, settled
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.machine import Machine
from coinfer.machine.machine_file import load_machine
from coinfer.machine.processor import ordinary
from coinfer.model import Model
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.planner.assignment import Pairs, asked_for, require_assigned
from coinfer.planner.make_plan import make_plan
from coinfer.planner.model_source import resolve_model
from coinfer.planner.processors import choose_processors
from coinfer.planner.wishes import CutWish, Wishes
from coinfer.policies import make_policy
from coinfer.profiling import Effort, ProfileCache, Profiler, Progress
from coinfer.profiling.budget import Budget
from coinfer.runtime.prepared import Prepared
from coinfer.workload.inputs import Feed, prepare_feeds
from coinfer.workload.partition_spec import PartitionSpec
from coinfer.workload.processor_spec import DefaultProcessors
from coinfer.workload.scenario import Scenario

__all__ = ["feeds_of", "prepare", "prepare_described"]


def prepare(
    scenario: Scenario,
    *,
    machine_file: Path | None = None,
    effort: Effort = Effort(),
    cache: ProfileCache | None = None,
    backends: Mapping[str, Backend] | None = None,
    progress: Progress | None = None,
    surroundings: bool = False,
    calibrate_s: float | None = None,
    budget: Budget | None = None,
) -> Prepared:
    """Make a plan for a scenario, on this machine or on one that a file describes.

    Args:
        scenario: What is to be run or simulated.
        machine_file: A machine file instead of the scenario's; neither: this machine.
        effort: When a measurement is good enough.
        cache: Where measurements are kept; None measures everything.
        backends: Backends by name, for those that are not to be looked up.
        progress: Called before each measurement.
        surroundings: Measure also what a simulation needs beside the times of the models.
        calibrate_s: Correct the times of this machine by a real run of so many seconds.
        budget: How long measuring may take; None: as long as it takes.

    Raises:
        ModelError, InputError: a model or its inputs cannot be used.
        ScenarioError: the machine file is wrong.
        UnknownNameError: the scenario names a policy, backend, processor or network that is not.
        BackendError: no processor runs a model.
        ConfigurationError: no processor runs a model within the tolerance, an option does not fit,
            or a calibration is asked for of a machine that a file describes.
    """
    if calibrate_s is not None:
        check_seconds(calibrate_s)
    path = machine_file or scenario.machine
    if path is not None:
        described = load_machine(path)
        if calibrate_s is not None:
            raise ConfigurationError(
                f"{described.name} is described by a file: only this machine can be calibrated; "
                "leave the calibration or the machine file out"
            )
        return prepare_described(scenario, described)
    profiler = Profiler(
        effort=effort,
        cache=cache,
        backends=backends or {},
        progress=progress,
        budget=budget or Budget(),
    )
    ready = _prepare_here(scenario, profiler, surroundings=surroundings)
    if calibrate_s is None:
        return ready
    if progress is not None:
        progress(0, 1, f"a run of {calibrate_s:g} s to calibrate")
    return calibrate(ready, seconds=calibrate_s).prepared(ready)


def prepare_described(scenario: Scenario, machine: Machine) -> Prepared:
    """Plan to use all of a machine that a file describes.

    Raises:
        UnknownNameError: a model that no processor of the machine runs, or an unknown policy.
    """
    policy = make_policy(scenario.policy.name, **scenario.policy.options)
    kept = settled(machine, certify(scenario, machine))
    asked_for(policy, scenario.models, ordinary(machine.processors))
    plan = Plan.of(
        kept,
        models=scenario.models,
        policy=_policy_of(scenario),
        warnings=tuple(_choices(machine, kept)),
    )
    return Prepared(scenario=scenario, plan=plan)


def feeds_of(
    scenario: Scenario, models: Mapping[str, Model], *, batch: int | None = None
) -> dict[str, list[Feed]]:
    """Make the inputs that a scenario's requests have, by model.

    Args:
        scenario: Where the inputs come from.
        models: By name.
        batch: Samples in each, where a model leaves that open; None: as the scenario says.

    Raises:
        InputError: inputs cannot be used.
    """
    return {
        name: prepare_feeds(
            spec.inputs, models[name], batch=batch or spec.batch, seed=scenario.seed
        )
        for name, spec in scenario.models.items()
    }


def _prepare_here(scenario: Scenario, profiler: Profiler, *, surroundings: bool) -> Prepared:
    specs = scenario.models
    policy = make_policy(scenario.policy.name, **scenario.policy.options)
    processors = choose_processors(scenario)
    models = {name: resolve_model(spec.source, name=name) for name, spec in specs.items()}
    asked = asked_for(policy, models, ordinary(processors))
    feeds = feeds_of(scenario, models)
    planned = make_plan(
        models,
        processors,
        _wishes(scenario, asked, surroundings=surroundings),
        profiler,
        samples=_samples(scenario, models, feeds),
    )
    require_assigned(policy, planned.plan.measured, planned.skips)
    return Prepared(
        scenario=scenario,
        plan=planned.plan,
        models=planned.models,
        feeds=feeds,
        backends=profiler.backends,
    )


def _samples(
    scenario: Scenario, models: Mapping[str, Model], feeds: Mapping[str, Sequence[Feed]]
) -> dict[str, Sequence[Feed]]:
    """Return what to measure with: of batch 1 where a model leaves that open."""
    single = {
        name: model
        for name, model in models.items()
        if scenario.models[name].batch > 1 and model.batch_symbol is not None
    }
    few = scenario.model_copy(update={"models": {n: scenario.models[n] for n in single}})
    return {**feeds, **feeds_of(few, single, batch=1)}


def _wishes(scenario: Scenario, asked: Pairs, *, surroundings: bool) -> Wishes:
    cuts = {name: scenario.partition_of(name) for name in scenario.models}
    tolerance = scenario.precision.tolerance
    wishes = Wishes(
        name=scenario.name,
        policy=_policy_of(scenario),
        batches={name: spec.batch for name, spec in scenario.models.items()},
        cuts={name: _cut_wish(spec) for name, spec in cuts.items() if spec is not None},
        allow=scenario.precision.allow,
        agreement=scenario.agreement,
        keep_all=not isinstance(scenario.processors, DefaultProcessors),
        asked=asked,
        surroundings=surroundings,
        sources={name: spec.source for name, spec in scenario.models.items()},
    )
    return wishes if tolerance is None else dataclasses.replace(wishes, tolerance=tolerance)


def _policy_of(scenario: Scenario) -> PolicyChoice:
    return PolicyChoice(name=scenario.policy.name, options=scenario.policy.options)


def _cut_wish(spec: PartitionSpec) -> CutWish:
    size = spec.minimum_subgraph_size
    options = PartitionOptions(
        mode=Mode(spec.mode),
        minimum_subgraph_size=1 if size == "search" else size,
        pieces=spec.pieces,
        max_span_s=spec.max_span_s,
        branches=spec.branches,
    )
    return CutWish(options, search=size == "search")


def _choices(machine: Machine, kept: Machine) -> list[str]:
    """Say which model a processor was given to keep, where the file left that open."""
    if len(kept.profile.entries) == len(machine.profile.entries):
        return []
    return [
        f"{name} holds one model and has no load time to change it: it keeps {key.model}"
        for name in sorted(machine.keeps)
        for key, _ in kept.profile
        if key.processor == name
    ]
