"""Measuring contention: with sessions that move a clock of their own, and with real threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from coinfer.backends.null import NullBackend
from coinfer.errors import BackendError, ConfigurationError
from coinfer.machine.contention import Contention
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.topology import Core, Topology
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.contention import compare, measure_contention
from coinfer.profiling.deployment import Deployment, Rounds
from coinfer.testing.models import tiny_linear
from profiling.counting import Counting, processor

BRIEF = Rounds(min_rounds=3, max_s=0.0)


class FakeNeighbour:
    """Sessions beside it take three times as long while it goes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.goes = True
        self.drift = 1.0

    def rest(self) -> None:
        self.goes = False

    def go(self) -> None:
        self.goes = True

    def run(self, _inputs: Any) -> dict[str, Any]:
        self.now += self.drift * (3.0 if self.goes else 1.0)
        self.drift *= 1.01
        return {}


def compared(neighbour: FakeNeighbour, **fields: Any) -> tuple[list[float], list[float]]:
    work: Any = [(neighbour, [{}]), (neighbour, [{}])]
    return compare(work, neighbour, BRIEF, clock=lambda: neighbour.now, **fields)


def test_rounds_alternate_so_that_drift_hits_both_alike() -> None:
    alone, beside = compared(FakeNeighbour())
    assert len(alone) == len(beside) == BRIEF.min_rounds
    # The machine became 1 % slower with every run: both kinds did.
    assert sum(beside) / sum(alone) == pytest.approx(3.0, rel=0.03)


def test_an_interruption_ends_the_rounds() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        compared(FakeNeighbour(), stop=stop)


def measured(
    backend: NullBackend, cache: ProfileCache | None = None, effort: Rounds = BRIEF
) -> Contention:
    model = tiny_linear().model
    trio = [processor("a", "0"), processor("b", "1"), processor("ab", "0", "1", threads=2)]
    table = Profile.from_seconds({"m": {p.name: 1e-3 for p in trio}})
    deployment = Deployment(
        models={"m": model},
        processors=trio,
        profile=table,
        feeds={"m": [model.sample_inputs()]},
        effort=effort,
        cache=cache,
        backends={"null": backend},
    )
    return measure_contention(deployment)


def test_pairs_that_can_run_together_get_factors_of_at_least_one() -> None:
    found = measured(Counting())
    assert {name: set(row) for name, row in found.factors.items()} == {"a": {"b"}, "b": {"a"}}
    assert all(factor >= 1 for row in found.factors.values() for factor in row.values())


def test_equal_pairs_are_measured_once_and_remembered(tmp_path: Path) -> None:
    backend, cache = Counting(), ProfileCache(tmp_path)
    found = measured(backend, cache)
    assert backend.loads == 2
    assert found.factors["a"]["b"] == found.factors["b"]["a"]
    assert measured(backend, cache) == found
    assert backend.loads == 2


def test_of_alike_pairs_as_near_to_each_other_one_is_measured() -> None:
    topology = Topology(
        cores=tuple(Core(threads=(n,), cache=n // 4) for n in range(8)), used=tuple(range(8))
    )
    model = tiny_linear().model
    everyone = [
        Processor(
            name=f"p{n}", backend="null", device="NULL", units=frozenset({f"core{n}"}), cores=(n,)
        )
        for n in range(8)
    ]
    backend = Counting()
    deployment = Deployment(
        models={"m": model},
        processors=everyone,
        profile=Profile.from_seconds({"m": {p.name: 1e-3 for p in everyone}}),
        feeds={"m": [model.sample_inputs()]},
        effort=BRIEF,
        backends={"null": backend},
    )
    told: list[str] = []
    found = measure_contention(deployment, lambda _, __, what: told.append(what), topology)
    assert told == ["p0 beside p1", "p0 beside p4", "measured"]
    assert {name: len(row) for name, row in found.factors.items()} == {p.name: 7 for p in everyone}
    assert found.factors["p5"]["p6"] == found.factors["p0"]["p1"]
    assert found.factors["p3"]["p4"] == found.factors["p0"]["p4"]


def test_what_was_measured_in_more_rounds_does_for_fewer(tmp_path: Path) -> None:
    backend, cache = Counting(), ProfileCache(tmp_path)
    measured(backend, cache)
    measured(backend, cache, Rounds(min_rounds=BRIEF.min_rounds - 1, max_s=0.0))
    assert backend.loads == 2
    found = measured(backend, cache, Rounds(min_rounds=BRIEF.min_rounds + 1, max_s=0.0))
    assert backend.loads == 4
    assert found.samples == BRIEF.min_rounds + 1


def test_a_neighbour_that_fails_ends_the_measurement_with_its_reason() -> None:
    class Failing(Counting):
        def load(self, model: Any, processor: Processor) -> Any:
            session = super().load(model, processor)
            if processor.name == "b":
                self.faults.fail(processor="b")
            return session

    with pytest.raises(BackendError, match=r"side by side: model .* on processor .b.: fails"):
        measured(Failing())


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_without_sense_is_refused(factor: float) -> None:
    with pytest.raises(ConfigurationError, match=r"slowdown of 'a' by 'b'"):
        Contention(factors={"a": {"b": factor}})
