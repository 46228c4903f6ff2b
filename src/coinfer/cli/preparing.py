"""Prepare what a verb needs: from a saved plan, or by measuring with a bar that shows how far."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coinfer.cli.options import Changes, policy_options, sizes
from coinfer.cli.progress_bars import profiler_bar
from coinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from coinfer.runtime.prepared import Prepared
    from coinfer.workload.scenario import Scenario

__all__ = ["prepared"]


def prepared(
    scenario: Scenario,
    plan: Path | None,
    *,
    machine: Path | None = None,
    changes: Changes = Changes(),
    is_simulated: bool = False,
    needs_times: bool = False,
    calibrate_s: float | None = None,
) -> Prepared:
    """Prepare a scenario.

    Args:
        scenario: What the verb is about.
        plan: Folder of a saved plan, from which nothing is measured; None: make one.
        machine: A machine file instead of the scenario's.
        changes: What the command line changed; its policy goes before that of a saved plan.
        is_simulated: Whether it is simulated: then no session is opened.
        needs_times: Whether only the times are looked at.
        calibrate_s: Correct the times by a real run of so many seconds.

    Raises:
        ConfigurationError: options contradict each other.
    """
    from coinfer.experiments.calibration import calibrate, check_seconds
    from coinfer.plan.plan import AUTO, PolicyChoice
    from coinfer.planner.passes.policy import telling
    from coinfer.planner.planned_scenario import planned_scenario
    from coinfer.planner.prepare import prepare
    from coinfer.profiling import Profiler, default_cache

    if calibrate_s is not None:
        check_seconds(calibrate_s)
    if needs_times and scenario.policy.name == AUTO:
        scenario = scenario.with_options(policy=PolicyChoice().name)  # times do not depend on it
    with profiler_bar() as progress:
        profiler = Profiler(cache=default_cache(), progress=progress)
        if plan is not None:
            ready = planned_scenario(
                scenario,
                plan,
                machine=machine,
                policy=changes.policy,
                policy_options=policy_options(changes.policy_option),
                is_simulated=(is_simulated or needs_times) and calibrate_s is None,
                dims=sizes(changes.dim),
                data_root=changes.allow_data_in,
                tell=telling(profiler),
            )
        else:
            ready = prepare(
                scenario,
                profiler,
                machine_file=machine,
                surroundings=is_simulated,
                dims=sizes(changes.dim),
                data_root=changes.allow_data_in,
            )
        if calibrate_s is None:
            return ready
        if not ready.models:
            raise ConfigurationError(
                f"{ready.plan.machine.name} is described by a file: only this machine can be "
                "calibrated; leave the calibration or the machine file out"
            )
        progress(0, 1, f"a run of {calibrate_s:g} s to calibrate")
        return calibrate(ready, seconds=calibrate_s).prepared(ready)
