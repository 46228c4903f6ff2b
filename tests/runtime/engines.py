"""Builders for engine tests: an engine on the null backend whose faults the test controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coinfer.api import Engine
from coinfer.backends.null import Faults, NullBackend
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.plan import Plan, PolicyChoice
from coinfer.runtime.prepared import Prepared
from coinfer.testing.models import tiny_linear
from coinfer.workload.scenario import Scenario

MODEL = tiny_linear().model
FEED = MODEL.sample_inputs()


def cpus(*names: str) -> tuple[Processor, ...]:
    return tuple(Processor(name=n, backend="null", units=frozenset({n})) for n in names)


def ready(
    scenario: Scenario,
    model: Model,
    feed: dict[str, Any],
    processors: Sequence[Processor],
    profile: Profile,
) -> Prepared:
    """A scenario all of whose models are one and the same, under `fcfs`."""
    machine = Machine(processors=tuple(processors), profile=profile)
    return Prepared(
        scenario=scenario,
        plan=Plan.of(machine, models=scenario.models, policy=PolicyChoice(name="fcfs")),
        models=dict.fromkeys(scenario.models, model),
        feeds={name: [feed] for name in scenario.models},
    )


def null_engine(
    *names: str,
    faults: Faults | None = None,
    models: dict[str, Model] | None = None,
    service_s: float = 0.0,
    **options: Any,
) -> Engine:
    """An engine over null processors of the given names; one model `m` unless given others."""
    models = {"m": MODEL} if models is None else models
    names = names or ("p0",)
    expected = {model: dict.fromkeys(names, max(service_s, 1e-4)) for model in models}
    backend = NullBackend(service_s, faults=faults) if faults else NullBackend(service_s)
    return Engine(
        models,
        processors=cpus(*names),
        profile=Profile.from_seconds(expected),
        backends={"null": backend},
        pin=False,
        **options,
    )
