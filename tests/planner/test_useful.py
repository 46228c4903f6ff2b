"""Pruning drops what no scheduler would want, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.planner.passes.threads import within_pools
from coinfer.planner.useful import WIDE_GAIN, useful

SECONDS = st.floats(0.001, 1.0)


@st.composite
def machines(draw: st.DrawFn) -> tuple[Profile, list[Processor], set[tuple[str, str]]]:
    """Processors over up to three cores, a profile with gaps, and pairs to keep."""
    sets = draw(st.lists(st.frozensets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=7))
    processors = [
        Processor(name=f"p{index}", backend="null", units=units, threads=len(units))
        for index, units in enumerate(sets)
    ]
    names = [processor.name for processor in processors]
    row = st.dictionaries(st.sampled_from(names), SECONDS, min_size=1)
    table = draw(st.dictionaries(st.sampled_from("xyz"), row, min_size=1))
    pairs = [(model, name) for model, cells in table.items() for name in cells]
    keep = draw(st.sets(st.sampled_from(pairs)))
    return Profile.from_seconds(table), processors, keep


def times(profile: Profile, model: str) -> dict[str, float]:
    return {k.processor: e.mean_s for k, e in profile if k.model == model}


@given(machines())
def test_every_model_keeps_an_entry_and_every_kept_pair_stays(case) -> None:
    profile, processors, keep = case
    left = useful(profile, processors, keep=keep)
    assert set(left.models()) == set(profile.models())
    assert keep <= {(key.model, key.processor) for key in left.entries}
    assert left.entries.items() <= profile.entries.items()


@given(machines())
def test_whatever_goes_is_replaced_by_one_on_its_own_units_that_takes_hardly_longer(case) -> None:
    profile, processors, keep = case
    left = useful(profile, processors, keep=keep)
    units = {processor.name: processor.units for processor in processors}
    for model in profile.models():
        stay = times(left, model)
        for name, seconds in times(profile, model).items():
            assert name in stay or any(
                units[other] <= units[name] and WIDE_GAIN * others_s < seconds * (1 + 1e-12)
                for other, others_s in stay.items()
            )


@given(machines())
def test_the_fastest_stays_unless_a_smaller_one_is_nearly_as_fast(case) -> None:
    profile, processors, _ = case
    left = useful(profile, processors)
    for model in profile.models():
        before, after = times(profile, model), times(left, model)
        assert WIDE_GAIN * min(after.values()) <= min(before.values()) * (1 + 1e-12)


@given(machines())
def test_without_kept_pairs_no_two_that_stay_occupy_the_same_units(case) -> None:
    profile, processors, _ = case
    left = useful(profile, processors)
    units = {processor.name: processor.units for processor in processors}
    for model in left.models():
        used = [units[name] for name in times(left, model)]
        assert len(used) == len(set(used))


@given(machines())
def test_pruning_twice_is_pruning_once(case) -> None:
    profile, processors, keep = case
    left = useful(profile, processors, keep=keep)
    assert useful(left, processors, keep=keep) == left


def on(name: str, *cores: str) -> Processor:
    return Processor(name=name, backend="null", units=frozenset(cores), threads=len(cores))


def test_of_two_backends_on_a_core_each_model_keeps_the_faster() -> None:
    profile = Profile.from_seconds({"a": {"cpu": 1.0, "ov": 2.0}, "b": {"cpu": 2.0, "ov": 1.0}})
    left = useful(profile, [on("cpu", "0"), on("ov", "0")])
    assert {(k.model, k.processor) for k in left.entries} == {("a", "cpu"), ("b", "ov")}


@pytest.mark.parametrize(("wide_s", "stays"), [(0.55, True), (0.95, False), (1.2, False)])
def test_a_wide_processor_stays_only_if_it_is_clearly_faster(wide_s: float, stays: bool) -> None:
    profile = Profile.from_seconds({"a": {"one": 1.0, "both": wide_s}})
    left = useful(profile, [on("one", "0"), on("both", "0", "1")])
    assert ("both" in left.processors()) is stays


def test_a_chain_of_small_gains_does_not_lose_a_large_one() -> None:
    table = {"a": {"one": 1.0, "two": 0.91, "three": 0.83}}
    chain = [on("one", "0"), on("two", "0", "1"), on("three", "0", "1", "2")]
    assert useful(Profile.from_seconds(table), chain).processors() == ("one", "three")


def test_of_two_equally_fast_the_first_listed_stays() -> None:
    profile = Profile.from_seconds({"a": {"second": 1.0, "first": 1.0}})
    assert useful(profile, [on("first", "0"), on("second", "0")]).processors() == ("first",)


def test_entries_of_processors_that_are_not_in_use_go() -> None:
    profile = Profile.from_seconds({"a": {"cpu": 1.0, "gone": 0.1}})
    assert useful(profile, [on("cpu", "0")]).processors() == ("cpu",)


NARROW_AND_WIDE = [on("one", "0"), on("both", "0", "1")]


def copies(count: int, *names: str) -> Profile:
    return Profile.from_seconds({f"m{i}": dict.fromkeys(names, 1.0) for i in range(count)})


def test_pools_that_fit_stay() -> None:
    profile = copies(4, "one", "both")
    assert within_pools(profile, NARROW_AND_WIDE, threads=8) == profile


def test_pools_that_do_not_fit_go_altogether_except_where_they_are_kept() -> None:
    keep = {("m2", "both")}
    left = within_pools(copies(5, "one", "both"), NARROW_AND_WIDE, threads=8, keep=keep)
    assert {k.model for k in left.entries if k.processor == "both"} == {"m2"}
    assert len(left.models()) == 5


def test_the_few_that_gain_far_more_by_a_wide_processor_keep_it() -> None:
    """One large network beside eight small ones, which hardly gain by a second thread."""
    small = {f"small{at}": {"one": 2e-4, "both": 1.5e-4} for at in range(8)}
    profile = Profile.from_seconds({**small, "large": {"one": 0.14, "both": 0.07}})
    left = within_pools(profile, NARROW_AND_WIDE, threads=16)
    assert {k.model for k in left.entries if k.processor == "both"} == {"large"}
    assert len(left.models()) == 9
    assert within_pools(profile, NARROW_AND_WIDE, threads=1).processors() == ("one",)
    batched = {key._replace(batch=2): entry for key, entry in profile.entries.items()}
    several = Profile({**profile.entries, **batched})  # in the same sessions
    left = within_pools(several, NARROW_AND_WIDE, threads=2)
    assert {k.model for k in left.entries if k.processor == "both"} == {"large"}


def test_of_those_that_gain_alike_none_is_preferred() -> None:
    seconds = {f"m{at}": {"one": 0.1 + 0.01 * at, "both": 0.06} for at in range(9)}
    left = within_pools(Profile.from_seconds(seconds), NARROW_AND_WIDE, threads=16)
    assert left.processors() == ("one",)


def test_a_model_that_only_a_wide_processor_runs_keeps_it() -> None:
    assert len(within_pools(copies(9, "both"), NARROW_AND_WIDE, threads=8).entries) == 9


def test_each_span_of_a_model_that_is_cut_holds_a_pool_of_its_own() -> None:
    """Four spans on `both` are 8 threads, where a whole model would hold 2."""
    seconds = Measurement(seconds=(1.0,))
    spans = [Span(i, i) for i in range(4)]
    entries = {ProfileKey("m", name, 1, s): seconds for name in ("one", "both") for s in spans}
    profile = Profile(entries)
    assert within_pools(profile, NARROW_AND_WIDE, threads=8) == profile
    assert within_pools(profile, NARROW_AND_WIDE, threads=7).processors() == ("one",)


def test_a_wide_processor_stays_where_the_others_do_not_reach_the_end_of_a_model() -> None:
    seconds = Measurement(seconds=(1.0,))
    keys = [ProfileKey("m", "one", 1, Span(0, 0)), ProfileKey("m", "both", 1, Span(1, 1))]
    profile = Profile(dict.fromkeys(keys, seconds))
    assert within_pools(profile, NARROW_AND_WIDE, threads=0) == profile


@pytest.mark.parametrize(
    ("dense_ms", "dense_mib", "light_mib", "stays"),
    [
        (10.0, 100, 40, "light"),  # as fast, and lighter
        (9.8, 100, 40, "light"),  # hardly faster
        (9.6, 100, 40, "dense"),  # faster
        (9.8, 100, 120, "light"),  # two share what takes 120
        (9.8, 100, 240, "dense"),
        (9.8, 100, 198, "dense"),  # as heavy
        (9.8, 0, 40, "dense"),  # nobody knows what it takes
    ],
)
def test_of_two_that_are_as_fast_the_lighter_one_stays(
    dense_ms: float, dense_mib: int, light_mib: int, stays: str
) -> None:
    processors = [
        Processor(name=f"{kind}{n}", backend="null", units=frozenset({f"core{n}"}))
        for kind in ("dense", "light")
        for n in range(2)
    ]
    rows = {"dense": (dense_ms, dense_mib), "light": (10.0, light_mib)}
    profile = Profile(
        {
            ProfileKey("m", f"{kind}{n}"): Measurement(
                seconds=(1e-3 * ms,), resident_bytes=size * 2**20
            )
            for kind, (ms, size) in rows.items()
            for n in range(2)
        }
    )
    left = useful(profile, processors, shares={"light1": "light0"})
    assert {key.processor for key, _ in left} == {f"{stays}0", f"{stays}1"}
    unweighed = useful(profile, processors)
    assert {key.processor for key, _ in unweighed} == {"dense0", "dense1"}
