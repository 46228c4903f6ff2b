"""Prepare a scenario: find processors, load models, plan, and make the inputs.

On a described machine nothing is loaded or measured: the plan is to use all of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from coinfer.core.policy import Policy
from coinfer.errors import ConfigurationError
from coinfer.experiments.certificate import certify, settled
from coinfer.graph.cut_model import CutModel
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.machine import Machine
from coinfer.machine.machine_file import load_machine
from coinfer.machine.processor import Processor, ordinary
from coinfer.model import Model
from coinfer.model.paging import paged
from coinfer.plan.fused_plan import FusedPlan
from coinfer.plan.plan import AUTO, Plan, PolicyChoice
from coinfer.plan.variant import GraphFile, Kind, Variant, variant_name
from coinfer.planner.assignment import Pairs, asked_for, require_assigned
from coinfer.planner.columns import Demand
from coinfer.planner.make_plan import make_plan
from coinfer.planner.model_source import resolve_model
from coinfer.planner.passes.batching import chosen_batching
from coinfer.planner.passes.policy import telling, with_best_policy
from coinfer.planner.processors import choose_processors
from coinfer.planner.samples import guess_warning, settled_sizes, with_batch_found_out
from coinfer.planner.scenario_sizes import with_sizes
from coinfer.planner.wishes import CutWish, Wishes
from coinfer.policies import make_policy
from coinfer.profiling import Profiler
from coinfer.runtime.prepared import Prepared
from coinfer.workload.input_spec import RandomInputs
from coinfer.workload.inputs import Feed, prepare_feeds
from coinfer.workload.load import Load
from coinfer.workload.partition_spec import PartitionSpec
from coinfer.workload.processor_spec import DefaultProcessors
from coinfer.workload.scenario import ModelSpec, Scenario

_TOGETHER = "+"
"""Between the names of models, in the name of a fused variant of a described machine."""

_ARRIVALS = 4096
"""From so many requests is found out how evenly they come."""

NO_DIMS: Mapping[str, int] = {}

__all__ = ["feeds_of", "prepare"]


def prepare(
    scenario: Scenario,
    profiler: Profiler | None = None,
    *,
    machine_file: Path | None = None,
    surroundings: bool = False,
    dims: Mapping[str, int] = NO_DIMS,
    data_root: Path | None = None,
) -> Prepared:
    """Make a plan for a scenario, on this machine or on one that a file describes.

    Args:
        scenario: What is to be run or simulated.
        profiler: How this machine is measured; None: all of it, whatever was measured before.
        machine_file: A machine file instead of the scenario's; neither: this machine.
        surroundings: Measure also what a simulation needs beside the times of the models.
        dims: Sizes of open dimensions by name, in place of those that the scenario states.
        data_root: A folder in which links of models' files may end, as for `load_model`.

    Raises:
        ModelError, InputError: a model or its inputs cannot be used.
        ScenarioError: the machine file is wrong.
        UnknownNameError: the scenario names a policy, backend, processor or network that is not.
        BackendError: no processor runs a model.
        ConfigurationError: no processor runs a model within the tolerance, or an option does not
            fit.
    """
    path = machine_file or scenario.machine
    if path is not None:
        stated = {name: _stated_sizes(spec) for name, spec in scenario.models.items()}
        sized = with_sizes(scenario, dims, stated, {})
        return _prepare_described(sized, load_machine(path), telling(profiler))
    profiler = profiler or Profiler()
    policy = _policy(scenario)
    processors = choose_processors(scenario)
    models = {
        name: resolve_model(spec.source, name=name, data_root=data_root)
        for name, spec in scenario.models.items()
    }
    asked = frozenset() if policy is None else asked_for(policy, models, ordinary(processors))
    named = {name: {**_stated_sizes(spec), **dims} for name, spec in scenario.models.items()}
    filled = [name for name in models if scenario.partition_of(name) is None]
    models = with_batch_found_out(models, processors, named, profiler, {}, filled=filled)
    scenario, guesses = _sized(scenario, models, dims, processors, profiler)
    feeds = feeds_of(scenario, models)
    samples = _samples(scenario, models, feeds)
    wishes = _wishes(scenario, asked, surroundings=surroundings or policy is None)
    planned = make_plan(models, processors, wishes, profiler, samples=samples)
    if policy is not None:
        require_assigned(policy, planned.plan.measured, planned.skips)
    return Prepared(
        scenario=scenario,
        plan=planned.plan.warned(*guesses),
        models=_paged(planned.models) if planned.plan.memory else planned.models,
        feeds=feeds,
        backends=profiler.backends,
    )


def _paged(models: Mapping[str, Model | CutModel]) -> dict[str, Model | CutModel]:
    """Return models whose weights are not in memory: those are loaded within a budget."""
    found: dict[str, Model | CutModel] = {}
    for name, model in models.items():
        if isinstance(model, Model):
            found[name] = paged(model)
            continue
        pieces = {
            span: dataclasses.replace(piece, model=paged(piece.model))
            for span, piece in model.pieces.items()
        }
        found[name] = dataclasses.replace(model, model=paged(model.model), pieces=pieces)
    return found


def _sized(
    scenario: Scenario,
    models: Mapping[str, Model],
    dims: Mapping[str, int],
    processors: Sequence[Processor],
    profiler: Profiler,
) -> tuple[Scenario, list[str]]:
    """Settle the sizes of random inputs; return also what to say of those that are guessed."""
    sizes: dict[str, Mapping[str, int]] = {}
    warnings = []
    for name, model in models.items():
        spec = scenario.models[name]
        if isinstance(spec.inputs, RandomInputs):
            stated = {**_stated_sizes(spec), **dims}
            sizes[name], guessed = settled_sizes(model, stated, processors, profiler)
            warning = guess_warning(name, guessed)
            warnings += [] if warning is None else [warning]
    open_dims = {name: model.open_dims for name, model in models.items()}
    return with_sizes(scenario, dims, open_dims, sizes), warnings


def _stated_sizes(spec: ModelSpec) -> Mapping[str, int]:
    """Return the first of the sizes that the scenario states; none if it states none."""
    dims = spec.inputs.dims if isinstance(spec.inputs, RandomInputs) else ()
    return dims[0].sizes if dims else {}


def _prepare_described(
    scenario: Scenario, machine: Machine, tell: Callable[[int], None]
) -> Prepared:
    """Plan to use all of a machine that a file describes.

    Raises:
        UnknownNameError: a model that no processor of the machine runs, or an unknown policy.
    """
    policy = _policy(scenario)
    plan = _with_described_variants(
        Plan.of(machine, models=scenario.models, policy=_policy_of(scenario)), scenario
    )
    kept = settled(machine, certify(scenario, machine, variants=plan.cheaper))
    if policy is not None:
        asked_for(policy, scenario.models, ordinary(machine.processors))
    plan = dataclasses.replace(
        plan, machine=kept, memory=scenario.memory.budget, pinned=scenario.memory.pin
    ).loading(kept.profile)
    plan = _with_described_fused(plan, scenario).warned(*_choices(machine, kept))
    for name, spec in scenario.models.items():
        plan = plan.with_batching(name, *chosen_batching(plan, name, spec.batching))
    if policy is None:
        plan = with_best_policy(plan, scenario, tell)
    return Prepared(scenario=scenario, plan=plan)


def _with_described_variants(plan: Plan, scenario: Scenario) -> Plan:
    """Add the variants of models for which a described machine has times, `MODEL@KIND`.

    Their error is what the scenario allows: nobody can measure it.

    Raises:
        ConfigurationError: there are no times of one that is asked for.
    """
    profile = plan.measured
    for model, spec in scenario.models.items():
        asked = {} if spec.variants is None else spec.variants.asked
        for text in asked:
            assert spec.variants is not None
            kind = Kind(text)
            name = variant_name(model, kind)
            if name not in profile.models():
                raise ConfigurationError(
                    f"model {model!r} is to have a {kind} variant, and machine "
                    f"{plan.machine.name!r} has no times of it; give it some as {name!r}, or leave "
                    "`variants` out"
                )
            variant = Variant(
                kind=kind,
                n_units=profile.units(name),
                spans=profile.spans_by_processor(name),
                error=spec.variants.max_error,
                use=spec.variants.use,
            )
            plan = plan.with_variant(model, variant)
    return plan


def _with_described_fused(plan: Plan, scenario: Scenario) -> Plan:
    """Add the fused variants for which a described machine has times, `MODEL+MODEL`.

    Raises:
        ConfigurationError: there are no times of a group that is asked for.
    """
    wish, profile = scenario.fuse, plan.measured
    if wish == "never" or (wish == "auto" and plan.memory):
        return plan
    if plan.memory:
        raise ConfigurationError(
            "fused networks are loaded beside their members, which no memory budget can do yet; "
            "leave out `memory`, or `fuse`"
        )
    if isinstance(wish, str):
        fresh = [name for name in profile.models() if name not in plan.models]
        named = [tuple(name.split(_TOGETHER)) for name in fresh]
        groups = [group for group in named if len(group) > 1 and set(group) <= plan.models.keys()]
    else:
        groups = list(wish)
    for group in groups:
        name = _TOGETHER.join(group)
        able = [set(profile.restricted([each]).processors()) for each in (name, *group)]
        shared = set.intersection(*able)
        if not shared:
            raise ConfigurationError(
                f"{', '.join(group)} are to be fused, and machine {plan.machine.name!r} has no "
                f"times of that on a processor that runs each of them; give it some as {name!r}, "
                "or leave `fuse` out"
            )
        names = tuple(p.name for p in plan.processors if p.name in shared)
        fused = FusedPlan(models=group, graph=GraphFile("", ""), processors=names)
        plan = plan.with_fused(name, fused)
    return plan


def feeds_of(scenario: Scenario, models: Mapping[str, Model]) -> dict[str, list[Feed]]:
    """Make the inputs that a scenario's requests have, by model.

    Args:
        scenario: Where the inputs come from.
        models: By name.

    Raises:
        InputError: inputs cannot be used.
    """
    return {
        name: prepare_feeds(spec.inputs, models[name], batch=spec.batch, seed=scenario.seed)
        for name, spec in scenario.models.items()
    }


def _samples(
    scenario: Scenario, models: Mapping[str, Model], feeds: Mapping[str, Sequence[Feed]]
) -> dict[str, Sequence[Feed]]:
    """Return what to measure with: of batch 1 where a model leaves that open."""
    single = {
        name: spec.with_single_samples()
        for name, spec in scenario.models.items()
        if spec.batch > 1 and models[name].batch_symbol is not None
    }
    ones = feeds_of(scenario.model_copy(update={"models": single}), models)
    # The feeds of a rotation are the same objects again and again.
    return {
        name: list({id(feed): feed for feed in each}.values())
        for name, each in {**feeds, **ones}.items()
    }


def _wishes(scenario: Scenario, asked: Pairs, *, surroundings: bool) -> Wishes:
    cuts = {name: scenario.partition_of(name) for name in scenario.models}
    tolerance = scenario.precision.tolerance
    processors, specs = scenario.processors, scenario.models.values()
    return Wishes(
        name=scenario.name,
        policy=_policy_of(scenario),
        scenario=scenario,
        batches={name: spec.batch for name, spec in scenario.models.items()},
        riders={name: spec.batching for name, spec in scenario.models.items()},
        fuse=scenario.fuse,
        cuts={name: _cut_wish(spec) for name, spec in cuts.items() if spec is not None},
        allow=scenario.precision.allow,
        tolerance=math.inf if tolerance is None else tolerance,
        agreement=scenario.agreement,
        variants={name: s.variants for name, s in scenario.models.items() if s.variants},
        random=frozenset(
            name for name, s in scenario.models.items() if isinstance(s.inputs, RandomInputs)
        ),
        keep_all=not isinstance(processors, DefaultProcessors),
        preempt=processors.preempt if isinstance(processors, DefaultProcessors) else True,
        is_urgent=len({spec.priority for spec in specs}) > 1 or any(s.deadline_s for s in specs),
        asked=asked,
        surroundings=surroundings,
        memory=scenario.memory.budget,
        pinned=scenario.memory.pin,
        sources={name: spec.source for name, spec in scenario.models.items()},
        demand=_demand(scenario),
    )


def _demand(scenario: Scenario) -> Demand:
    load = Load(scenario)
    rates = load.offered_rates_per_s()
    return Demand(
        rates=rates or load.offered_mix() or {},
        is_absolute=bool(rates),
        deadlines={n: s.deadline_s for n, s in scenario.models.items() if s.deadline_s},
        arrivals=partial(load.first_arrivals, _ARRIVALS),
    )


def _policy(scenario: Scenario) -> Policy | None:
    """Make the policy of a scenario; None if planning is to choose one."""
    spec = scenario.policy
    return None if spec.name == AUTO else make_policy(spec.name, **spec.options)


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
