import itertools
import math
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coinfer.bound import makespan, sustainable_factor, throughput_bound
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile

Table = dict[str, dict[str, float]]


def processor(name: str, *units: str) -> Processor:
    return Processor(name=name, backend="null", units=frozenset(units or (name,)))


# Mean milliseconds of the study of three networks on a board with four processors.
BOARD = tuple(processor(name) for name in ("CPU", "NCS2", "TPU", "NPU"))
_MS = {
    "MobileNetV2": (86.355, 27.459, 3.393, 10.499),
    "ResNet50": (582.072, 50.743, 54.086, 21.345),
    "ResNet101": (1201.923, 94.509, 108.260, 31.770),
}
BOARD_S: Table = {
    model: {p.name: ms / 1e3 for p, ms in zip(BOARD, row, strict=True)}
    for model, row in _MS.items()
}
EQUAL = dict.fromkeys(BOARD_S, 1.0)

# Two cores as two processors and as one, and a device of its own.
OVERLAPPING = (processor("c0", "0"), processor("c1", "1"), processor("both", "0", "1"),
               processor("npu"))  # fmt: skip
DISJOINT = (processor("c0"), processor("c1"), processor("npu"))
MODELS = ("a", "b", "c")


@st.composite
def tables(draw: st.DrawFn, processors: tuple[Processor, ...]) -> Table:
    times = st.one_of(st.none(), st.floats(0.01, 10.0))
    table = {m: {p.name: draw(times) for p in processors} for m in MODELS}
    table = {m: {k: t for k, t in row.items() if t is not None} for m, row in table.items()}
    assume(all(table.values()))
    return table  # type: ignore[return-value]


mixes = st.fixed_dictionaries({m: st.integers(1, 5) for m in MODELS})


def list_schedule_s(
    table: Table, processors: tuple[Processor, ...], jobs: list[str], rng: Random
) -> float:
    """Makespan of a schedule made by choosing at random among the processors that can run a job."""
    free = dict.fromkeys((u for p in processors for u in p.units), 0.0)
    for model in jobs:
        chosen = rng.choice([p for p in processors if p.name in table[model]])
        start = max(free[u] for u in chosen.units)
        free.update(dict.fromkeys(chosen.units, start + table[model][chosen.name]))
    return max(free.values())


def test_equal_mix_on_the_board_has_the_published_bound_and_loads() -> None:
    bound = throughput_bound(BOARD_S, BOARD, EQUAL)
    assert bound.throughput_per_s == pytest.approx(101.057, abs=0.001)
    assert bound.per_model_per_s == pytest.approx(dict.fromkeys(BOARD_S, 33.686), abs=0.001)
    assert bound.shares["CPU"] == pytest.approx({"ResNet50": 1.0})
    assert bound.shares["NPU"] == pytest.approx({"ResNet101": 1.0})
    assert bound.shares["NCS2"] == pytest.approx({"ResNet50": 0.791, "ResNet101": 0.209}, abs=5e-4)
    assert bound.shares["TPU"] == pytest.approx({"MobileNetV2": 0.114, "ResNet50": 0.886}, abs=5e-4)


def test_a_processor_that_holds_one_model_lowers_the_bound_to_the_published_one() -> None:
    bound = throughput_bound(BOARD_S, BOARD, EQUAL, one_model={"NCS2"})
    assert bound.throughput_per_s == pytest.approx(100.756, abs=0.001)
    assert bound.shares["NCS2"] == pytest.approx({"ResNet50": 1.0})


@pytest.mark.parametrize(
    ("name", "published"), [("CPU", 1.604), ("NCS2", 17.370), ("TPU", 18.101), ("NPU", 47.159)]
)
def test_a_single_processor_has_the_published_throughput(name: str, published: float) -> None:
    alone = [p for p in BOARD if p.name == name]
    bound = throughput_bound(Profile.from_seconds(BOARD_S), alone, EQUAL)
    assert bound.throughput_per_s == pytest.approx(published, abs=0.001)


@settings(deadline=None)
@given(tables(OVERLAPPING), mixes, st.randoms(use_true_random=False))
def test_no_schedule_beats_the_bound(table: Table, mix: dict[str, int], rng: Random) -> None:
    bound = throughput_bound(table, OVERLAPPING, mix)
    jobs = [model for model, count in mix.items() for _ in range(3 * count)]
    for _ in range(5):
        rng.shuffle(jobs)
        reached = len(jobs) / list_schedule_s(table, OVERLAPPING, jobs, rng)
        assert reached <= bound.throughput_per_s * (1 + 1e-6)


@settings(deadline=None)
@given(tables(OVERLAPPING), mixes)
def test_shares_are_feasible_and_make_the_mix(table: Table, mix: dict[str, int]) -> None:
    bound = throughput_bound(table, OVERLAPPING, mix)
    for unit, load in bound.loads.items():
        assert load <= 1 + 1e-6
        shared = sum(sum(bound.shares[p.name].values()) for p in OVERLAPPING if unit in p.units)
        assert shared == pytest.approx(load, abs=1e-6)
    for model, weight in mix.items():
        made = sum(bound.shares[p].get(model, 0.0) / table[model][p] for p in table[model])
        assert made == pytest.approx(bound.per_model_per_s[model], rel=1e-4)
        wanted = bound.throughput_per_s * weight / sum(mix.values())
        assert bound.per_model_per_s[model] == pytest.approx(wanted)


@settings(deadline=None)
@given(tables(OVERLAPPING), mixes)
def test_prices_prove_the_bound_to_be_optimal(table: Table, mix: dict[str, int]) -> None:
    """Strong duality and complementary slackness."""
    bound = throughput_bound(table, OVERLAPPING, mix)
    total = sum(mix.values())
    assert sum(bound.unit_prices.values()) == pytest.approx(bound.throughput_per_s, rel=1e-6)
    weighted = sum(bound.model_prices[m] * mix[m] / total for m in mix)
    assert weighted == pytest.approx(1.0, rel=1e-6)
    for unit, price in bound.unit_prices.items():
        assert price >= 0
        if price > 1e-6 * bound.throughput_per_s:
            assert bound.loads[unit] == pytest.approx(1.0, abs=1e-6)
    for model, row in table.items():
        for name, seconds in row.items():
            cost, worth = seconds * bound.prices[name], bound.model_prices[model]
            assert cost >= worth - 1e-6 * max(1.0, cost)
            if bound.shares[name].get(model, 0.0) > 1e-6:
                assert cost == pytest.approx(worth, rel=1e-5, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(tables(DISJOINT), mixes, st.sets(st.sampled_from([p.name for p in DISJOINT])))
def test_one_model_limit_equals_trying_every_choice(
    table: Table, mix: dict[str, int], limited: set[str]
) -> None:
    best = 0.0
    for choice in itertools.product(MODELS, repeat=len(limited)):
        held = dict(zip(sorted(limited), choice, strict=True))
        kept = {
            m: {k: t for k, t in row.items() if held.get(k, m) == m} for m, row in table.items()
        }
        if all(kept.values()):
            best = max(best, throughput_bound(kept, DISJOINT, mix).throughput_per_s)
    assume(best > 0)
    found = throughput_bound(table, DISJOINT, mix, one_model=limited)
    assert found.throughput_per_s == pytest.approx(best, rel=1e-5)
    assert all(len(found.shares[name]) <= 1 for name in limited)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_bound_scales_with_the_unit_of_time(scale: float) -> None:
    table = {m: {k: t * scale for k, t in row.items()} for m, row in BOARD_S.items()}
    bound = throughput_bound(table, BOARD, EQUAL)
    assert bound.throughput_per_s * scale == pytest.approx(101.0573, rel=1e-6)


def test_two_ways_to_use_the_same_cores_are_not_added_up() -> None:
    cores = OVERLAPPING[:3]
    table = {"a": {"c0": 1.0, "c1": 1.0, "both": 0.5}}
    assert throughput_bound(table, cores, {"a": 1}).throughput_per_s == pytest.approx(2.0)


@given(st.floats(0.1, 100.0))
def test_sustainable_factor_times_the_rates_is_the_bound(rate: float) -> None:
    rates = {"MobileNetV2": 2 * rate, "ResNet50": rate, "ResNet101": 0.0}
    factor = sustainable_factor(BOARD_S, BOARD, rates)
    bound = throughput_bound(BOARD_S, BOARD, rates)
    assert factor * sum(rates.values()) == pytest.approx(bound.throughput_per_s)
    assert "ResNet101" not in bound.per_model_per_s


def least_load_s(table: Table, processors: tuple[Processor, ...], jobs: list[str]) -> float:
    best = math.inf
    for names in itertools.product(*(sorted(table[model]) for model in jobs)):
        placed = list(zip(jobs, names, strict=True))
        load = {
            unit: sum(table[m][k] for m, k in placed if k == p.name)
            for p in processors
            for unit in p.units
        }
        best = min(best, max(load.values()))
    return best


@settings(deadline=None, max_examples=30)
@given(tables(DISJOINT), st.fixed_dictionaries({m: st.integers(0, 2) for m in MODELS}))
def test_makespan_is_the_best_of_all_assignments(table: Table, counts: dict[str, int]) -> None:
    jobs = [model for model, count in counts.items() for _ in range(count)]
    assume(jobs)
    found = makespan(table, DISJOINT, counts)
    assert found.proven
    assert found.seconds == pytest.approx(least_load_s(table, DISJOINT, jobs), rel=1e-6)
    assert found.lower_bound_s == pytest.approx(found.seconds, rel=1e-5)
    done = {m: sum(row.get(m, 0) for row in found.counts.values()) for m in counts}
    assert done == counts
    bound = throughput_bound(table, DISJOINT, counts).throughput_per_s
    assert len(jobs) / found.seconds <= bound * (1 + 1e-6)


def test_makespan_approaches_the_bound_from_below() -> None:
    reached = []
    for count in (5, 50):
        found = makespan(BOARD_S, BOARD, dict.fromkeys(BOARD_S, count))
        reached.append(3 * count / found.seconds)
    assert reached[0] < reached[1] <= 101.0573
    assert reached[1] > 0.985 * 101.057


def test_makespan_keeps_one_model_per_limited_processor() -> None:
    counts = dict.fromkeys(BOARD_S, 20)
    limited = makespan(BOARD_S, BOARD, counts, one_model={"NCS2", "TPU"})
    assert all(len(limited.counts[name]) <= 1 for name in ("NCS2", "TPU"))
    assert limited.seconds >= makespan(BOARD_S, BOARD, counts).seconds


def test_a_model_that_no_processor_runs_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'ghost'.*CPU, NCS2, TPU, NPU"):
        throughput_bound(BOARD_S, BOARD, {**EQUAL, "ghost": 1.0})


def test_a_model_that_is_not_asked_for_needs_no_processor() -> None:
    bound = throughput_bound(BOARD_S, BOARD, {**EQUAL, "ghost": 0.0})
    assert bound.throughput_per_s == pytest.approx(101.057, abs=0.001)


@pytest.mark.parametrize("mix", [{}, {"ResNet50": 0.0}, {"ResNet50": -1.0}, {"ResNet50": math.nan}])
def test_a_mix_without_sense_is_refused(mix: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="mix"):
        throughput_bound(BOARD_S, BOARD, mix)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_a_time_without_sense_names_model_and_processor(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=r"'a'.*'p'"):
        throughput_bound({"a": {"p": seconds}}, [processor("p")], {"a": 1.0})


def test_limiting_an_unknown_processor_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="NCS3"):
        throughput_bound(BOARD_S, BOARD, EQUAL, one_model={"NCS3"})


def test_limits_that_leave_a_model_without_a_processor_are_refused() -> None:
    only = [processor("p")]
    table = {"a": {"p": 1.0}, "b": {"p": 1.0}}
    with pytest.raises(ConfigurationError, match="hold one model only cannot hold all of a, b"):
        throughput_bound(table, only, {"a": 1, "b": 1}, one_model={"p"})
    with pytest.raises(ConfigurationError, match="hold one model only cannot hold all of a, b"):
        makespan(table, only, {"a": 1, "b": 1}, one_model={"p"})


def test_a_count_that_is_no_integer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"2\.5"):
        makespan(BOARD_S, BOARD, {"ResNet50": 2.5})  # type: ignore[dict-item]


def test_processors_without_units_do_not_exclude_each_other() -> None:
    bare = [Processor(name=n, backend="null", units=frozenset()) for n in ("p", "q")]
    bound = throughput_bound({"a": {"p": 1.0, "q": 1.0}}, bare, {"a": 1})
    assert bound.throughput_per_s == pytest.approx(2.0)
