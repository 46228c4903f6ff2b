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
            model = self.models.get(name)
            whole = model.model if isinstance(model, CutModel) else model
            opened_fixed = whole is not None and whole.batch_symbol is None
            fixed = opened_fixed or self.plan.models[name].fixed_batch
            specs[name] = spec.model_copy(update={"batch": 1}) if fixed else spec
        policy = PolicySpec(name=self.plan.policy.name, options=self.plan.policy.options)
        return self.scenario.model_copy(update={"models": specs, "policy": policy})

    def policy(self) -> Policy:
        """Make a fresh policy: the one of the plan."""
        return make_policy(self.plan.policy.name, **self.plan.policy.options)

    def planned(self, plan: Plan) -> Prepared:
        """Copy it with another plan of the same models."""
        return dataclasses.replace(self, plan=plan)
