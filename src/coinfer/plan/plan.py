"""Plan: what was decided before running, and the machine that it was decided for. A value.

The passes of `coinfer.planner` make plans, `plan_folder` keeps them, the drivers perform them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from coinfer.machine.batching import Batching
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.plan.choice import Choice
from coinfer.plan.fused_plan import FusedPlan
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.variant import Kind, Variant, variant_name
from coinfer.plan.work import Work

__all__ = ["AUTO", "Plan", "PolicyChoice"]

AUTO = "auto"
"""In place of a policy's name, where planning is to choose one (`planner.passes.policy`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice:
    """A policy by name, with its options."""

    name: str = "earliest_finish"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What messages call it: the name, with the options if there are any."""
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name

    @classmethod
    def of(cls, policy: object, options: Mapping[str, Any] = MappingProxyType({})) -> Self:
        """Return the choice of a policy by name; of an object it cannot say how to make it again.

        >>> PolicyChoice.of("edf").text, PolicyChoice.of(object()).text
        ('edf', 'an object of object')
        """
        if isinstance(policy, str):
            return cls(name=policy, options=dict(options))
        return cls(name=f"an object of {type(policy).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What runs where, under which policy.

    Attributes:
        name: What reports call it.
        machine: What it was made for. Its profile holds all that was measured and may run, also
            what is not loaded: bounds rest on it.
        models: By name.
        fused: Variants that answer several of the models in one run, by name.
        policy: Which policy decides.
        policy_why: Why it does, and what else was tried, if it was chosen by planning.
        memory: Bytes for what is loaded, by name of the memory (`coinfer.machine.memories`). Those
            not named are as large as need be.
        pinned: Models that are loaded at the start and never evicted, where memory has a budget.
        warnings: What a reader of results must know.
        rates: Requests per second by model that the choice of processors rests on; empty where none
            were known, or where there was nothing to choose.

    >>> from coinfer.machine.profile import Profile
    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> machine = Machine(processors=(cpu,), profile=Profile.from_seconds({"m": {"cpu": 0.01}}))
    >>> Plan.of(machine).models["m"].original.spans
    {'cpu': (Span(first=0, last=0),)}
    """

    name: str = "plan"
    machine: Machine
    models: Mapping[str, ModelPlan]
    fused: Mapping[str, FusedPlan] = field(default_factory=dict)
    policy: PolicyChoice = PolicyChoice()
    policy_why: tuple[Choice, ...] = ()
    memory: Mapping[str, int] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        machine: Machine,
        *,
        models: Iterable[str] | None = None,
        policy: PolicyChoice = PolicyChoice(),
        warnings: tuple[str, ...] = (),
    ) -> Self:
        """Plan to load all that a machine has times for.

        Args:
            machine: What it is for.
            models: Names of the models; None: all that the machine runs.
            policy: Which policy decides.
            warnings: What a reader of results must know.

        Raises:
            UnknownNameError: a model that no processor of the machine runs.
        """
        names = machine.models if models is None else tuple(models)
        machine.check_runs(names)
        profile, planned = machine.profile, {}
        for name in names:
            variant = Variant(n_units=profile.units(name), spans=profile.spans_by_processor(name))
            planned[name] = ModelPlan(variants={Kind.ORIGINAL: variant})
        return cls(
            name=machine.name, machine=machine, models=planned, policy=policy, warnings=warnings
        )

    @property
    def processors(self) -> tuple[Processor, ...]:
        """The machine's processors, in the order of preference."""
        return self.machine.processors

    @property
    def measured(self) -> Profile:
        """All that was measured and may run."""
        return self.machine.profile

    @property
    def profile(self) -> Profile:
        """The times of what is loaded."""
        loaded = {
            (variant, processor, span)
            for name in self.models
            for variant, each in self.serving(name).items()
            for processor, spans in each.spans.items()
            for span in spans
        }
        whole = Span()
        loaded |= {(n, at, whole) for n, each in self.fused.items() for at in each.processors}
        return self.measured.where(lambda key: (key.model, key.processor, key.span) in loaded)

    def serving(self, model: str) -> dict[str, Variant]:
        """Return the variants of a model that may answer requests, by their names."""
        variants = self.models[model].variants.items()
        return {variant_name(model, kind): each for kind, each in variants if each.may_serve}

    @property
    def cheaper(self) -> dict[str, tuple[str, ...]]:
        """By model that has some, the names of the variants beside the original that may serve."""
        named = {
            model: tuple(n for n in self.serving(model) if n != model) for model in self.models
        }
        return {model: names for model, names in named.items() if names}

    @property
    def variant_errors(self) -> dict[str, float]:
        """Stated output error by name, of all variants of models that have several."""
        return {
            name: each.error
            for model in self.cheaper
            for name, each in {model: self.models[model].original, **self.serving(model)}.items()
        }

    @property
    def works(self) -> dict[str, Work]:
        """How work grows with open dimensions, by model that has some."""
        return {n: model.work for n, model in self.models.items() if model.work is not None}

    @property
    def together(self) -> dict[str, int]:
        """Samples that one execution may serve for several requests, by variant that batches."""
        return {name: batching.most for name, batching in self.batchings.items()}

    @property
    def batchings(self) -> dict[str, Batching]:
        """How far requests may share executions, by variant that batches."""
        own = {n: m.batching for n, m in self.models.items() if m.batching is not None}
        others = {
            name: each.batching
            for model in self.models
            for name, each in self.serving(model).items()
            if each.batching is not None
        }
        return {**own, **others}

    @property
    def fused_models(self) -> dict[str, tuple[str, ...]]:
        """The models of which one run of a fused variant serves a request each, by variant."""
        return {name: each.models for name, each in self.fused.items()}

    @property
    def output_errors(self) -> dict[str, dict[str, float]]:
        """Measured output error of what runs below fp32, `{processor: {model: error}}`."""
        errors: dict[str, dict[str, float]] = {}
        low = {processor.name for processor in self.processors if processor.precision != "fp32"}
        for key, entry in self.profile:
            if entry.error is not None and key.processor in low:
                row = errors.setdefault(key.processor, {})
                row[key.model] = max(entry.error, row.get(key.model, 0.0))  # the worst span
        return errors

    def with_profile(self, profile: Profile) -> Self:
        """Copy it with other times of the same machine."""
        machine = dataclasses.replace(self.machine, profile=profile)
        return dataclasses.replace(self, machine=machine)

    def with_variant(self, model: str, variant: Variant, *choices: Choice) -> Self:
        """Copy it with another variant of a model, and why that was chosen."""
        known = self.models[model]
        changed = dataclasses.replace(
            known,
            variants={**known.variants, variant.kind: variant},
            choices=(*known.choices, *choices),
        )
        return dataclasses.replace(self, models={**self.models, model: changed})

    def with_batching(self, model: str, batching: Batching | None, *choices: Choice) -> Self:
        """Copy it with another batching of a model, and why that was chosen."""
        known = self.models[model]
        changed = dataclasses.replace(known, batching=batching, choices=(*known.choices, *choices))
        return dataclasses.replace(self, models={**self.models, model: changed})

    def with_padding(self, model: str, padding: Mapping[str, Mapping[str, float]]) -> Self:
        """Copy it with dimensions along which requests of a model are padded to share runs."""
        known = self.models[model]
        work = known.work and dataclasses.replace(known.work, padded=tuple(padding))
        changed = dataclasses.replace(known, padding=padding, work=work)
        return dataclasses.replace(self, models={**self.models, model: changed})

    def with_policy(self, policy: PolicyChoice, *why: Choice) -> Self:
        """Copy it with another policy, and why that was chosen."""
        return dataclasses.replace(self, policy=policy, policy_why=why)

    def without_express(self, *, but: Collection[str] = ()) -> Self:
        """Copy it without express processors, but for these: no request preempts another there."""
        kept = tuple(p for p in self.processors if not p.overlays or p.name in but)
        machine = dataclasses.replace(self.machine, processors=kept)
        return dataclasses.replace(self, machine=machine)

    def without_batching(self) -> Self:
        """Copy it so that no requests of one model share an execution."""
        changed = self
        for name, model in self.models.items():
            for variant in model.variants.values():
                if variant.batching is not None:
                    alone = dataclasses.replace(variant, batching=None)
                    changed = changed.with_variant(name, alone)
            changed = changed.with_batching(name, None)
        return changed

    def with_fused(self, name: str, fused: FusedPlan) -> Self:
        """Copy it with a variant that answers several models."""
        return dataclasses.replace(self, fused={**self.fused, name: fused})

    def without_fused(self, name: str) -> Self:
        """Copy it without a fused variant."""
        fused = {each: planned for each, planned in self.fused.items() if each != name}
        kept = self.with_profile(self.measured.where(lambda key: key.model != name))
        return dataclasses.replace(kept, fused=fused)

    def loading(self, profile: Profile, models: Iterable[str] | None = None) -> Self:
        """Copy it so that of these models, or all, just the entries of a profile are loaded."""
        changed = self
        for name in self.models if models is None else models:
            for kind, variant in self.models[name].variants.items():
                if kind is not Kind.ORIGINAL and not variant.may_serve:
                    continue
                spans = profile.spans_by_processor(variant_name(name, kind))
                if spans != variant.spans:
                    variant = dataclasses.replace(variant, spans=spans)
                    changed = changed.with_variant(name, variant)
        return changed

    def joined(self, other: Plan) -> Self:
        """Copy it with the models of another plan for the same machine."""
        both = self.with_profile(self.measured.merged(other.measured)).warned(*other.warnings)
        return dataclasses.replace(
            both,
            models={**self.models, **other.models},
            fused={**self.fused, **other.fused},
        )

    def without(self, model: str) -> Self:
        """Copy it without a model, and without the fused variants that it is in."""
        left = {name: each for name, each in self.models.items() if name != model}
        names = [variant_name(name, kind) for name, each in left.items() for kind in each.variants]
        fused = {name: each for name, each in self.fused.items() if model not in each.models}
        kept = self.with_profile(self.measured.restricted([*names, *fused]))
        pinned = tuple(name for name in self.pinned if name != model)
        rates = {name: rate for name, rate in self.rates.items() if name != model}
        return dataclasses.replace(kept, models=left, fused=fused, pinned=pinned, rates=rates)

    def warned(self, *warnings: str) -> Self:
        """Copy it with more warnings; each is kept once."""
        return dataclasses.replace(self, warnings=tuple(dict.fromkeys((*self.warnings, *warnings))))
