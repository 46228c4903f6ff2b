"""Prepared: a scenario with its plan and what a real run needs beside that. Decides nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coinfer.backends.base import Backend, Tensors
from coinfer.core.policy import Policy
from coinfer.graph.cut_model import CutModel
from coinfer.model import Model
from coinfer.plan.plan import Plan
from coinfer.policies import make_policy
from coinfer.policies.priority_warning import priority_warning
from coinfer.workload.scenario import PolicySpec, Scenario

__all__ = ["Prepared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that a run needs beside the engine.

    Attributes:
        scenario: What is to be run.
        plan: What is loaded where.
        models: By name; those that are cut with their spans. Empty where a file describes the
            machine: that can only be simulated.
        feeds: Prepared inputs by model.
        backends: Backends by name, for those that are not to be looked up.
    """

    scenario: Scenario
    plan: Plan
    models: Mapping[str, Model | CutModel] = field(default_factory=dict)
    feeds: Mapping[str, Sequence[Tensors]] = field(default_factory=dict)
    backends: Mapping[str, Backend] = field(default_factory=dict)

    @property
    def as_run(self) -> Scenario:
        """The scenario under the plan's policy, with a batch of 1 for models whose batch is fixed.

        A request to such a model is one run, however many samples that has.
        """
        specs = {}
        for name, spec in self.scenario.models.items():
            fixed = self.plan.models[name].fixed_batch
            specs[name] = spec.with_single_samples() if fixed else spec
        policy = PolicySpec(name=self.plan.policy.name, options=self.plan.policy.options)
        return self.scenario.model_copy(update={"models": specs, "policy": policy})

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of results must know, of the plan and of what the scenario asks of it."""
        preempts = any(processor.overlays for processor in self.plan.processors)
        priorities = [] if preempts else [s.priority for s in self.scenario.models.values()]
        ignored = priority_warning(self.plan.policy.name, self.policy(), priorities)
        return self.plan.warnings if ignored is None else (*self.plan.warnings, ignored)

    def policy(self) -> Policy:
        """Make a fresh policy: the one of the plan."""
        return make_policy(self.plan.policy.name, **self.plan.policy.options)

    def planned(self, plan: Plan) -> Prepared:
        """Copy it with another plan of the same models."""
        return dataclasses.replace(self, plan=plan)
