"""Stage: a scenario and the machine to simulate it on, described in a file or measured here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coinfer.core.policy import Policy
from coinfer.errors import ConfigurationError
from coinfer.machine.machine import Machine
from coinfer.machine.machine_file import load_machine
from coinfer.machine.processor import ordinary
from coinfer.planner.assignment import asked_for
from coinfer.planner.calibration import calibrate, check_seconds
from coinfer.planner.certificate import Certificate, certify, settled
from coinfer.planner.handover import handover_s
from coinfer.planner.preparation import Preparation, prepare
from coinfer.policies import make_policy
from coinfer.profiling import ProfileCache, Progress
from coinfer.profiling.cold import measure_cold
from coinfer.profiling.contention import measure_contention
from coinfer.workload.scenario import Scenario

__all__ = ["Limits", "Stage", "find_limits", "measured_machine", "set_stage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a scenario is offered and what no scheduler can exceed there.

    Attributes:
        scenario: As it is run: a model with a fixed batch runs as one sample.
        machine: The processors, and everything that may run on them.
        certificate: The limits.
        warnings: What a reader of the results must know.
        prepared: What a real run needs; None where a file describes the machine.
    """

    scenario: Scenario
    machine: Machine
    certificate: Certificate
    warnings: tuple[str, ...]
    prepared: Preparation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """All that a simulation needs.

    Attributes:
        limits: The scenario, and what no scheduler can exceed.
        machine: What it is simulated on: without what is not worth loading, with contention and
            overhead where they were measured.
        policy: A fresh policy.
    """

    limits: Limits
    machine: Machine
    policy: Policy

    @property
    def output_errors(self) -> Mapping[str, Mapping[str, float]]:
        """Measured output errors below fp32, `{processor: {model: error}}`."""
        return {} if self.limits.prepared is None else self.limits.prepared.output_errors


def find_limits(
    scenario: Scenario,
    *,
    machine_file: Path | None = None,
    cache: ProfileCache | None = None,
    progress: Progress | None = None,
) -> Limits:
    """Describe or profile the machine, and compute the limits of the scenario on it.

    Args:
        scenario: What is offered. Where a file describes the machine, no model is loaded.
        machine_file: A machine file instead of the scenario's; neither: this machine.
        cache: Where measurements are kept.
        progress: Called before each measurement.

    Raises:
        ScenarioError: the machine file is wrong.
        UnknownNameError: a model that no processor of the machine runs, or an unknown policy.
    """
    path = machine_file or scenario.machine
    if path is None:
        ready = prepare(scenario, cache=cache, progress=progress)
        as_run = _as_run(scenario, ready)
        found = Machine(name="this machine", processors=ready.processors, profile=ready.measured)
        certificate = certify(as_run, found)
        warnings = (*ready.warnings, *certificate.warnings())
        return Limits(
            scenario=as_run,
            machine=found,
            certificate=certificate,
            warnings=warnings,
            prepared=ready,
        )
    described = load_machine(path)
    certificate = certify(scenario, described)
    kept = settled(described, certificate)
    return Limits(
        scenario=scenario,
        machine=kept,
        certificate=certificate,
        warnings=(*_choices(described, kept), *certificate.warnings()),
    )


def set_stage(
    scenario: Scenario,
    *,
    machine_file: Path | None = None,
    cache: ProfileCache | None = None,
    progress: Progress | None = None,
    calibrate_s: float | None = None,
) -> Stage:
    """Find the limits, and what else a simulation needs; other arguments as `find_limits`.

    Args:
        scenario: What is offered.
        machine_file: A machine file instead of the scenario's; neither: this machine.
        cache: Where measurements are kept.
        progress: Called before each measurement.
        calibrate_s: Correct the times of this machine by a real run of so many seconds.

    Raises:
        ConfigurationError: a calibration is asked for of a machine that a file describes, or one
            that takes no time.
    """
    if calibrate_s is not None:
        check_seconds(calibrate_s)
    limits = find_limits(scenario, machine_file=machine_file, cache=cache, progress=progress)
    ready = limits.prepared
    if ready is None:
        if calibrate_s is not None:
            raise ConfigurationError(
                f"{limits.machine.name} is described by a file: only this machine can be "
                "calibrated; leave the calibration or the machine file out"
            )
        options = scenario.policy.options
        policy = make_policy(scenario.policy.name, **options)
        asked_for(policy, scenario.models, ordinary(limits.machine.processors))
        return Stage(limits=limits, machine=limits.machine, policy=policy)
    machine = measured_machine(ready, cache=cache, progress=progress)
    if calibrate_s is None:
        return Stage(limits=limits, machine=machine, policy=ready.policy)
    if progress is not None:
        progress(0, 1, f"a run of {calibrate_s:g} s to calibrate")
    found = calibrate(limits.scenario, ready, machine, seconds=calibrate_s)
    noted = dataclasses.replace(limits, warnings=(*limits.warnings, *found.warnings, str(found)))
    return Stage(limits=noted, machine=found.machine, policy=ready.policy)


def _as_run(scenario: Scenario, ready: Preparation) -> Scenario:
    """A request to a model whose batch is fixed is one run, however many samples that has."""
    models = {
        name: spec
        if ready.models[name].batch_symbol is not None
        else spec.model_copy(update={"batch": 1})
        for name, spec in scenario.models.items()
    }
    return scenario.model_copy(update={"models": models})


def measured_machine(
    ready: Preparation,
    *,
    cache: ProfileCache | None = None,
    progress: Progress | None = None,
) -> Machine:
    """Measure what a simulation must know of this machine beside the profile."""
    what = (ready.models, ready.processors, ready.whole_profile, ready.feeds)
    return Machine(
        name="this machine",
        processors=ready.processors,
        profile=ready.profile,
        forks={name: cut.forks for name, cut in ready.cuts.items()},
        contention=measure_contention(*what, cache=cache, progress=progress),
        cold=measure_cold(*what, cache=cache, progress=progress),
        overhead_s=handover_s(cache),
    )


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
