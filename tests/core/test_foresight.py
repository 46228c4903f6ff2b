"""What is foreseen of requests that come regularly, and what of it would be late."""

from __future__ import annotations

import random

import pytest

from coinfer.core.events import ProcessorLost
from coinfer.core.foresight import Foresight
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors, request

CORES = {p.name: p for p in processors("cpu0", "cpu1", all=("cpu0", "cpu1"))}
SECONDS = {"m": {"cpu0": 0.01, "cpu1": 0.05, "all": 0.008}, "x": {"cpu0": 0.1}}
EVERY_100_MS = (0.0, 0.1, 0.2, 0.3)


def watched(moments_s, *, slack_s: float | None = 0.02) -> Foresight:
    """Requests of `m` came at these moments."""
    foresight = Foresight()
    for number, at_s in enumerate(moments_s):
        fields = {} if slack_s is None else {"deadline_s": at_s + slack_s}
        foresight.note(request("m", id=number, arrival_s=at_s, **fields), at_s)
    return foresight


def idle(now: float) -> VirtualMachine:
    machine = VirtualMachine(list(CORES.values()), make_policy("fcfs"), SECONDS)
    machine.dispatcher.view.now = now
    return machine


def n_late(foresight: Foresight, until_s: float, *, now: float, on: str = "all", busy=None) -> int:
    """How many are late if a processor's units are taken until then."""
    forecast = foresight.forecast(idle(now).dispatcher.view)
    return forecast.n_late(busy or {}, CORES[on].units, until_s)


def is_foreseen(foresight: Foresight, moments_s) -> bool:
    last_s = max(moments_s, default=0.0)
    return n_late(foresight, last_s + 100.0, now=last_s) > 0


class TestLate:
    """The next one comes at 0.4, has 20 ms, and takes 10 on `cpu0` and 8 on both cores."""

    @pytest.mark.parametrize(
        ("until_s", "expected"),
        [(0.4, 0), (0.405, 0), (0.415, 1), (0.505, 1), (0.515, 2), (0.615, 3)],
    )
    def test_those_that_come_too_long_before_the_end(self, until_s: float, expected: int) -> None:
        assert n_late(watched(EVERY_100_MS), until_s, now=0.31) == expected

    def test_a_core_that_is_fast_enough_serves_them(self) -> None:
        assert n_late(watched(EVERY_100_MS), 9.0, now=0.31, on="cpu1") == 0

    def test_one_that_is_too_slow_does_not(self) -> None:
        assert n_late(watched(EVERY_100_MS), 0.45, now=0.31, on="cpu0") == 1

    def test_nor_one_that_is_busy(self) -> None:
        late = n_late(watched(EVERY_100_MS), 9.0, now=0.31, on="cpu1", busy={"cpu0": 0.45})
        assert late == 1

    def test_nor_one_that_is_out_of_service(self) -> None:
        machine = idle(0.31)
        machine.post(ProcessorLost("cpu0", "gone"))
        forecast = watched(EVERY_100_MS).forecast(machine.dispatcher.view)
        assert forecast.n_late({}, CORES["cpu1"].units, 0.45) == 1  # only both cores are left

    def test_what_is_late_on_an_idle_machine_does_not_count(self) -> None:
        assert n_late(watched(EVERY_100_MS, slack_s=0.007), 9.0, now=0.31) == 0

    def test_one_that_is_overdue_is_due_now(self) -> None:
        assert n_late(watched(EVERY_100_MS), 0.455, now=0.44) == 1

    def test_all_models_count(self) -> None:
        foresight = watched(EVERY_100_MS)
        for at_s in EVERY_100_MS:
            coming = request("x", arrival_s=at_s, deadline_s=at_s + 0.15)
            foresight.note(coming, at_s)
        assert n_late(foresight, 0.46, now=0.31) == 2


def test_a_new_rate_is_followed() -> None:
    moments = [0.1 * at for at in range(30)]
    moments += [moments[-1] + 0.05 * at for at in range(1, 60)]
    assert n_late(watched(moments), moments[-1] + 0.165, now=moments[-1]) == 3


def test_jitter_is_no_chance() -> None:
    draw = random.Random(0)
    moments = [0.1 * at + draw.uniform(0.0, 0.02) for at in range(50)]
    assert is_foreseen(watched(moments), moments)


@pytest.mark.parametrize("seed", range(20))
def test_what_comes_at_random_is_seldom_foreseen(seed: int) -> None:
    draw, moments = random.Random(seed), [0.0]
    for _ in range(100):
        moments.append(moments[-1] + draw.expovariate(10.0))
    parts = [moments[:count] for count in range(len(moments))]
    assert sum(is_foreseen(watched(part), part) for part in parts) <= 4


@pytest.mark.parametrize("moments", [[], [0.0], [0.0, 0.1, 0.2], [0.3, 0.3, 0.3, 0.3]])
def test_it_takes_a_few_moments(moments: list[float]) -> None:
    assert not is_foreseen(watched(moments), moments)


def test_what_has_no_deadline_is_not_foreseen() -> None:
    assert not is_foreseen(watched(EVERY_100_MS, slack_s=None), EVERY_100_MS)


def test_what_stopped_coming_is_forgotten_and_begins_anew() -> None:
    foresight = watched(EVERY_100_MS)
    assert n_late(foresight, 9.0, now=0.69) > 0
    assert n_late(foresight, 9.0, now=0.71) == 0
    again = [*EVERY_100_MS, 5.0, 5.05, 5.1]
    assert not is_foreseen(watched(again), again)
    again.append(5.15)
    assert n_late(watched(again), 5.265, now=5.15) == 2
