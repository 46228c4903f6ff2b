"""`coinfer saturate`: how much of a scenario's load the machine can take."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli import options
from coinfer.cli.console import out
from coinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coinfer.experiments.saturation import Kept, Saturation, Trial
    from coinfer.workload.scenario import Scenario

__all__ = ["saturate"]


def saturate(
    scenario: options.ScenarioArgument,
    simulated: Annotated[
        bool, typer.Option("--simulate", help="Simulate the trials instead of running them.")
    ] = False,
    machine: options.MachineOption = None,
    plan: options.PlanOption = None,
    policy: options.PolicyOption = None,
    policy_option: options.PolicyOptionsOption = None,
    qoe: Annotated[
        float | None,
        typer.Option(help="Share of frames to complete in every model.", metavar="SHARE"),
    ] = None,
    hit_rate: Annotated[
        float | None,
        typer.Option(help="Share of deadlines to meet in every model instead.", metavar="SHARE"),
    ] = None,
    duration: options.DurationOption = None,
    seed: options.SeedOption = None,
    precision: Annotated[
        float, typer.Option(help="When to stop: width of the answer, relative.")
    ] = 0.01,
    json: options.JsonOption = None,
) -> None:
    """Find the largest factor on all rates at which a scenario keeps its promises.

    By bisection over trials. Without --qoe or --hit-rate, 95 % of the frames must be completed in
    every model; where nothing is ever dropped, 95 % of the deadlines must be met.
    """
    from coinfer.cli.output import check_writable, write_result
    from coinfer.cli.preparing import prepared
    from coinfer.experiments.certificate import certify
    from coinfer.experiments.saturation import find_saturation, on_machine, on_this_machine

    check_writable(json)
    wanted = options.wanted_scenario(
        scenario, policy=policy, policy_option=policy_option, duration=duration, seed=seed
    )
    kept = _kept(wanted, qoe, hit_rate)
    console = out()
    if machine is not None and not simulated:
        raise ConfigurationError("--machine describes a machine to simulate; add --simulate")
    ready = prepared(
        wanted if simulated else wanted.model_copy(update={"machine": None}),
        plan,
        machine=machine,
        policy=policy,
        policy_option=policy_option,
        is_simulated=simulated,
    )
    name, on = ready.plan.policy.name, ready.plan.machine
    console.print(f"{wanted.name} on {on.name}, policy {name}")
    for warning in ready.plan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    bound = certify(ready.as_run, on).sustainable_factor
    trials = nullcontext(on_machine(ready.plan)) if simulated else on_this_machine(ready, kept)
    with trials as measure:
        found = find_saturation(
            ready.as_run,
            kept,
            measure,
            guess=bound / kept.least if bound else 1.0,
            precision=precision,
            on_trial=lambda trial: console.print(_trial_line(trial, kept), soft_wrap=True),
        )
    for line in _result_lines(found, kept, bound):
        console.print(line, soft_wrap=True)
    facts = {
        "scenario": wanted.name,
        "machine": on.name,
        "mode": "simulate" if simulated else "run",
        "policy": name,
        "seed": wanted.seed,
        "kept": {"quality": kept.quality.value, "least": kept.least},
        "bound_factor": bound,
    }
    write_result(json, {**facts, **found.to_json()})


def _kept(scenario: Scenario, qoe: float | None, hit_rate: float | None) -> Kept:
    from coinfer.experiments.saturation import Kept, Quality

    if qoe is not None and hit_rate is not None:
        raise ConfigurationError("--qoe and --hit-rate are both given; give one")
    if qoe is not None:
        return Kept.of(scenario, quality=Quality.QOE, least=qoe)
    if hit_rate is not None:
        return Kept.of(scenario, quality=Quality.HIT_RATE, least=hit_rate)
    return Kept.of(scenario)


def _trial_line(trial: Trial, kept: Kept) -> str:
    verdict = "kept" if trial.passed else "broken"
    if not trial.shares:
        return f"  x {trial.factor:.5g}: no request at all; make trials longer with --duration"
    share = trial.shares[trial.worst]
    return f"  x {trial.factor:.5g}: {_words(kept)} {share:.2%} in {trial.worst}: {verdict}"


def _result_lines(found: Saturation, kept: Kept, bound: float | None) -> Iterator[str]:
    goal = f"{_words(kept)} >= {kept.least:.4g} in every model"
    if found.factor is None:
        yield f"no factor down to {found.broken_at:.3g} keeps {goal}"
    elif found.broken_at is None:
        yield f"every factor up to {found.factor:.3g} keeps {goal}"
    else:
        decimals = max(0, 2 - math.floor(math.log10(found.broken_at - found.factor)))
        low, high = (f"{f:.{min(decimals, 12)}f}" for f in (found.factor, found.broken_at))
        yield (
            f"rates can be multiplied by {low}: {goal}; at {high} no more "
            f"(precision {found.precision:.2%})"
        )
    if bound is not None:
        yield f"by the bound, no schedule can serve all requests at more than {bound:.4g}"


def _words(kept: Kept) -> str:
    return kept.quality.value.replace("_", " ").replace("qoe", "QoE")
