"""The difference of two plans names all that is not the same."""

from __future__ import annotations

import dataclasses

from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Fork
from coinfer.plan import Plan
from coinfer.plan.difference import differences

LOW = Processor(name="low", backend="null", units=frozenset({"u"}), precision="bf16")


def plan(error: float = 0.01) -> Plan:
    entry = Measurement(seconds=(0.01,), error=error)
    profile = Profile({ProfileKey("m", "low", 1): entry})
    return Plan.of(Machine(processors=(LOW,), profile=profile))


def test_output_errors_are_named() -> None:
    assert list(differences(plan(), plan(0.02))) == ["m on low: output error: 0.01 -> 0.02"]


def test_warnings_are_named() -> None:
    found = list(differences(plan().warned("a", "b"), plan().warned("b", "c")))
    assert found == ["warning only in the first: a", "warning only in the second: c"]


def test_forks_and_batches_are_named() -> None:
    one = plan()
    model = dataclasses.replace(one.models["m"], batch=4)
    forked = dataclasses.replace(model.original, n_units=3, forks=(Fork(0, 1, 2),))
    other = dataclasses.replace(one, models={"m": model}).with_variant("m", forked)
    assert list(differences(one, other)) == ["m: batch: 1 -> 4", "m: forks: none -> 0-1-2"]
