"""What is foreseen of requests that come regularly, and what of it would be late."""

from __future__ import annotations

import random

import pytest

from coinfer.core.events import ProcessorLost
from coinfer.policies import make_policy
from coinfer.policies.foresight import Coming, Foresight, n_late
from coinfer.testing.machine import VirtualMachine, processors, request

CORES = {p.name: p for p in processors("cpu0", "cpu1", all=("cpu0", "cpu1"))}
SECONDS = {"m": {"cpu0": 0.01, "cpu1": 0.05, "all": 0.008}, "x": {"cpu0": 0.1}}
EVERY_100_MS = (0.0, 0.1, 0.2, 0.3)


def foreseen(moments_s, *, slack_s: float = 0.02, now: float = 0.0, machine=None):
    """What is foreseen after requests of `m` came at these moments."""
    foresight = Foresight()
    for number, at_s in enumerate(moments_s):
        fields = {} if slack_s is None else {"deadline_s": at_s + slack_s}
        foresight.note(request("m", id=number, arrival_s=at_s, **fields), at_s)
    machine = machine or VirtualMachine(list(CORES.values()), make_policy("fcfs"), SECONDS)
    machine.dispatcher.view.now = now
    return foresight.coming(machine.dispatcher.view)


def test_the_next_comes_a_mean_gap_after_the_last() -> None:
    [coming] = foreseen(EVERY_100_MS, now=0.31)
    assert coming.next_s == pytest.approx(0.4)
    assert coming.gap_s == pytest.approx(0.1)
    assert coming.slack_s == pytest.approx(0.02)


def test_one_that_is_overdue_is_due_now() -> None:
    [coming] = foreseen(EVERY_100_MS, now=0.5)
    assert coming.next_s == 0.5


def test_only_processors_that_are_fast_enough_count() -> None:
    [coming] = foreseen(EVERY_100_MS)
    assert set(coming.seconds) == {"cpu0", "all"}
    assert foreseen(EVERY_100_MS, slack_s=0.001) == []


def test_what_is_out_of_service_does_not_count() -> None:
    machine = VirtualMachine(list(CORES.values()), make_policy("fcfs"), SECONDS)
    machine.post(ProcessorLost("cpu0", "gone"))
    [coming] = foreseen(EVERY_100_MS, machine=machine)
    assert set(coming.seconds) == {"all"}


def test_a_new_rate_is_followed() -> None:
    fast = [3.0 + 0.05 * at for at in range(60)]
    [coming] = foreseen([0.1 * at for at in range(30)] + fast)
    assert coming.gap_s == pytest.approx(0.05, rel=0.02)


def test_jitter_is_no_chance() -> None:
    draw = random.Random(0)
    assert foreseen([0.1 * at + draw.uniform(0.0, 0.02) for at in range(50)])


@pytest.mark.parametrize("seed", range(20))
def test_what_comes_at_random_is_seldom_foreseen(seed: int) -> None:
    draw, moments = random.Random(seed), [0.0]
    for _ in range(100):
        moments.append(moments[-1] + draw.expovariate(10.0))
    seldom = sum(bool(foreseen(moments[:count])) for count in range(len(moments)))
    assert seldom <= 15


@pytest.mark.parametrize("moments", [[], [0.0], [0.0, 0.1, 0.2], [0.3, 0.3, 0.3, 0.3]])
def test_it_takes_a_few_moments(moments: list[float]) -> None:
    assert foreseen(moments) == []


def test_what_has_no_deadline_is_not_foreseen() -> None:
    assert foreseen(EVERY_100_MS, slack_s=None) == []


class TestLate:
    FRAMES = Coming(next_s=1.0, gap_s=0.1, slack_s=0.03, seconds={"cpu0": 0.01, "cpu1": 0.02})

    @pytest.mark.parametrize(
        ("until_s", "expected"), [(1.0, 0), (1.02, 0), (1.03, 1), (1.11, 1), (1.13, 2), (1.23, 3)]
    )
    def test_those_that_come_too_long_before_the_end(self, until_s: float, expected: int) -> None:
        units = CORES["all"].units
        assert n_late([self.FRAMES], CORES, {}, units, until_s) == expected

    def test_a_unit_that_is_left_serves_them(self) -> None:
        assert n_late([self.FRAMES], CORES, {}, CORES["cpu0"].units, 9.0) == 0

    def test_unless_it_is_busy_too(self) -> None:
        units, busy = CORES["cpu0"].units, {"cpu1": 1.05}
        assert n_late([self.FRAMES], CORES, busy, units, 9.0) == 1

    def test_all_models_count(self) -> None:
        units = CORES["all"].units
        assert n_late([self.FRAMES, self.FRAMES], CORES, {}, units, 1.05) == 2
