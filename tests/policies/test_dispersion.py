"""Dispersion: what comes evenly waits less, and what comes in bursts more, than what is random."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from coinfer.policies.crowding import crowded
from coinfer.policies.dispersion import AT_RANDOM, Dispersion

N = 20_000


def seen(gaps: Iterator[float], works: Iterator[float]) -> Dispersion:
    found = Dispersion()
    for _ in range(N):
        found.note(next(works), next(gaps))
    return found


def drawn(cv: float, seed: int) -> Iterator[float]:
    draw = random.Random(seed)
    while True:
        yield draw.gammavariate(cv**-2, cv**2) if cv else 1.0


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8, 0.9])
@pytest.mark.parametrize(("gap_cv", "work_cv"), [(1.0, 1.0), (1.0, 0.0), (0.5, 0.5), (2.0, 0.5)])
def test_it_is_the_sum_of_both_squares_where_nothing_depends(
    busy: float, gap_cv: float, work_cv: float
) -> None:
    found = seen(drawn(gap_cv, 1), drawn(work_cv, 2)).at(busy)
    assert found == pytest.approx(gap_cv**2 + work_cv**2, rel=0.3)


def test_cameras_side_by_side_come_at_random_and_yet_evenly() -> None:
    """Of two frames any may fall together, and of each twenty there is one of each camera."""
    draw = random.Random(3)
    phases = [draw.random() for _ in range(20)]
    times = sorted(phase + n for phase in phases for n in range(500))
    coming = Dispersion.of([(at_s, "frame") for at_s in times], {"frame": 0.1})
    assert coming.at(0.2) > 0.6
    assert coming.at(0.95) < 0.2


def test_bursts_wait_longer_than_what_comes_at_random() -> None:
    draw = random.Random(4)
    times = sorted(n + 0.001 * draw.random() for n in range(400) for _ in range(20))
    coming = Dispersion.of([(at_s, "frame") for at_s in times], {"frame": 0.1})
    assert coming.at(0.3) > 2 * AT_RANDOM


def test_one_pause_is_no_burst() -> None:
    found = seen(drawn(1.0, 1), drawn(0.0, 2))
    before = found.at(0.8)
    found.note(1.0, 1e6)
    for _ in range(64):
        found.note(1.0, 1.0)
    assert found.at(0.8) < 2 * before


def test_what_waits_follows_the_dispersion() -> None:
    waits = [crowded(0.8, 4.0, dispersion) - 1.0 for dispersion in (0.0, 1.0, AT_RANDOM)]
    assert waits[0] == 0.0
    assert waits[1] == pytest.approx(waits[2] / 2)


def test_nothing_that_is_known_of_is_as_at_random() -> None:
    assert Dispersion.of([], {}).at(0.9) == pytest.approx(AT_RANDOM)
    assert Dispersion.of([(0.0, "m"), (0.0, "m")], {"m": 1.0}).at(0.9) == pytest.approx(AT_RANDOM)
    assert Dispersion.of([(0.0, "m"), (1.0, "m")], {}).at(0.9) == pytest.approx(AT_RANDOM)
