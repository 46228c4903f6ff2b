"""Scenarios for tests: short YAML with defaults for all that a test does not care about."""

from __future__ import annotations

from pathlib import Path

from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario


def scenario(
    arrivals: dict[str, str], *, end_s: float = 10.0, seed: int = 0, base: Path = Path()
) -> Scenario:
    """One zoo model per arrival process, no warm-up."""
    models = "\n".join(f"  {name}: zoo:lenet" for name in arrivals)
    processes = "\n".join(f"  {name}: {{{process}}}" for name, process in arrivals.items())
    return parse_scenario(
        f"models:\n{models}\narrivals:\n{processes}\n"
        f"duration: {end_s}\nwarmup: 0\nseed: {seed}\nadmission_limit: 1000000\n",
        base=base,
    )


def mix(weights: dict[str, float], in_flight: int, *, end_s: float = 10.0) -> Scenario:
    """One closed loop over the models, no warm-up."""
    models = "\n".join(f"  {name}: zoo:lenet" for name in weights)
    listed = ", ".join(f"{name}: {weight}" for name, weight in weights.items())
    return parse_scenario(
        f"models:\n{models}\n"
        f"arrivals: {{mix: {{weights: {{{listed}}}, in_flight: {in_flight}}}}}\n"
        f"duration: {end_s}\nwarmup: 0\n"
    )
