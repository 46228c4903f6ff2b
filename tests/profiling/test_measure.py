"""Measuring ends when the mean is known well enough, and never later than it may."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.backends.base import Tensors
from coinfer.profiling import Effort
from coinfer.profiling.measure import Sampler, on_cores


def measure(session, feeds, effort, *, clock, stop=None, turn_s=0.1):  # type: ignore[no-untyped-def]
    """Let one session have all the turns."""
    sampler = Sampler(session, feeds, effort, clock=clock)
    while not sampler.is_done:
        sampler.turn(stop, turn_s=turn_s)
    return tuple(sampler.seconds)


class TimedSession:
    """Each run takes the next of the given times on a clock of its own."""

    def __init__(self, seconds: Iterable[float]) -> None:
        self.now = 0.0
        self.fed: list[Tensors] = []
        self._seconds = iter(seconds)

    def clock(self) -> float:
        return self.now

    def run(self, inputs: Tensors) -> dict[str, object]:
        self.fed.append(inputs)
        self.now += next(self._seconds)
        return {}


def timed(seconds: Iterable[float], **effort: float) -> tuple[tuple[float, ...], TimedSession]:
    session = TimedSession(seconds)
    counted = measure(session, [{}], Effort(**effort), clock=session.clock)  # type: ignore[arg-type]
    return counted, session


def test_equal_times_stop_at_the_fewest_runs() -> None:
    counted, _ = timed(itertools.repeat(0.25), min_runs=5, warmup_runs=2)
    assert counted == (0.25,) * 5


def test_warm_up_runs_are_not_counted() -> None:
    counted, session = timed(itertools.chain([8.0, 4.0], itertools.repeat(0.5)), warmup_runs=2)
    assert set(counted) == {0.5}
    assert len(session.fed) == len(counted) + 2


def test_unstable_times_are_repeated_until_the_mean_is_known() -> None:
    counted, _ = timed(itertools.cycle([1.0, 2.0]), warmup_runs=0, max_s=1e9, precision=0.05)
    # The standard error of n times that alternate is 0.5 / sqrt(n - 1).
    assert len(counted) == pytest.approx((0.5 / (0.05 * 1.5)) ** 2 + 1, abs=1)


def test_stable_times_need_fewer_runs_than_unstable_ones() -> None:
    stable, _ = timed(itertools.cycle([1.0, 1.01]), max_s=1e9)
    unstable, _ = timed(itertools.cycle([1.0, 1.5]), max_s=1e9)
    assert len(stable) < len(unstable)


def test_the_time_limit_stops_a_slow_model_after_the_fewest_runs() -> None:
    counted, _ = timed(itertools.cycle([10.0, 30.0]), min_runs=5, max_s=1.5, warmup_runs=0)
    assert len(counted) == 5


def test_the_run_limit_stops_a_noisy_model() -> None:
    counted, _ = timed(itertools.cycle([1e-6, 9e-6]), max_runs=40, warmup_runs=0)
    assert len(counted) == 40


def test_feeds_are_used_in_rotation() -> None:
    session = TimedSession(itertools.repeat(1.0))
    feeds: list[Tensors] = [{"n": number} for number in range(3)]  # type: ignore[dict-item]
    measure(session, feeds, Effort(min_runs=6, warmup_runs=0), clock=session.clock)  # type: ignore[arg-type]
    assert [feed["n"] for feed in session.fed] == [0, 1, 2, 0, 1, 2]


@given(
    st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=30),
    st.integers(0, 3),
    st.integers(1, 12),
    st.integers(1, 50),
)
def test_the_number_of_runs_is_always_within_the_limits(
    seconds: list[float], warmup: int, fewest: int, most: int
) -> None:
    counted, session = timed(
        itertools.cycle(seconds), warmup_runs=warmup, min_runs=fewest, max_runs=most
    )
    assert 2 <= len(counted) <= max(2, most)
    assert len(session.fed) == warmup + len(counted)


def test_a_clock_that_stands_still_ends_too() -> None:
    assert timed(itertools.repeat(0.0), min_runs=3)[0] == (0.0,) * 3


def test_measuring_gives_up_when_it_is_told_to() -> None:
    stop = threading.Event()
    session = TimedSession(itertools.repeat(1.0))
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        measure(session, [{}], Effort(), clock=session.clock, stop=stop)  # type: ignore[arg-type]
    assert len(session.fed) == 1


@pytest.mark.parametrize("error", [ValueError("told to"), KeyboardInterrupt()])
def test_errors_of_the_pinned_thread_come_through(error: BaseException) -> None:
    def call(_stop: threading.Event) -> None:
        raise error

    with pytest.raises(type(error)):
        on_cores((), call)


def test_the_call_runs_in_a_thread_of_its_own() -> None:
    name: Callable[[threading.Event], str] = lambda _: threading.current_thread().name  # noqa: E731
    assert on_cores((), name) == "coinfer-profiler"


def test_a_turn_ends_after_its_time_and_the_next_one_goes_on() -> None:
    session = TimedSession([0.04] * 20)
    effort = Effort(warmup_runs=0, min_runs=6, max_runs=6)
    sampler = Sampler(session, [{}], effort, clock=session.clock)
    turns = []
    while not sampler.is_done:
        sampler.turn(turn_s=0.1)
        turns.append(len(sampler.seconds))
    assert turns == [3, 6]
