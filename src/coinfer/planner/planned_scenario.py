"""Planned scenario: a scenario beside a plan that was saved before. Measures nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.experiments.calibration import calibrate, check_seconds
from coinfer.graph.cut_model import CutModel
from coinfer.machine.contention import Contention
from coinfer.machine.processor import ordinary
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.planner.assignment import asked_for, require_assigned
from coinfer.planner.opened_plan import open_plan, read_plan
from coinfer.planner.prepare import feeds_of
from coinfer.policies import make_policy
from coinfer.runtime.prepared import Prepared
from coinfer.workload.scenario import Scenario

__all__ = ["planned_scenario"]


def planned_scenario(
    scenario: Scenario,
    folder: Path,
    *,
    machine: Path | None = None,
    own_policy: bool = False,
    is_simulated: bool = False,
    calibrate_s: float | None = None,
) -> Prepared:
    """Put a scenario and a saved plan together.

    Args:
        scenario: What is to be run.
        folder: Where the plan is.
        machine: Must not be given: the plan says what it was made for.
        own_policy: The scenario's policy was asked for; it goes before that of the plan.
        is_simulated: Only read the plan: no model is opened, and any machine will do.
        calibrate_s: Correct the times by a real run of so many seconds.

    Raises:
        ConfigurationError: the plan was made for another machine or of other files, or a model of
            the scenario is not in it.
    """
    if machine is not None:
        raise ConfigurationError(
            "--plan and --machine are both given, and a plan says what machine it is for; give one"
        )
    if calibrate_s is not None:
        check_seconds(calibrate_s)
    if is_simulated and calibrate_s is None:
        plan = _fitted(read_plan(folder), scenario, folder, own_policy=own_policy)
        return Prepared(scenario=scenario, plan=_noted(plan))
    opened = open_plan(folder)
    plan = _fitted(opened.plan, scenario, folder, own_policy=own_policy)
    models = {name: opened.models[name] for name in plan.models}
    whole = {n: m.model if isinstance(m, CutModel) else m for n, m in models.items()}
    feeds = feeds_of(scenario, whole)
    ready = Prepared(scenario=scenario, plan=plan, models=models, feeds=feeds)
    return ready if calibrate_s is None else calibrate(ready, seconds=calibrate_s).prepared(ready)


def _fitted(plan: Plan, scenario: Scenario, folder: Path, *, own_policy: bool) -> Plan:
    """Leave models out that the scenario does not have, and settle the policy."""
    for name in scenario.models:
        if name not in plan.models:
            hint = f"Make the plan anew with `coinfer plan SCENARIO -o {folder}`."
            raise UnknownNameError.of(f"model in the plan {folder}:", name, plan.models, hint=hint)
    policy = PolicyChoice(name=scenario.policy.name, options=scenario.policy.options)
    if own_policy:
        plan = dataclasses.replace(plan, policy=policy)
    elif policy != plan.policy:
        plan = plan.warned(
            f"the plan's policy {plan.policy.name} is used, not the scenario's {policy.name}; name "
            "one with --policy"
        )
    made = make_policy(plan.policy.name, **plan.policy.options)
    asked_for(made, scenario.models, ordinary(plan.processors))
    require_assigned(made, plan.profile, ())
    return dataclasses.replace(plan, models={name: plan.models[name] for name in scenario.models})


def _noted(plan: Plan) -> Plan:
    """Say what a simulation does not know of the plan's machine."""
    machine = plan.machine
    if not machine.identity or machine.cold or machine.contention != Contention():
        return plan
    return plan.warned(
        "the plan has no contention and no cold starts, which `coinfer plan` measures: the "
        "simulation takes them for nothing"
    )
