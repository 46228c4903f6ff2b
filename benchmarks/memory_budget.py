"""Memory budget: the rules of loading and evicting against others, simulated on measured times.

What is measured here: how long each network runs on one core with ONNX Runtime, what it takes, and
how long loading it takes once it is prepared (`warm`). `cold` loads read the weights from a disk of
1.5 GiB/s instead. All contestants are the same core under first come first served: differences are
those of residency alone, of what is evicted and of which load goes first. Beside them stands what
no rule could fall below (`least_ms`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from coinfer.bound import throughput_bound
from coinfer.core.events import MemoryGiven
from coinfer.errors import ConfigurationError
from coinfer.experiments.least_loading import least_loading
from coinfer.machine.machine import Machine
from coinfer.machine.memories import HOST
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.opening import loadables
from coinfer.plan.plan import Plan
from coinfer.planner.prepare import prepare
from coinfer.policies import make_policy
from coinfer.profiling import Profiler, default_cache
from coinfer.sim import simulate
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario

__all__ = [
    "BUDGETS",
    "GIVEN",
    "SLOWER",
    "TINY",
    "Row",
    "compared",
    "given",
    "least_ms",
    "measured",
    "scenarios",
    "spans",
    "tiny",
    "working_set",
    "zipf",
]

BUDGETS = (1.0, 0.75, 0.5, 0.4, 0.25)
"""Shares of the working set."""

DISK_BYTES_PER_S = 1.5 * 2**30

LARGE = {"alexnet": 8, "vgg16": 8, "resnet50": 8}
ZIPF = (
    *("resnet50", "mobilenet_v2", "inception_v3", "squeezenet1_1", "densenet201", "resnet101"),
    *("alexnet", "resnext50", "small_resnet", "distilbert", "resnet152", "tiny_cnn", "lenet"),
    *("vgg16", "bert_base", "tiny_encoder", "vgg19", "regnet_y_32gf", "tiny_mlp", "tiny_branchy"),
)
"""In the order of their popularity."""

GIVEN = {
    "resnet50": (105, 99, 25),
    "mobilenet_v2": (36, 11, 35),
    "inception_v3": (118, 97, 45),
    "squeezenet1_1": (57, 10.5, 31),
    "densenet201": (127, 192, 37),
    "resnet101": (182, 175, 24),
    "alexnet": (252, 45, 600),
    "resnext50": (97, 105, 14),
    "small_resnet": (10, 5, 10),
    "resnet152": (211, 345, 24),
    "tiny_cnn": (5, 0.5, 4),
    "lenet": (5, 0.3, 4),
}
"""MiB, milliseconds of a run and milliseconds of a load, about as they are on two quiet cores: for
comparisons that are the same everywhere."""

SLOWER = {"quiet": (1.0, 0.0), "slow loads": (5.0, 0.1)}
"""Times the seconds of each load, and seconds added."""

_PROCESSORS = ", ".join(
    f"{{name: cpu{core}, backend: onnxruntime, cores: [{core}]}}" for core in range(2)
)

TINY = (
    'models: {tiny_cnn: "zoo:tiny_cnn", tiny_mlp: "zoo:tiny_mlp"}\n'
    f"arrivals: {{mix: {{in_flight: 2}}}}\nduration: 2s\n"
    f"processors: [{_PROCESSORS}]\nmemory: 2GiB\n"
)
"""A scenario of two networks that take no memory to speak of."""


class Row(NamedTuple):
    """One contestant at one budget; without seconds it cannot run there, for the reason given."""

    budget: float
    contestant: str
    seconds: float = 0.0
    loads: int = 0
    loaded_bytes: int = 0
    why: str = ""


def scenarios() -> dict[str, Scenario]:
    """Return what is asked for."""
    models = ", ".join(f'{name}: {{source: "zoo:{name}", batch: off}}' for name in LARGE)
    counts = ", ".join(f"{name}: {count}" for name, count in LARGE.items())
    large = (
        f"models: {{{models}}}\narrivals: {{offline: {{counts: {{{counts}}}}}}}\n"
        f"processors: [{_PROCESSORS}]\npolicy: fcfs\n"
    )
    return {"large": parse_scenario(large), "zipf": zipf(ZIPF)}


def zipf(names: Sequence[str]) -> Scenario:
    """Return a scenario of networks of the zoo, in the order of their popularity."""
    models = ", ".join(f'{name}: {{source: "zoo:{name}", batch: off}}' for name in names)
    weights = ", ".join(f"{name}: {1 / rank:.4f}" for rank, name in enumerate(names, 1))
    return parse_scenario(
        f"models: {{{models}}}\narrivals: {{mix: {{in_flight: 8, weights: {{{weights}}}}}}}\n"
        f"duration: 20s\nwarmup: 2s\nprocessors: [{_PROCESSORS}]\npolicy: fcfs\n"
    )


def spans(memory: str) -> str:
    """Return a scenario of three networks that run span by span where memory is small."""
    return (
        'models: {mobile: "zoo:mobilenet_v2", r50: "zoo:resnet50", r101: "zoo:resnet101"}\n'
        "arrivals: {mix: {in_flight: 8}}\nduration: 10s\nwarmup: 2s\n"
        f"processors: [{_PROCESSORS}]\npartition: {{pieces: 8}}\nmemory: {memory}\n"
    )


def tiny() -> Plan:
    """Return a plan of two tiny networks: what a process takes with them is not of models."""
    return dataclasses.replace(measured(parse_scenario(TINY)), memory={})


def measured(scenario: Scenario) -> Plan:
    """Return the plan of a scenario on this machine, measured or from the cache."""
    return prepare(scenario, Profiler(cache=default_cache())).plan


def given(slower: tuple[float, float]) -> Plan:
    """Return a plan of the networks of `GIVEN` on two cores."""
    cores = tuple(
        Processor(name=f"cpu{core}", backend="onnxruntime", units=frozenset({f"core{core}"}))
        for core in range(2)
    )
    times, more_s = slower
    entries = {
        ProfileKey(name, core.name): Measurement(
            seconds=(ms / 1e3,),
            load_s=times * load_ms / 1e3 + more_s,
            resident_bytes=int(size * 2**20),
        )
        for name, (size, ms, load_ms) in GIVEN.items()
        for core in cores
    }
    shares, identity = {"cpu1": "cpu0"}, {"onnxruntime": "any"}
    machine = Machine(processors=cores, profile=Profile(entries), shares=shares, identity=identity)
    return Plan.of(machine)


def working_set(plan: Plan) -> int:
    """Return the bytes of all models."""
    return sum(
        place.size_bytes for model in plan.models for place in loadables(plan, model, plan.profile)
    )


def cold(plan: Plan) -> Plan:
    """Return a plan whose loads read from the disk."""
    entries = {
        key: dataclasses.replace(
            entry, load_s=entry.load_s + entry.resident_bytes / DISK_BYTES_PER_S
        )
        for key, entry in plan.measured
    }
    return plan.with_profile(Profile(entries))


def least_ms(scenario: Scenario, plan: Plan, budget: int) -> float:
    """Return the milliseconds per request that no schedule could fall below: runs and loads."""
    limited = dataclasses.replace(plan, memory={HOST: budget})
    mix = Load(scenario).offered_mix() or {}
    bound = throughput_bound(plan.profile, plan.processors, mix)
    return 1e3 * max(1 / bound.throughput_per_s, least_loading(limited, scenario) or 0.0)


def compared(scenario: Scenario, plan: Plan, shares: Sequence[float]) -> Iterator[Row]:
    """Let all contestants run at each budget."""
    whole = working_set(plan)
    for share in shares:
        for name, given in contestants(plan, int(share * whole)).items():
            limited = dataclasses.replace(plan, memory=dict(given.budgets))
            try:
                done = simulate(
                    scenario, limited, make_policy("fcfs"), deterministic=True, memory=given
                )
            except ConfigurationError as error:
                yield Row(share, name, why=str(error).split(";")[0])
                continue
            counts = done.run_counts
            served = sum(model.served for model in counts.models.values())
            loads = counts.loads
            each = counts.duration_s / served * 1e3
            yield Row(share, name, each, loads.loads, loads.loaded_bytes)


def contestants(plan: Plan, budget: int) -> Mapping[str, MemoryGiven]:
    """Return what the core is told by each."""
    sizes = sorted(
        (max(p.size_bytes for p in loadables(plan, model, plan.profile)) for model in plan.models),
        reverse=True,
    )
    count = next((n for n in range(len(sizes), 0, -1) if sum(sizes[:n]) <= budget), 1)
    given = {HOST: budget}
    return {
        "coinfer": MemoryGiven(given),
        "LRU by bytes": MemoryGiven(given, "lru"),
        f"LRU, {count} models": MemoryGiven(given, "lru", count),
        "one at a time": MemoryGiven(given, "lru", 1),
    }
