"""Planned scenario: a scenario beside a plan that was saved before. Measures nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coinfer.errors import ConfigurationError
from coinfer.graph.cut_model import CutModel
from coinfer.machine.contention import Contention
from coinfer.machine.processor import ordinary
from coinfer.plan.plan import AUTO, Plan, PolicyChoice
from coinfer.planner.assignment import asked_for, require_assigned
from coinfer.planner.opened_plan import open_plan, read_plan
from coinfer.planner.passes.policy import with_best_policy
from coinfer.planner.plan_fit import require_same_models, unlike_sections
from coinfer.planner.prepare import NO_DIMS, feeds_of
from coinfer.planner.scenario_sizes import with_sizes
from coinfer.policies import make_policy
from coinfer.runtime.prepared import Prepared
from coinfer.workload.scenario import Scenario

__all__ = ["planned_scenario"]


def planned_scenario(
    scenario: Scenario,
    folder: Path,
    *,
    machine: Path | None = None,
    policy: str | None = None,
    policy_options: Mapping[str, Any] | None = None,
    is_simulated: bool = False,
    dims: Mapping[str, int] = NO_DIMS,
    data_root: Path | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Prepared:
    """Put a scenario and a saved plan together.

    Args:
        scenario: What is to be run.
        folder: Where the plan is.
        machine: Must not be given: the plan says what it was made for.
        policy: Asked for beside the scenario, which has it already; goes before the plan's.
        policy_options: Asked for too; without a policy they are options of the plan's.
        is_simulated: Only read the plan: no model is opened, and any machine will do.
        dims: Sizes of open dimensions by name, in place of those that the scenario states.
        data_root: A folder in which links of models' files may end, as for `load_model`.
        tell: Called with how many requests were simulated, if the policy is to be chosen.

    Raises:
        ConfigurationError: the plan was made for another machine or of other files, or a model of
            the scenario is not in it, or is another one there or in another batch.
    """
    if machine is not None:
        raise ConfigurationError(
            "--plan and --machine are both given, and a plan says what machine it is for; give one"
        )
    asked = PolicyChoice(name=policy or "", options=policy_options or {})
    if is_simulated:
        plan = _noted(_fitted(read_plan(folder), scenario, folder, asked))
        return _chosen(Prepared(scenario=_sized(scenario, plan, dims), plan=plan), tell)
    opened = open_plan(folder, data_root=data_root)
    plan = _fitted(opened.plan, scenario, folder, asked)
    names = {name: None for model in plan.models for name in (model, *plan.serving(model))}
    models = {name: opened.models[name] for name in (*names, *plan.fused)}
    whole = {n: m.model if isinstance(m, CutModel) else m for n, m in models.items()}
    scenario = _sized(scenario, plan, dims)
    feeds = feeds_of(scenario, whole)
    ready = Prepared(scenario=scenario, plan=plan, models=models, feeds=feeds)
    return _chosen(ready, tell)


def _chosen(ready: Prepared, tell: Callable[[int], None]) -> Prepared:
    """Choose the policy, if that was asked for."""
    if ready.plan.policy.name != AUTO:
        return ready
    return ready.planned(with_best_policy(ready.plan, ready.scenario, tell))


def _sized(scenario: Scenario, plan: Plan, dims: Mapping[str, int]) -> Scenario:
    """Settle the sizes that the scenario does not state: those that the plan was measured at."""
    sizes = {name: model.sizes[0] for name, model in plan.models.items() if model.sizes}
    return with_sizes(scenario, dims, {n: work.axes for n, work in plan.works.items()}, sizes)


def _fitted(plan: Plan, scenario: Scenario, folder: Path, asked: PolicyChoice) -> Plan:
    """Leave models out that the scenario does not have, and settle the policy."""
    require_same_models(plan, scenario, folder)
    if sections := unlike_sections(plan, scenario):
        plan = plan.warned(
            f"the plan {folder} was not made by the scenario's {' and '.join(sections)}, and the "
            f"plan decides; to follow the scenario, make it anew with `coinfer plan SCENARIO -o "
            f"{folder}`"
        )
    plan = _with_policy(plan, scenario, asked)
    for name in plan.models.keys() - scenario.models.keys():
        plan = plan.without(name)
    plan = dataclasses.replace(plan, models={name: plan.models[name] for name in scenario.models})
    if plan.policy.name == AUTO:
        return plan
    made = make_policy(plan.policy.name, **plan.policy.options)
    asked_for(made, scenario.models, ordinary(plan.processors))
    require_assigned(made, plan.profile, ())
    return plan


def _with_policy(plan: Plan, scenario: Scenario, asked: PolicyChoice) -> Plan:
    """Take the policy that was asked for, else that of the plan with what was asked for."""
    own = PolicyChoice(name=scenario.policy.name, options=scenario.policy.options)
    if asked.name:
        return plan.with_policy(own)
    if asked.options:
        used = {**plan.policy.options, **asked.options}
        plan = plan.with_policy(dataclasses.replace(plan.policy, options=used))
    if plan.policy == own or own.name == AUTO:
        return plan
    return plan.warned(
        f"the plan's policy {plan.policy.text} is used, not the scenario's {own.text}; name one "
        "with --policy"
    )


def _noted(plan: Plan) -> Plan:
    """Say what a simulation does not know of the plan's machine."""
    machine = plan.machine
    if not machine.identity or machine.cold or machine.contention != Contention():
        return plan
    return plan.warned(
        "the plan has no contention and no cold starts, which `coinfer plan` measures: the "
        "simulation takes them for nothing"
    )
