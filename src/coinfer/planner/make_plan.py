"""Make a plan: run all passes over models and processors."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from coinfer.backends.base import Backend, Tensors, weights_key
from coinfer.backends.registry import find_backends
from coinfer.graph.cut_model import CutModel
from coinfer.hardware.cores import find_cores
from coinfer.machine.batching import Batching
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor, ordinary
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.plan.choice import Choice
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Kind, Variant
from coinfer.planner.identity import identity_of
from coinfer.planner.passes import PASSES
from coinfer.planner.planning import Planning
from coinfer.planner.samples import Measurable, Samples, measurable, with_work
from coinfer.planner.wishes import Wishes
from coinfer.profiling import Profiler, Skip
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.workload.batch_spec import BatchSpec

__all__ = ["HERE", "Planned", "given_plan", "make_plan", "whole_of"]

HERE = "this machine"
"""What plans call the machine that they were measured on."""


class Planned(NamedTuple):
    """A plan with the models that it is of.

    Attributes:
        plan: The plan.
        models: By name; those that are cut with their spans.
        skips: Why processors do not run models.
    """

    plan: Plan
    models: Mapping[str, Model | CutModel]
    skips: Sequence[Skip] = ()


def make_plan(
    models: Mapping[str, Model | CutModel],
    processors: Sequence[Processor],
    wishes: Wishes,
    profiler: Profiler,
    *,
    samples: Mapping[str, Sequence[Tensors]] | None = None,
) -> Planned:
    """Decide what is loaded where, by what is measured.

    Args:
        models: By name; those that were cut before keep their cuts and times.
        processors: What may be used, in the order of preference.
        wishes: What is wanted.
        profiler: Measures for all passes, within its budget.
        samples: Sample inputs by model, of batch 1 where that is open; random ones otherwise, of
            the sizes that the wishes name or of a guess.

    Raises:
        BackendError: no processor runs a model.
        ConfigurationError: no processor runs a model precisely enough, or an option does not fit.

    >>> from coinfer.backends.null import NullBackend
    >>> from coinfer.profiling import Effort
    >>> from coinfer.testing.models import tiny_linear
    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> profiler = Profiler(effort=Effort(max_runs=2), backends={"null": NullBackend()})
    >>> plan = make_plan({"m": tiny_linear().model}, [cpu], Wishes(), profiler).plan
    >>> plan.models["m"].original.spans
    {'cpu': (Span(first=0, last=0),)}
    """
    whole = {name: whole_of(model) for name, model in models.items()}
    cut = wishes.cuts.keys() | {n for n, each in models.items() if isinstance(each, CutModel)}
    found = measurable(
        whole, processors, wishes.dims, profiler, samples or {}, filled=models.keys() - cut
    )
    planning = _planning(models, found, wishes, profiler)
    planning.random = wishes.random | (models.keys() - (samples or {}).keys())
    plan = _empty(planning, processors).warned(*found.warnings)
    for each in PASSES:
        plan = each(plan, planning)
    return Planned(plan, planning.loads, planning.skips)


def given_plan(
    models: Mapping[str, Model | CutModel],
    processors: Sequence[Processor],
    profile: Profile,
    wishes: Wishes | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Planned:
    """Load models wherever a profile has times for them; nothing is measured.

    Args:
        models: By name.
        processors: What may be used.
        profile: Expected times; of a model that is cut, of its spans.
        wishes: Of these the policy, the sources and explicit wishes to batch count.
        backends: Backends by name, for those that are not to be looked up.
    """
    whole = {name: whole_of(model) for name, model in models.items()}
    unmeasured = Measurable(whole, dict.fromkeys(models, Samples((), {})), ())
    planning = _planning(models, unmeasured, wishes or Wishes(), Profiler(backends=backends or {}))
    plan = _empty(planning, processors).with_profile(profile)
    for name, cut in planning.cut_models.items():
        variant = Variant(n_units=cut.units, units=cut.operators, forks=cut.forks)
        plan = plan.with_variant(name, variant)
    plan = plan.loading(profile)
    for name in plan.models:
        spec = planning.wishes.riders.get(name)
        if spec is not None:
            plan = _batched_unseen(plan, name, spec)
    return Planned(plan, planning.loads)


def _batched_unseen(plan: Plan, name: str, spec: BatchSpec) -> Plan:
    """Let requests share executions as far as is asked: nobody has seen what they get then."""
    if spec.pad:
        plan = plan.warned(
            f"{name}: requests are not padded along {', '.join(spec.pad)}: with a given profile "
            "nothing is run before, so nobody has seen whether padded ones get what they get "
            "alone; leave the profile out"
        )
    if spec.max == "auto":
        what = (
            "none: with a given profile nobody has seen whether answers change with the company "
            "that they are computed in; ask for it, e.g. with {'max': 16}"
        )
        return plan.with_batching(name, None, Choice("batching", what))
    if spec.max == "off":
        return plan.with_batching(name, None, Choice("batching", "none: as asked"))
    if plan.models[name].fixed_batch:
        what = "none: its file fixes the batch, and with a given profile it is not filled up"
        return plan.with_batching(name, None, Choice("batching", what))
    choice = Choice("batching", f"up to {spec.max}, as asked")
    return plan.with_batching(name, Batching(spec.most, spec.max_delay), choice)


def whole_of(model: Model | CutModel) -> Model:
    """Return a model uncut."""
    return model.model if isinstance(model, CutModel) else model


def _planning(
    models: Mapping[str, Model | CutModel],
    found: Measurable,
    wishes: Wishes,
    profiler: Profiler,
) -> Planning:
    models = {name: model.renamed(name) for name, model in models.items()}
    return Planning(
        models=found.models,
        wishes=wishes,
        profiler=profiler,
        samples={name: each.feeds for name, each in found.samples.items()},
        guessed={name: each.guessed for name, each in found.samples.items() if each.guessed},
        cut_models={n: model for n, model in models.items() if isinstance(model, CutModel)},
    )


def _empty(planning: Planning, processors: Sequence[Processor]) -> Plan:
    wishes = planning.wishes
    return Plan(
        name=wishes.name,
        machine=Machine(
            name=HERE,
            processors=tuple(processors),
            profile=Profile(),
            identity=identity_of(processors, planning.profiler.backends),
            topology=find_cores().topology,
            shares=_shares(processors, planning.profiler.backends),
        ),
        models={
            name: with_work(
                ModelPlan(
                    source=wishes.sources.get(name) or str(model.source or ""),
                    fingerprint=fingerprint_of(model, planning.profiler.cache).full,
                    batch=1 if model.batch_symbol is None else wishes.batches.get(name, 1),
                    fixed_batch=model.batch_symbol is None,
                    filling=model.filling,
                    variants={Kind.ORIGINAL: Variant()},
                ),
                model,
                planning.samples[name],
            )
            for name, model in planning.models.items()
        },
        policy=wishes.policy,
        memory=wishes.memory,
        pinned=wishes.pinned,
    )


def _shares(processors: Sequence[Processor], backends: Mapping[str, Backend]) -> dict[str, str]:
    """Return by processor the first one with whose weights it runs, if it has none itself."""
    found, first = find_backends(processors, backends), dict[Hashable, str]()
    shares = {}
    for processor in ordinary(processors):
        key = processor.backend, weights_key(found[processor.backend], processor)
        owner = first.setdefault(key, processor.name)
        if owner != processor.name:
            shares[processor.name] = owner
    return shares
