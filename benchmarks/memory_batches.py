"""Batches within a memory budget: applications of several networks, each asked for several times.

The question of the Batch Inference Scheduler (docs/batching.md): all requests are there at the
start, and what counts is when the last is answered. Simulated on times that are measured here.
`coinfer` is the engine with the default batching, evicting by cost. Beside it:
- `batch 1` and `fixed batch, LRU`: the same core under first come first served, evicting what was
  used longest ago, without batches and with the best of the largest batches 2, 4, 8 and 16. Who
  rides is decided by the core's rule, which is to their good.
- `sequential`: one network after the other on all cores, in the largest batches, with all memory.
  What the core has loaded at the start is there for it, too.
- `equal split`: all networks at once, each with an equal share of cores and memory and its best
  batch. One that does not fit its share is loaded anew for every run. A formula on the times, not a
  simulation: without a loss by what runs beside.
`ORDERS` is for real runs of all but the last. Below all is what no schedule could fall below: what
the runs take at the best batches, or what must be loaded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import memory_budget
from coinfer.bound import throughput_bound
from coinfer.core.commands import Command, Load
from coinfer.core.events import Arrived, ArrivedTogether, Event, MemoryGiven
from coinfer.core.place import Loadable
from coinfer.errors import ConfigurationError
from coinfer.experiments.least_loading import least_loading
from coinfer.machine.batching import Batching
from coinfer.machine.memories import HOST
from coinfer.machine.profile import Profile
from coinfer.opening import loadables
from coinfer.plan.choice import Choice
from coinfer.plan.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario

__all__ = [
    "APPLICATIONS",
    "FIXED",
    "GIVEN",
    "ORDERS",
    "OURS",
    "Response",
    "application",
    "batched",
    "given",
    "responses",
]

APPLICATIONS = {
    "large": ("alexnet", "vgg16", "resnet50"),
    "six": (
        "resnet50",
        "mobilenet_v2",
        "inception_v3",
        "squeezenet1_1",
        "densenet201",
        "resnet101",
    ),
}
"""The networks of the budget's `large`, and the six that its `zipf` asks for most."""

GIVEN = (*APPLICATIONS["six"][:5], "alexnet")
"""The application on given times: networks of `memory_budget.GIVEN`."""

MORE = {"alexnet": 0.3}
"""On given times, what each further sample of a run adds, in runs of a sample alone; of others:"""

MORE_OF_OTHERS = 0.9

FIXED = (2, 4, 8, 16)
OURS = "coinfer"
SEQUENTIAL = "sequential, largest batch"

LRU = {"eviction": "lru", "most_models": 0, "policy": "fcfs"}
ORDERS = {
    OURS: {"eviction": "cost", "most_models": 0, "policy": "earliest_finish"},
    "batch 1": {**LRU, "most": 1},
    **{f"fixed batch {most}, LRU": {**LRU, "most": most} for most in FIXED},
    SEQUENTIAL: {**LRU, "most": FIXED[-1], "most_models": 1, "one_by_one": True},
}
"""What `memory_child.py` is told of each contestant that can really run."""

_CORES = 2


class Response(NamedTuple):
    """When one contestant has answered all; without seconds it cannot run there, and why."""

    contestant: str
    seconds: float = math.nan
    loads: int | None = None
    why: str = ""


def application(names: Sequence[str], requests: int) -> Scenario:
    """Return the scenario of an application: so many requests of each network, all at the start."""
    models = ", ".join(f'{each}: {{source: "zoo:{each}"}}' for each in names)
    counts = ", ".join(f"{each}: {requests}" for each in names)
    processors = ", ".join(
        f"{{name: cpu{core}, backend: onnxruntime, cores: [{core}]}}" for core in range(_CORES)
    )
    return parse_scenario(
        f"models: {{{models}}}\narrivals: {{offline: {{counts: {{{counts}}}}}}}\n"
        f"processors: [{processors}]\n"
    )


def given(slower: tuple[float, float]) -> Plan:
    """Return a plan of an application on given times, the same on every machine."""
    plan, entries = memory_budget.given(slower), {}
    for key, entry in plan.measured.restricted(GIVEN):
        more = MORE.get(key.model, MORE_OF_OTHERS)
        for batch in (1, *FIXED):
            seconds = (entry.mean_s * (1 + more * (batch - 1)),)
            entries[key._replace(batch=batch)] = dataclasses.replace(entry, seconds=seconds)
    machine = dataclasses.replace(plan.machine, profile=Profile(entries))
    return batched(Plan.of(machine), FIXED[-1])


def batched(plan: Plan, most: int) -> Plan:
    """Return a plan whose runs serve so many at most, or as many as were measured; 1: alone."""
    for name in plan.models:
        known = max(key.batch for key, _ in plan.measured.restricted([name]))
        given = Batching(min(most, known)) if min(most, known) > 1 else None
        plan = plan.with_batching(name, given, Choice("batching", f"up to {most}"))
    return plan


def responses(scenario: Scenario, plan: Plan, budget: int) -> Iterator[Response]:
    """Let all contestants answer an application within so many bytes."""
    given = {HOST: budget}
    default = plan.policy.name
    yield _simulated(OURS, scenario, plan, MemoryGiven(given), default)
    lru = MemoryGiven(given, "lru")
    yield _simulated("batch 1", scenario, batched(plan, 1), lru, "fcfs")
    fixed = [
        _simulated(f"fixed batch {most}, LRU", scenario, batched(plan, most), lru, "fcfs")
        for most in FIXED
    ]
    yield min(fixed, key=lambda each: each.seconds if not each.why else math.inf)
    yield _sequential(scenario, batched(plan, FIXED[-1]), budget)
    yield _equal_split(scenario, plan, budget)
    yield Response("bound", _least_s(scenario, batched(plan, FIXED[-1]), budget))


def _simulated(
    name: str, scenario: Scenario, plan: Plan, given: MemoryGiven, policy: str
) -> Response:
    limited = dataclasses.replace(plan, memory=dict(given.budgets))
    try:
        done = simulate(scenario, limited, make_policy(policy), deterministic=True, memory=given)
    except ConfigurationError as error:
        return Response(name, why=str(error).split(";")[0])
    counts = done.run_counts
    served = sum(model.served for model in counts.models.values())
    if served < sum(_counts(scenario).values()):
        return Response(name, why=f"only {served} were served")
    return Response(name, counts.duration_s, counts.loads.loads)


def _sequential(scenario: Scenario, plan: Plan, budget: int) -> Response:
    """One network after the other: its runs, and its load unless that was at the start."""
    seconds, loads_s = 0.0, dict[str, float]()
    for name in plan.models:
        alone = dataclasses.replace(plan, models={name: plan.models[name]})
        counts = {"offline": {"counts": {name: _counts(scenario)[name]}}}
        asked = Scenario.model_validate(
            {
                **scenario.model_dump(include={"processors"}),
                "models": {name: scenario.models[name].model_dump(exclude_unset=True)},
                "arrivals": counts,
            }
        )
        found = _simulated(SEQUENTIAL, asked, alone, MemoryGiven({HOST: budget}, "lru"), "fcfs")
        if found.why:
            return found
        seconds += found.seconds
        loads_s[name] = _load_s(plan, name)
    late = [name for name in plan.models if name not in _at_start(scenario, plan, budget)]
    total_s = seconds + sum(loads_s[name] for name in late)
    return Response(SEQUENTIAL, total_s, len(late))


class _FirstLoads:
    """Notes what is loaded before the first request comes."""

    def __init__(self) -> None:
        self.models = set[str]()
        self._has_begun = False

    def observe(self, event: Event, commands: Sequence[Command], _now: float) -> None:
        self._has_begun |= isinstance(event, Arrived | ArrivedTogether)
        if not self._has_begun:
            self.models |= {each.variant for each in commands if isinstance(each, Load)}


def _at_start(scenario: Scenario, plan: Plan, budget: int) -> set[str]:
    """Return which models the core has loaded when the first request comes."""
    if sum(_sizes(plan).values()) <= budget:
        return set(plan.models)
    limited, seen = dataclasses.replace(plan, memory={HOST: budget}), _FirstLoads()
    given = MemoryGiven({HOST: budget}, "lru")
    simulate(
        scenario, limited, make_policy("fcfs"), deterministic=True, memory=given, observer=seen
    )
    return seen.models


def _equal_split(scenario: Scenario, plan: Plan, budget: int) -> Response:
    """All at once, each with its share: the longest of them, each at its best batch."""
    sizes, name = _sizes(plan), "equal split"
    if max(sizes.values()) > budget:
        return Response(name, why="the largest does not fit")
    longest_s, loads, slower = 0.0, 0, max(1.0, len(sizes) / _CORES)
    for model, size in sizes.items():
        load_s = _load_s(plan, model) if size > budget / len(sizes) else 0.0
        count, processor = _counts(scenario)[model], plan.processors[0].name
        ways = [
            (slower * runs * (entry.mean_s + load_s), runs)
            for key, entry in plan.measured.restricted([model])
            if key.processor == processor
            for runs in (math.ceil(count / key.batch),)
        ]
        model_s, runs = min(ways)
        longest_s, loads = max(longest_s, model_s), loads + (runs if load_s else 0)
    return Response(name, longest_s, loads)


def _least_s(scenario: Scenario, plan: Plan, budget: int) -> float:
    limited = dataclasses.replace(plan, memory={HOST: budget})
    counts = _counts(scenario)
    bound = throughput_bound(
        plan.profile, plan.processors, dict(counts), together=dict(plan.together)
    )
    total = sum(counts.values())
    try:
        load_s = least_loading(limited, scenario) or 0.0
    except ConfigurationError:
        return math.nan
    return total * max(1 / bound.throughput_per_s, load_s)


def _counts(scenario: Scenario) -> Mapping[str, int]:
    assert scenario.offline is not None
    return scenario.offline.counts


def _sizes(plan: Plan) -> dict[str, int]:
    return {name: sum(each.size_bytes for each in _places(plan, name)) for name in plan.models}


def _load_s(plan: Plan, name: str) -> float:
    return sum(each.load_s for each in _places(plan, name))


def _places(plan: Plan, name: str) -> Sequence[Loadable]:
    return loadables(plan, name, plan.profile)
