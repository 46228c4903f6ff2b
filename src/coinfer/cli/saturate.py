"""`coinfer saturate`: how much of a scenario's load the machine can take."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinfer.cli import options
from coinfer.cli.console import print_lines
from coinfer.cli.output import check_writable, write_result
from coinfer.cli.preparing import prepared
from coinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coinfer.experiments.saturation import Kept, Saturation, Trial
    from coinfer.runtime.prepared import Prepared
    from coinfer.workload.scenario import Scenario

__all__ = ["saturate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """The options that say what must be kept, as a group for `with_groups`."""

    qoe: Annotated[
        float | None,
        typer.Option(help="Share of frames to complete in every model.", metavar="SHARE"),
    ] = None
    hit_rate: Annotated[
        float | None,
        typer.Option(help="Share of deadlines to meet in every model instead.", metavar="SHARE"),
    ] = None

    def of(self, scenario: Scenario) -> Kept:
        """Say what the trials of a scenario must keep.

        Raises:
            ConfigurationError: both are given, or the scenario has nothing of the kind.
        """
        from coinfer.experiments.saturation import Kept, Quality

        if self.qoe is not None and self.hit_rate is not None:
            raise ConfigurationError("--qoe and --hit-rate are both given; give one")
        if self.qoe is not None:
            return Kept.of(scenario, quality=Quality.QOE, least=self.qoe)
        if self.hit_rate is not None:
            return Kept.of(scenario, quality=Quality.HIT_RATE, least=self.hit_rate)
        return Kept.of(scenario)


@options.with_groups
def saturate(
    scenario: options.ScenarioArgument,
    *,
    simulated: Annotated[
        bool, typer.Option("--simulate", help="Simulate the trials instead of running them.")
    ] = False,
    machine: options.MachineOption = None,
    plan: options.PlanOption = None,
    policy: options.PolicyOption = None,
    policy_option: options.PolicyOptionsOption = None,
    promise: Promise,
    duration: options.DurationOption = None,
    seed: options.SeedOption = None,
    dim: options.DimOption = None,
    allow_data_in: options.AllowDataOption = None,
    precision: Annotated[
        float, typer.Option(help="When to stop: width of the answer, relative.")
    ] = 0.01,
    json: options.JsonOption = None,
) -> None:
    """Find the largest factor on all rates at which a scenario keeps its promises.

    By bisection over trials. Without --qoe or --hit-rate, 95 % of the frames must be completed in
    every model; where nothing is ever dropped, 95 % of the deadlines must be met.
    """
    check_writable(json)
    changes = options.Changes(
        policy=policy,
        policy_option=policy_option,
        duration=duration,
        seed=seed,
        dim=dim,
        allow_data_in=allow_data_in,
    )
    wanted = changes.applied_to(scenario)
    kept = promise.of(wanted)
    if machine is not None and not simulated:
        raise ConfigurationError("--machine describes a machine to simulate; add --simulate")
    ready = prepared(
        wanted if simulated else wanted.model_copy(update={"machine": None}),
        plan,
        machine=machine,
        changes=changes,
        is_simulated=simulated,
    )
    facts = _saturated(ready, kept, simulated=simulated, precision=precision)
    write_result(json, facts)


def _saturated(ready: Prepared, kept: Kept, *, simulated: bool, precision: float) -> dict[str, Any]:
    """Find the factor, print how it is found, and return everything as plain values."""
    from coinfer.experiments.certificate import certify
    from coinfer.experiments.saturation import (
        find_saturation,
        on_machine,
        on_this_machine,
        submittable,
    )

    scenario, policy, on = ready.scenario, ready.plan.policy.name, ready.plan.machine
    print_lines(f"{scenario.name} on {on.name}, policy {policy}")
    print_lines(*(f"warning: {warning}" for warning in ready.plan.warnings))
    bound = certify(
        ready.as_run,
        on,
        ready.plan.works,
        ready.plan.together,
        ready.plan.cheaper,
        ready.plan.fused_models,
    ).sustainable_factor
    guess = bound / kept.least if bound else 1.0
    trials = nullcontext(on_machine(ready.plan)) if simulated else on_this_machine(ready, kept)
    with trials as measure:
        found = find_saturation(
            ready.as_run,
            kept,
            measure,
            guess=guess if simulated else submittable(ready.as_run, guess),
            precision=precision,
            on_trial=lambda trial: print_lines(_trial_line(trial, kept)),
        )
    print_lines(*_result_lines(found, kept, bound))
    return {
        "scenario": scenario.name,
        "machine": on.name,
        "mode": "simulate" if simulated else "run",
        "policy": policy,
        "seed": scenario.seed,
        "kept": {"quality": kept.quality.value, "least": kept.least},
        "bound_factor": bound,
        **found.to_json(),
    }


def _trial_line(trial: Trial, kept: Kept) -> str:
    verdict = "kept" if trial.passed else "broken"
    if not trial.shares:
        return f"  x {trial.factor:.5g}: no request at all; make trials longer with --duration"
    share = trial.shares[trial.worst]
    each = ", ".join(f"{size:.1f} of {model}" for model, size in trial.together.items())
    shared = f", shared runs serve {each}" if each else ""
    return f"  x {trial.factor:.5g}: {_words(kept)} {share:.2%} in {trial.worst}{shared}: {verdict}"


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
