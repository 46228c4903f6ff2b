"""Machines, scenarios and observers for tests of the simulator, with defaults for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coinfer.core.commands import Command, Reply
from coinfer.core.events import Arrived, Event
from coinfer.core.policy import Policy
from coinfer.core.request import Outcome
from coinfer.machine.contention import Contention
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import Simulation
from coinfer.sim.services import Services
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario


def machine(table: Mapping[str, Mapping[str, float]], **fields: Any) -> Machine:
    """Processors of one unit each with constant times, `{model: {processor: seconds}}`."""
    names = dict.fromkeys(name for row in table.values() for name in row)
    return Machine(
        processors=tuple(
            Processor(name=name, backend="imagined", units=frozenset({name})) for name in names
        ),
        profile=Profile.from_seconds(table),
        **fields,
    )


def scenario(arrivals: Mapping[str, Any], **fields: Any) -> Scenario:
    """One model per arrival process, no warm-up, no limit on what waits."""
    models = fields.pop("models", None) or arrivals.get("offline", {}).get("counts") or arrivals
    specs = {name: {"source": "zoo:lenet"} for name in models}
    given = {"admission_limit": 10**6, "duration": 10.0, "warmup": 0.0, **fields}
    if "offline" in arrivals:
        del given["duration"], given["warmup"]
    return Scenario.model_validate({"models": specs, "arrivals": dict(arrivals), **given})


@dataclass
class Log:
    """Keeps every step; `in_system_s` is the time integral of the number of requests in the system.

    Attributes:
        finished: By request id, when and how it was answered.
    """

    steps: list[tuple[float, Event, tuple[Command, ...]]] = field(default_factory=list)
    arrived: dict[int, float] = field(default_factory=dict)
    finished: dict[int, tuple[float, Outcome]] = field(default_factory=dict)
    in_system_s: float = 0.0
    _n: int = 0
    _since: float = 0.0

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        self.in_system_s += self._n * (now - self._since)
        self._since = now
        if isinstance(event, Arrived):
            self.arrived[event.request.id] = event.request.arrival_s
            self._n += 1
        for command in commands:
            if isinstance(command, Reply):
                self.finished[command.request.id] = (now, command.outcome)
                self._n -= 1
        self.steps.append((now, event, tuple(commands)))

    def latencies(self) -> list[float]:
        """Seconds from due to answered, by request id."""
        return [self.finished[i][0] - due for i, due in sorted(self.arrived.items())]


def play(
    on: Machine | Plan, wanted: Scenario, policy: str | Policy = "fcfs", *, seed: int = 0
) -> Log:
    """Simulate to the end and return all that happened, invariants checked at the end."""
    log = Log()
    plan = on if isinstance(on, Plan) else Plan.of(on)
    chosen = make_policy(policy) if isinstance(policy, str) else policy
    simulation = Simulation(
        plan,
        chosen,
        Load(wanted),
        wanted.models,
        log,
        services=Services(plan.machine, seed=seed),
    )
    simulation.run()
    simulation.core.check()
    assert simulation.core.fault is None
    assert simulation.n_unanswered == 0
    return log


def shared(**factors: Mapping[str, float]) -> Contention:
    """Contention by keyword, `a={"b": 2.0}`."""
    return Contention(factors=factors)
