"""Measuring cold starts: with sessions that move a clock of their own, and with real threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from coinfer.backends.null import NullBackend
from coinfer.machine.cold import IDLE_S, Cold
from coinfer.machine.profile import Measurement, Profile
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.cold import _factor, in_turn, measure_cold
from coinfer.profiling.deployment import Deployment, Rounds
from coinfer.testing.models import tiny_linear
from profiling.counting import Counting, processor

BRIEF = Rounds(min_rounds=3, max_s=0.0)


class Machine:
    """A clock that sessions move: by 1 s, by 2 s after another session, by 1.5 s after a rest."""

    def __init__(self) -> None:
        self.now = 0.0
        self.last: Session | None = None
        self.rested = False
        self.drift = 1.0

    def rest(self, seconds: float) -> None:
        self.now += seconds
        self.rested = True

    def take(self, session: Session) -> None:
        seconds = 2.0 if self.last is not session else 1.5 if self.rested else 1.0
        self.last, self.rested = session, False
        self.now += seconds * self.drift
        self.drift *= 1.01


class Session:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self, _inputs: Any) -> dict[str, Any]:
        self.machine.take(self)
        return {}


def turns(machine: Machine, **fields: Any) -> dict[str, list[list[float]]]:
    work: Any = [(Session(machine), [{}]), (Session(machine), [{}])]
    return in_turn(work, BRIEF, clock=lambda: machine.now, rest=machine.rest, **fields)


def test_the_kinds_follow_each_other_so_that_drift_hits_all_alike() -> None:
    found = turns(Machine())
    assert [len(seconds) for rows in found.values() for seconds in rows] == [BRIEF.min_rounds] * 6
    for number in (0, 1):
        other, same, idle = (sum(found[kind][number]) for kind in ("other", "same", "idle"))
        # The machine became 1 % slower with every run.
        assert other / same == pytest.approx(2.0, rel=0.02)
        assert idle / same == pytest.approx(1.5, rel=0.02)


def test_an_interruption_ends_the_turns() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        turns(Machine(), stop=stop)


def measured(
    backend: NullBackend, cache: ProfileCache | None = None, *, models: int = 2
) -> dict[tuple[str, str], Cold]:
    model = tiny_linear().model
    trio = [processor("a", "0"), processor("b", "1"), processor("ab", "0", "1", threads=2)]
    names = [f"m{number}" for number in range(models)]
    table = {name: {"a": 1e-3, "b": 1e-3} for name in names}
    table["m0"]["ab"] = 1e-3
    deployment = Deployment(
        models=dict.fromkeys(names, model),
        processors=trio,
        profile=Profile.from_seconds(table),
        feeds={name: [model.sample_inputs()] for name in names},
        effort=BRIEF,
        cache=cache,
        backends={"null": backend},
    )
    return measure_cold(deployment)


def test_every_model_gets_factors_of_at_least_one_wherever_it_runs() -> None:
    found = measured(Counting())
    assert set(found) == {("m0", "a"), ("m1", "a"), ("m0", "b"), ("m1", "b"), ("m0", "ab")}
    assert all(factor >= 1 for cold in found.values() for factor in cold)


def test_equal_processors_are_measured_once_and_remembered(tmp_path: Path) -> None:
    backend, cache = Counting(), ProfileCache(tmp_path)
    found = measured(backend, cache)
    assert found["m0", "a"] == found["m0", "b"]
    # Two on a, which stands for b; m0 on ab, and m1 on a to run between.
    assert backend.loads == 2 + 1 + 2
    assert measured(backend, cache) == found
    assert backend.loads == 2 + 1 + 2


def test_a_model_that_is_alone_has_no_change_to_pay_for() -> None:
    backend = Counting()
    found = measured(backend, models=1)
    assert backend.loads == 2
    assert {cold.after_other for cold in found.values()} == {1.0}


def test_a_factor_that_the_rounds_do_not_show_is_noise() -> None:
    same = Measurement(seconds=(1.0, 1.25, 1.0, 1.25, 1.0, 1.25, 1.0, 1.25, 1.0))
    noise = Measurement(seconds=(1.5, 1.0, 1.5, 1.0, 1.5, 1.0, 1.5, 1.0, 1.5))
    slower = Measurement(seconds=tuple(1.5 * each for each in same.seconds))
    assert noise.mean_s > same.mean_s
    assert (_factor(noise, same), _factor(same, slower)) == (1.0, 1.0)
    assert _factor(slower, same) == 1.5
    few = Measurement(seconds=(1.0, 1.0))
    assert _factor(Measurement(seconds=(1.0, 2.0)), few) == 1.5


def test_a_factor_counts_in_proportion_to_a_short_rest() -> None:
    cold = Cold(after_other=1.1, after_idle=1.4)
    assert cold.factor(is_switch=False, idle_s=0.0) == 1.0
    assert cold.factor(is_switch=False, idle_s=IDLE_S / 2) == pytest.approx(1.2)
    assert cold.factor(is_switch=True, idle_s=0.0) == 1.1
    assert cold.factor(is_switch=True, idle_s=1.0) == 1.4
