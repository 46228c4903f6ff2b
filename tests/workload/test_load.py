"""Load: which request is due when."""

from __future__ import annotations

import heapq
import math
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from coinfer.errors import ScenarioError
from coinfer.workload.load import REFUSED_PAUSE_S, Due, Load
from coinfer.workload.rotation import rotation
from workload.scenarios import mix, scenario

# A correct process leaves a band this wide with twice 10^-9 of all seeds; these are fixed.
SIGMAS = 6.0


def dues(load: Load, stream: int = 0) -> Iterator[Due]:
    """Follow one open stream to its end."""
    following = [due for due in load.initial() if due.stream == stream]
    while following:
        [due] = following
        yield due
        following = load.after_due(due)


def times(process: str, *, end_s: float, seed: int = 0) -> np.ndarray:
    load = Load(scenario({"net": process}, end_s=end_s, seed=seed))
    return np.array([due.time_s for due in dues(load)])


def serve(load: Load, service_s: float, completed: bool = True) -> list[Due]:
    """Answer every due `service_s` after its time; return all in the order of time."""
    heap = [(due.time_s, 0, number, due) for number, due in enumerate(load.initial())]
    heapq.heapify(heap)
    order, served = len(heap), []
    while heap:
        now, answered, _, due = heapq.heappop(heap)
        if answered:
            following = load.after_answer(due, now, completed)
        else:
            served.append(due)
            heapq.heappush(heap, (now + service_s, 1, order, due))
            following = load.after_due(due)
        for number, one in enumerate(following, start=order + 1):
            assert one.time_s >= now
            heapq.heappush(heap, (one.time_s, 0, number, one))
        order += 1 + len(following)
    return served


# --- open loops -------------------------------------------------------------------------------


def test_periodic_is_exact_and_does_not_drift() -> None:
    found = times("periodic: 30/s, phase: 5ms", end_s=1000)
    assert len(found) == 30_000
    np.testing.assert_allclose(found, 0.005 + np.arange(30_000) / 30, rtol=1e-15)


def test_jitter_only_delays_and_is_uniform() -> None:
    late = times("periodic: 100/s, jitter: 4ms", end_s=200) - np.arange(20_000) / 100
    assert late.min() >= -1e-12
    assert late.max() <= 0.004 + 1e-12
    assert stats.kstest(late, "uniform", args=(0, 0.004)).pvalue > 1e-6


def test_jitter_of_a_whole_period_keeps_the_order() -> None:
    assert np.all(np.diff(times("periodic: 100/s, jitter: 10ms", end_s=100)) >= 0)


def test_poisson_has_its_rate_and_exponential_gaps() -> None:
    found = times("poisson: 200/s", end_s=250)
    mean = 200 * 250
    assert abs(len(found) - mean) < SIGMAS * math.sqrt(mean)
    assert stats.kstest(np.diff(found), "expon", args=(0, 1 / 200)).pvalue > 1e-6


@pytest.mark.parametrize("cv", [0.5, 1.0, 4.0])
def test_gamma_has_its_rate_and_variation(cv: float) -> None:
    rate = 200.0
    gaps = np.diff(times(f"gamma: {rate}, cv: {cv}", end_s=500), prepend=0.0)
    n = len(gaps)
    assert abs(gaps.mean() - 1 / rate) < SIGMAS * cv / rate / math.sqrt(n)
    # Standard error of a sample CV by the delta method, from the Gamma's central moments:
    # skewness 2 cv, kurtosis 3 + 6 cv^2  =>  cv^2 (1/2 + cv^2 / 2) / n.
    error = cv * math.sqrt((1 + cv**2) / 2 / n)
    assert abs(gaps.std() / gaps.mean() - cv) < SIGMAS * error


def test_gamma_gaps_are_gamma_distributed() -> None:
    gaps = np.diff(times("gamma: 200/s, cv: 2", end_s=100), prepend=0.0)
    assert stats.kstest(gaps, "gamma", args=(0.25, 0, 4 / 200)).pvalue > 1e-6


@pytest.mark.parametrize(
    "process", ["periodic: 7/s, jitter: 9ms", "poisson: 7/s", "gamma: 7, cv: 3"]
)
def test_equal_seeds_give_equal_times(process: str) -> None:
    first, again = times(process, end_s=50, seed=3), times(process, end_s=50, seed=3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[:100], times(process, end_s=50, seed=4)[:100])


def test_another_model_does_not_change_the_times_of_the_first() -> None:
    alone = list(dues(Load(scenario({"b": "poisson: 20/s"}))))
    beside = list(dues(Load(scenario({"a": "poisson: 20/s", "b": "poisson: 20/s"})), stream=1))
    assert [due.time_s for due in alone] == [due.time_s for due in beside]


def test_models_with_the_same_process_are_uncorrelated() -> None:
    load = Load(scenario({"a": "poisson: 100/s", "b": "poisson: 100/s"}, end_s=210))
    a, b = (np.diff([d.time_s for d in dues(load, stream)])[:20_000] for stream in (0, 1))
    assert abs(np.corrcoef(a, b)[0, 1]) < SIGMAS / math.sqrt(20_000)


@pytest.mark.parametrize("process", ["periodic: 10/s", "poisson: 30/s", "gamma: 30/s, cv: 2"])
def test_nothing_is_due_at_the_end_or_later(process: str) -> None:
    load = Load(scenario({"net": process}, end_s=20))
    found = list(dues(load))
    assert found[0].time_s >= 0
    assert found[-1].time_s < load.end_s == 20
    assert load.after_due(found[-1]) == []
    assert [due.index for due in found] == list(range(len(found)))


def test_an_answer_adds_nothing_to_an_open_loop() -> None:
    load = Load(scenario({"net": "poisson: 30/s"}))
    [first] = load.initial()
    assert load.after_answer(first, 0.5, True) == []


def test_memory_does_not_grow_with_the_number_of_requests() -> None:
    load = Load(scenario({"net": "poisson: 100000/s"}, end_s=1e6))
    stream = dues(load)
    for _ in islice(stream, 10_000):
        pass
    tracemalloc.start()
    try:
        for _ in islice(stream, 200_000):
            pass
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Two blocks of 4096 times as arrays and as floats; 200,000 dues would be above 20 MB.
    assert peak_bytes < 1_000_000


# --- traces -----------------------------------------------------------------------------------


def trace_times(tmp_path: Path, text: str, name: str = "t.csv") -> list[float]:
    (tmp_path / name).write_text(text)
    load = Load(scenario({"net": f"trace: {name}"}, base=tmp_path))
    return [due.time_s for due in dues(load)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "time_s,model\n0.5,net\n0.25,net\n0.3,other\n11,net\n"),
        ("t.csv", "0.25\n0.5\n"),
        ("t.csv", "\ufefftime_s\n0.25\n\n 0.5 \n"),
        ("t.jsonl", '{"time_s": 0.25, "model": "net"}\n\n{"model": "net", "time_s": 0.5}\n'),
        ("t.jsonl", '{"time_s": 0.25}\n{"time_s": 0.5}\n'),
    ],
)
def test_a_trace_is_played_in_order_up_to_the_end(tmp_path: Path, name: str, text: str) -> None:
    assert trace_times(tmp_path, text, name) == [0.25, 0.5]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "time_s,model\n0.5,other\n", "t.csv: has no rows for model 'net'; it has other"),
        ("t.csv", "time_s\n0.5\nsoon\n", "t.csv:3: 'soon' is not a time"),
        ("t.csv", "0.5\n-1\n", "t.csv:2: '-1' is not a time"),
        ("t.csv", "0.5\nnan\n", "t.csv:2: 'nan' is not a time"),
        ("t.csv", "time_s\n", "t.csv: has no arrival times"),
        ("t.csv", "0.5,net\n0.6\n", "t.csv: some rows name a model and some do not"),
        ("t.jsonl", "{}\n", "t.jsonl:1: expected an object like"),
        ("t.jsonl", '{"time_s": 1}\n[1]\n', "t.jsonl:2: expected an object like"),
        ("t.jsonl", '{"time_s": 1, "model": 3}\n', "t.jsonl:1: expected an object like"),
    ],
)
def test_a_bad_trace_names_file_and_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        trace_times(tmp_path, text, name)
    assert message in str(caught.value)


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.csv: cannot read this trace file"):
        Load(scenario({"net": "trace: none.csv"}, base=tmp_path))


# --- closed loops -----------------------------------------------------------------------------


def test_a_closed_loop_starts_all_its_requests_at_once() -> None:
    load = Load(scenario({"net": "closed: 3"}))
    assert load.initial() == [Due(0.0, 0, index, "net") for index in range(3)]


def test_each_answer_makes_one_request_due_at_that_moment() -> None:
    load = Load(scenario({"net": "closed: 1"}))
    [first] = load.initial()
    assert load.after_due(first) == []
    assert load.after_answer(first, 0.7, True) == [Due(0.7, 0, 1, "net")]


def test_an_answer_after_the_end_gives_nothing() -> None:
    load = Load(scenario({"net": "closed: 1"}, end_s=5))
    [first] = load.initial()
    assert load.after_answer(first, 5.0, True) == []


def test_a_loop_that_is_refused_at_once_moves_on_in_time() -> None:
    served = serve(Load(scenario({"net": "closed: 1"}, end_s=0.1)), 0.0, completed=False)
    assert len(served) == pytest.approx(0.1 / REFUSED_PAUSE_S, abs=1)


@given(
    weights=st.dictionaries(
        st.sampled_from("abcde"), st.integers(1, 9).map(float), min_size=1, max_size=5
    ),
    in_flight=st.integers(1, 20),
    answers=st.lists(st.integers(0, 10**6), max_size=60),
)
def test_a_mix_always_has_the_same_number_in_flight(
    weights: dict[str, float], in_flight: int, answers: list[int]
) -> None:
    load = Load(mix(weights, in_flight))
    waiting = load.initial()
    asked = list(waiting)
    for step, choice in enumerate(answers):
        assert len(waiting) == in_flight
        following = load.after_answer(waiting.pop(choice % in_flight), step * 0.01, True)
        waiting += following
        asked += following
    counts = Counter(due.model for due in asked)
    total = sum(weights.values())
    for model, weight in weights.items():
        assert counts[model] < len(asked) * weight / total + 1
    assert len({(due.model, due.index) for due in asked}) == len(asked)


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1, "c": 1}, {"a": 0.1, "b": 0.2, "c": 0.7}, {"a": 2.5, "b": 1}]
)
def test_a_mix_is_exact_after_each_round(weights: dict[str, float]) -> None:
    unit = 10  # all weights above are whole numbers of tenths
    length = round(sum(weights.values()) * unit)
    turns = list(islice(rotation(weights), 5 * length))
    for round_ in range(1, 6):
        counts = Counter(turns[: round_ * length])
        assert counts == {name: round(w * unit) * round_ for name, w in weights.items()}


def test_equal_weights_take_turns() -> None:
    served = serve(Load(mix({"a": 1, "b": 1, "c": 1}, in_flight=2, end_s=1.0)), 0.1)
    assert "".join(due.model for due in served).startswith("abcabcabc")


def test_open_and_closed_loops_run_side_by_side() -> None:
    load = Load(scenario({"fast": "periodic: 10/s", "rest": "closed: 2"}, end_s=2.05))
    counts = Counter(due.model for due in serve(load, 0.5))
    assert counts == {"fast": 21, "rest": 2 * 5}


# --- what is offered --------------------------------------------------------------------------


def test_offered_rates_are_those_of_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n".join(str(n / 4) for n in range(100)))
    load = Load(
        scenario(
            {"a": "poisson: 30/s", "b": "gamma: 5/s, cv: 2", "c": "trace: t.csv"}, base=tmp_path
        )
    )
    assert load.offered_rates_per_s() == {"a": 30.0, "b": 5.0, "c": 4.0}
    assert load.offered_mix() == {"a": 30 / 39, "b": 5 / 39, "c": 4 / 39}


def test_a_mix_offers_its_weights_and_no_rate() -> None:
    load = Load(mix({"a": 1, "b": 3}, in_flight=4))
    assert load.offered_mix() == {"a": 0.25, "b": 0.75}
    assert load.offered_rates_per_s() is None


def test_loops_per_model_offer_no_mix() -> None:
    load = Load(scenario({"a": "closed: 1", "b": "poisson: 3/s"}))
    assert load.offered_mix() is None
    assert load.offered_rates_per_s() is None


@pytest.mark.parametrize(
    "process", ["periodic: 10/s, phase: 40ms", "poisson: 10/s", "trace: t.csv"]
)
def test_scaling_brings_the_same_requests_closer_together(tmp_path: Path, process: str) -> None:
    (tmp_path / "t.csv").write_text("\n".join(str(n / 10) for n in range(1000)))
    wanted = scenario({"net": process}, end_s=40, base=tmp_path)
    load, scaled = Load(wanted), Load(wanted.scaled(2.0))
    slow, fast = ([due.time_s for due in dues(one)] for one in (load, scaled))
    assert len(fast) == pytest.approx(2 * len(slow), abs=SIGMAS * math.sqrt(2 * len(slow)))
    np.testing.assert_allclose(np.array(fast[: len(slow)]) * 2, slow, rtol=1e-12)
    before, after = load.offered_rates_per_s(), scaled.offered_rates_per_s()
    assert before is not None
    assert after == pytest.approx({model: 2 * rate for model, rate in before.items()})


def test_scaling_leaves_closed_loops_alone() -> None:
    wanted = scenario({"net": "closed: 3"})
    assert Load(wanted.scaled(5.0)).initial() == Load(wanted).initial()
