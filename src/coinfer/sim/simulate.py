"""Simulate a scenario and record it: warm-up, measuring window, drain. As `runtime.play`."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from coinfer.core.events import MemoryGiven
from coinfer.core.policy import Policy
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.metrics.observers import Observer, Observers
from coinfer.metrics.recorder import Recorder
from coinfer.metrics.records import Window
from coinfer.metrics.xrbench import ScoredCounts
from coinfer.plan.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim.services import Services
from coinfer.sim.simulation import Simulation, Tick
from coinfer.workload.load import Load
from coinfer.workload.request_shapes import request_shapes, request_sizes
from coinfer.workload.scenario import Scenario

__all__ = ["DRAIN_S", "Simulated", "simulate"]

DRAIN_S = 60.0
"""Virtual seconds after the last due in which what was begun may be finished, as in a real run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What a simulation left behind.

    Attributes:
        run_counts: Counts of the measuring window.
        recorder: The records, if they were kept.
    """

    run_counts: RunCounts
    recorder: Recorder


def simulate(
    scenario: Scenario,
    plan: Plan,
    policy: Policy | None = None,
    *,
    deterministic: bool = False,
    off_by: float = 1.0,
    keep_records: bool = False,
    observer: Observer | None = None,
    on_tick: Tick | None = None,
    memory: MemoryGiven | None = None,
    services: Services | None = None,
    lost: Collection[str] = (),
) -> Simulated:
    """Simulate a scenario to its end; what was begun is finished.

    Args:
        scenario: Arrivals, promises, duration, seed.
        plan: What is loaded where, and how long it takes there.
        policy: A fresh policy; None: the plan's.
        deterministic: Executions take their mean times.
        off_by: Each execution takes so many times as long, or as short, as it would: one or the
            other at random, under every policy alike.
        keep_records: Keep a record of every request and execution, e.g. for a trace. Without,
            memory grows with what is in flight only.
        observer: Sees every step of the core, from the loading of the models on.
        on_tick: Called now and then with the virtual seconds since the start.
        memory: As for `Simulation`.
        services: How long executions take; None: drawn from the times of the plan's machine, and
            only then `deterministic` and `off_by` count.
        lost: Processors that are out of service from the start to the end.

    Raises:
        UnknownNameError: a model that the machine does not run.
        PolicyError: the policy raised, or decided something that must not be.
    """
    recorder = Recorder(
        window=Window(start_s=scenario.begin_s, end_s=scenario.end_s),
        keep_records=keep_records,
        counts=ModelCounts if scenario.score is None else ScoredCounts,
        variants=plan.variant_errors,
    )
    load = Load(scenario)
    simulation = Simulation(
        plan,
        policy or make_policy(plan.policy.name, **plan.policy.options),
        load,
        scenario.models,
        recorder if observer is None else Observers(recorder, observer),
        limits=scenario.limits,
        services=services
        or Services(plan.machine, seed=scenario.seed, deterministic=deterministic, off_by=off_by),
        shapes=request_shapes(scenario, plan.works),
        sizes=request_sizes(scenario, plan.works),
        memory=memory,
        lost=lost,
    )
    recorder.follow_memory(lambda: simulation.core.memories, simulation.now)
    simulation.run(scenario.end_s + DRAIN_S, on_tick)
    if simulation.core.fault is not None:
        raise simulation.core.fault
    now = simulation.now
    if scenario.end_s == math.inf:
        recorder.end_window(now)
    else:
        now = max(now, scenario.end_s)
    run_counts = recorder.run_counts(now, withheld=load.withheld)
    return Simulated(run_counts=run_counts, recorder=recorder)
