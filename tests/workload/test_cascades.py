"""Cascades: what comes after what, for which frames, and what is refused."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise

import pytest

from coinfer.errors import ScenarioError
from coinfer.workload.arrivals import After, PoissonCount
from coinfer.workload.cascades import most_per_frame, root_of
from coinfer.workload.load import Due, Load
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario
from coinfer.workload.trigger import Trigger

SIGMAS = 6.0


def scenario(arrivals: str, more: str = "", models: str = "") -> Scenario:
    models = models or "{a: zoo:lenet, b: zoo:lenet, c: zoo:lenet}"
    return parse_scenario(
        f"models: {models}\narrivals: {arrivals}\nduration: 10s\nwarmup: 0\n{more}", origin="s.yaml"
    )


CHAIN = "{a: {periodic: 100/s}, b: {after: a, probability: 0.5}, c: {after: b}}"


def frames(load: Load, model: str) -> list[Due]:
    """All dues of an open stream."""
    following = [due for due in load.initial() if due.model == model]
    found = []
    while following:
        found += following
        following = load.after_due(following[0])
    return found


# --- triggers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.02, 0.2, 0.5, 0.97])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_as_many_frames_trigger_as_the_probability_says(probability: float, seed: int) -> None:
    n = 20_000
    trigger = Trigger(seed, "b", probability)
    hits = sum(trigger(index) for index in range(n))
    assert abs(hits - n * probability) < SIGMAS * (n * probability * (1 - probability)) ** 0.5


def test_consecutive_frames_trigger_independently() -> None:
    n, trigger = 20_000, Trigger(3, "b", 0.3)
    coins = [trigger(index) for index in range(n + 1)]
    both = sum(one and other for one, other in pairwise(coins))
    assert abs(both - n * 0.09) < SIGMAS * (n * 0.09 * 0.91) ** 0.5 * 1.5


def test_triggers_of_two_models_and_of_two_seeds_are_independent() -> None:
    n, first = 20_000, Trigger(0, "b", 0.5)
    for other in (Trigger(0, "c", 0.5), Trigger(1, "b", 0.5)):
        same = sum(first(index) == other(index) for index in range(n))
        assert abs(same - n / 2) < SIGMAS * (n / 4) ** 0.5


def test_a_certain_trigger_fires_for_every_frame() -> None:
    assert all(Trigger(seed, "b", 1.0)(index) for seed in range(3) for index in range(5_000))


def test_the_generator_is_splitmix64() -> None:
    # The first outputs for the state 0, as in the reference implementation.
    trigger = Trigger(0, "b", 0.5)
    trigger._key = 0
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    for index, output in enumerate(outputs):
        trigger._below = output
        assert not trigger(index)
        trigger._below = output + 1
        assert trigger(index)


# --- counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.01, 0.5, 4, 300])
@pytest.mark.parametrize("probability", [1.0, 0.3])
def test_poisson_counts_have_the_distribution_of_poisson(mean: float, probability: float) -> None:
    n = 20_000
    trigger = Trigger(0, "b", probability, PoissonCount(poisson=mean))
    counts = [trigger(index) for index in range(n)]
    # Of a count that is 0 with the probability that nothing follows at all.
    variance = probability * (mean + mean**2) - (probability * mean) ** 2
    assert abs(sum(counts) - n * probability * mean) < SIGMAS * (n * variance) ** 0.5
    for few in range(3):
        pmf = math.exp(few * math.log(mean) - mean - math.lgamma(few + 1))
        share = probability * pmf + (1 - probability if few == 0 else 0)
        assert abs(counts.count(few) - n * share) <= SIGMAS * (n * share * (1 - share)) ** 0.5


def test_poisson_counts_are_what_the_inverted_distribution_says_and_end_at_the_largest() -> None:
    process = After(after="a", count={"poisson": 4})
    trigger = Trigger(0, "b", 1.0, process.count)
    trigger._key = 0
    # The first outputs of SplitMix64 for the state 0 are 0.883, 0.432, 0.027 and 0.974 of 2**64.
    assert [trigger(index) for index in range(4)] == [6, 3, 1, 8]
    assert process.largest_count == 34
    assert len(trigger._more) == 34
    assert sorted(trigger._more) == trigger._more


def test_the_same_frames_are_followed_with_and_without_a_count() -> None:
    coin = Trigger(5, "b", 0.25)
    one, three = Trigger(5, "b", 0.25, 1), Trigger(5, "b", 0.25, 3)
    assert [one(index) for index in range(500)] == [coin(index) for index in range(500)]
    assert [three(index) for index in range(500)] == [3 * coin(index) for index in range(500)]


# --- loads ------------------------------------------------------------------------------------


def test_a_follower_is_submitted_at_the_answer_and_counts_from_the_frame() -> None:
    load = Load(scenario("{a: {periodic: 10/s}, b: {after: a}, c: {after: b}}"))
    second = frames(load, "a")[1]
    [after_a] = load.after_answer(second, 0.25, True)
    assert (after_a.time_s, after_a.due_s, after_a.index, after_a.model) == (0.25, 0.1, 1, "b")
    [after_b] = load.after_answer(after_a, 0.75, True)
    assert (after_b.time_s, after_b.due_s, after_b.index, after_b.model) == (0.75, 0.1, 1, "c")
    assert load.after_answer(after_b, 1.0, True) == []


def test_which_frames_trigger_does_not_depend_on_the_order_of_answers() -> None:
    def triggered(order: list[Due]) -> set[int]:
        load = Load(scenario(CHAIN, "seed: 7\n"))
        return {b.index for due in order for b in load.after_answer(due, due.time_s + 1, True)}

    dues = frames(Load(scenario(CHAIN, "seed: 7\n")), "a")
    mixed = random.Random(0).sample(dues, len(dues))
    assert 350 < len(triggered(dues)) < 650
    assert triggered(dues) == triggered(mixed)


def test_a_frame_that_fails_withholds_exactly_what_it_would_have_set_off() -> None:
    good, bad = Load(scenario(CHAIN)), Load(scenario(CHAIN))
    dues = frames(good, "a")
    set_off = sum(len(good.after_answer(due, due.time_s, True)) for due in dues)
    assert all(bad.after_answer(due, due.time_s, False) == [] for due in dues)
    # c comes after every b: it is lost with it.
    assert bad.withheld == {"b": set_off, "c": set_off}
    assert good.withheld == {}


def test_only_frames_of_the_measuring_window_are_withheld() -> None:
    arrivals = "{a: {periodic: 10/s}, b: {after: a}}"
    wanted = parse_scenario(
        f"models: {{a: x, b: x}}\narrivals: {arrivals}\nduration: 2s\nwarmup: 1s\n"
    )
    load = Load(wanted)
    for due in frames(load, "a"):
        load.after_answer(due, 99.0, False)
    assert load.withheld == {"b": 20}


def test_one_model_may_set_off_several_and_a_closed_loop_may_too() -> None:
    load = Load(scenario("{a: {closed: 1}, b: {after: a}, c: {after: a}}"))
    [first] = load.initial()
    following = load.after_answer(first, 0.5, True)
    assert sorted((due.model, due.time_s, due.due_s) for due in following) == [
        ("a", 0.5, 0.5),
        ("b", 0.5, 0.0),
        ("c", 0.5, 0.0),
    ]
    assert load.offered_rates_per_s() is None
    assert load.open_rates_per_s() == {}


def test_rates_and_mix_account_for_probabilities_in_any_order() -> None:
    wanted = scenario("{c: {after: b}, b: {after: a, probability: 0.25}, a: {periodic: 8/s}}")
    load = Load(wanted)
    assert load.offered_rates_per_s() == {"c": 2.0, "b": 2.0, "a": 8.0}
    assert load.offered_mix() == {"c": 1 / 6, "b": 1 / 6, "a": 4 / 6}
    assert Load(wanted.scaled(0.5)).offered_rates_per_s() == {"c": 1.0, "b": 1.0, "a": 4.0}


def test_all_followers_of_a_frame_are_submitted_at_once_and_count_from_the_frame() -> None:
    load = Load(scenario("{a: {periodic: 10/s}, b: {after: a, count: 3}, c: {after: b, count: 2}}"))
    second = frames(load, "a")[1]
    crops = load.after_answer(second, 0.25, True)
    assert [(due.model, due.time_s, due.due_s) for due in crops] == [("b", 0.25, 0.1)] * 3
    words = [due for crop in crops for due in load.after_answer(crop, 0.5, True)]
    assert [(due.model, due.time_s, due.due_s) for due in words] == [("c", 0.5, 0.1)] * 6


def test_followers_have_numbers_of_their_own_that_no_order_of_answers_changes() -> None:
    arrivals = "{a: {periodic: 100/s}, b: {after: a, count: {poisson: 4}}, c: {after: b, count: 2}}"

    def followers(order: list[Due]) -> dict[int, list[tuple[int, list[int]]]]:
        load = Load(scenario(arrivals, "seed: 7\n"))
        return {
            due.index: [
                (b.index, [c.index for c in load.after_answer(b, 99.0, True)])
                for b in load.after_answer(due, 98.0, True)
            ]
            for due in order
        }

    dues = frames(Load(scenario(arrivals, "seed: 7\n")), "a")
    found = followers(dues)
    assert found == followers(random.Random(0).sample(dues, len(dues)))
    second = [index for of in found.values() for index, _ in of]
    third = [index for of in found.values() for _, indices in of for index in indices]
    assert len(set(second)) == len(second)
    assert len(set(third)) == len(third) == 2 * len(second)
    assert len({len(of) for of in found.values()}) > 5


@pytest.mark.parametrize("n_feeds", [1024, 8, 7, 35, 1000])
@pytest.mark.parametrize("count", ["1", "3", "{poisson: 4}"])
def test_followers_run_through_all_sizes_and_all_feeds_equally_often(
    n_feeds: int, count: str
) -> None:
    arrivals = f"{{a: {{periodic: 1000/s}}, b: {{after: a, count: {count}}}}}"
    load = Load(scenario(arrivals, models="{a: zoo:lenet, b: zoo:lenet}"))
    dues = [b for due in frames(load, "a") for b in load.after_answer(due, 0.0, True)]
    used = Counter(due.index % n_feeds for due in dues)
    fair = len(dues) / n_feeds
    assert len(used) == n_feeds
    assert max(used.values()) - min(used.values()) <= max(2.0, SIGMAS * 2 * fair**0.5)


def test_all_followers_of_a_frame_that_fails_are_withheld() -> None:
    arrivals = (
        "{a: {periodic: 100/s}, b: {after: a, probability: 0.5, count: {poisson: 4}}, "
        "c: {after: b, count: 3}}"
    )
    good, bad = Load(scenario(arrivals)), Load(scenario(arrivals))
    dues = frames(good, "a")
    crops = [b for due in dues for b in good.after_answer(due, due.time_s, True)]
    for due in dues:
        bad.after_answer(due, due.time_s, False)
    assert bad.withheld == {"b": len(crops), "c": 3 * len(crops)}
    assert good.withheld == {}
    good.after_answer(crops[0], 1.0, False)
    assert good.withheld == {"c": 3}


def test_rates_and_mix_account_for_counts() -> None:
    wanted = scenario(
        "{c: {after: b, count: 2}, b: {after: a, probability: 0.5, count: {poisson: 3}}, "
        "a: {periodic: 8/s}}"
    )
    load = Load(wanted)
    assert load.offered_rates_per_s() == {"c": 24.0, "b": 12.0, "a": 8.0}
    assert load.offered_mix() == {"c": 24 / 44, "b": 12 / 44, "a": 8 / 44}


def test_the_most_requests_of_a_frame_are_the_product_of_the_largest_counts() -> None:
    processes = scenario(
        "{a: {periodic: 1}, b: {after: a, count: {poisson: 4}}, c: {after: b, count: 3}}"
    ).processes
    assert [most_per_frame(name, processes) for name in "abc"] == [1, 34, 102]


def test_a_cascade_makes_a_load_react() -> None:
    assert Load(scenario(CHAIN)).reacts
    assert not Load(scenario("{a: {periodic: 1}, b: {periodic: 1}, c: {poisson: 1}}")).reacts


# --- deadlines --------------------------------------------------------------------------------

PERIODS = "{a: {source: x, deadline: period}, b: {source: x, deadline: period, on_late: drop}}"


def test_a_deadline_of_one_period_is_that_of_the_frame_and_follows_the_rate() -> None:
    wanted = scenario("{a: {periodic: 50/s}, b: {after: a}}", models=PERIODS)
    assert [spec.deadline_s for spec in wanted.models.values()] == [0.02, 0.02]
    assert [s.deadline_s for s in wanted.scaled(0.5).models.values()] == [0.04, 0.04]
    assert [s.deadline_s for s in wanted.scaled(0.5).scaled(2.0).models.values()] == [0.02, 0.02]
    halved = wanted.with_options(rate_factor=0.5)
    assert halved.models["a"].deadline_s == 0.04
    assert Load(halved).offered_rates_per_s() == {"a": 25.0, "b": 25.0}


def test_a_stated_deadline_stays_when_the_rate_is_scaled() -> None:
    models = "{a: {source: x, deadline: 20ms}}"
    wanted = scenario("{a: {periodic: 50/s}}", models=models).scaled(0.25)
    assert wanted.models["a"].deadline_s == 0.02


def test_the_rate_factor_of_a_file_scales_deadlines_too() -> None:
    wanted = scenario("{a: {periodic: 50/s}, b: {after: a}}", "rate_factor: 0.5\n", PERIODS)
    assert wanted.models["b"].deadline_s == 0.04
    assert [due.time_s for due in frames(Load(wanted), "a")][:3] == [0.0, 0.04, 0.08]


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        (
            "\n  a: {after: c}\n  b: {after: a}\n  c: {after: b}",
            "s.yaml:3: arrivals.a.after: a after c after b after a is a cycle, which nothing would "
            "start; give one of them arrivals of its own, e.g. {periodic: 30/s}",
        ),
        (
            "\n  a: {periodic: 1/s}\n  b: {after: b}\n  c: {after: b}",
            "s.yaml:4: arrivals.b.after: b after b is a cycle",
        ),
        (
            "\n  a: {after: b}\n  b: {after: c}\n  c: {after: b}",
            "s.yaml:4: arrivals.b.after: b after c after b is a cycle",
        ),
        (
            "{a: {closed: 1}, b: {after: a}, c: {after: bb}}",
            "s.yaml:2: arrivals.c.after: unknown model 'bb'; did you mean 'b'? Known: a, b, c",
        ),
        (
            "{a: {closed: 1}, b: {after: a, probability: 1.5}, c: {after: b}}",
            "s.yaml:2: arrivals.b.probability: must be at most 1, is 1.5",
        ),
        (
            "{a: {closed: 1}, b: {after: a, probability: 0}, c: {after: b}}",
            "s.yaml:2: arrivals.b.probability: must be greater than 0, is 0",
        ),
        (
            "{a: {closed: 1}, b: {after: a, probability: often}, c: {after: b}}",
            "s.yaml:2: arrivals.b.probability: expected a number, got 'often'",
        ),
        (
            "{a: {closed: 1}, b: {after: a, periodic: 3/s}, c: {after: b}}",
            "s.yaml:2: arrivals.b: both after and periodic are given; give exactly one of",
        ),
        (
            "{a: {closed: 1}, b: {after: a, count: 0}, c: {after: b}}",
            "s.yaml:2: arrivals.b.count: must be at least 1, is 0",
        ),
        (
            "{a: {closed: 1}, b: {after: a, count: 1.5}, c: {after: b}}",
            "s.yaml:2: arrivals.b.count: expected a whole number, got 1.5",
        ),
        (
            "\n  a: {closed: 1}\n  b:\n    after: a\n    count: many\n  c: {after: b}",
            "s.yaml:6: arrivals.b.count: expected a whole number or {poisson: MEAN}, got 'many'",
        ),
        (
            "{a: {closed: 1}, b: {after: a, count: [1, 2]}, c: {after: b}}",
            "s.yaml:2: arrivals.b.count: expected a whole number or {poisson: MEAN}, got a list",
        ),
        (
            "{a: {closed: 1}, b: {after: a, count: 200000}, c: {after: b}}",
            "s.yaml:2: arrivals.b.count: must be at most 100000, is 200000",
        ),
        (
            "{a: {closed: 1}, b: {after: a, count: {poisson: 0}}, c: {after: b}}",
            "s.yaml:2: arrivals.b.count.poisson: must be greater than 0, is 0",
        ),
        (
            "{a: {closed: 1}, b: {after: a, count: {poisson: 4, cv: 2}}, c: {after: b}}",
            "s.yaml:2: arrivals.b.count.cv: unknown field 'cv'; known: poisson",
        ),
        (
            "{a: {closed: 1}, b: {after: a, count: {}}, c: {after: b}}",
            "s.yaml:2: arrivals.b.count.poisson: is missing; add it",
        ),
        (
            "{a: {closed: 1}, b: {after: a, count: {poisson: 1000.5}}, c: {after: b}}",
            "s.yaml:2: arrivals.b.count: 1000.5 requests at once exceed the admission limit of "
            "1000; lower it or raise `admission_limit`",
        ),
        (
            "{a: {closed: 1}, b: {after: a, propability: 0.1}, c: {after: b}}",
            "field 'propability'; did you mean 'probability'? Known: after, count, probability",
        ),
    ],
)
def test_an_impossible_cascade_is_one_clear_line(arrivals: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(arrivals)
    assert expected in str(caught.value)
    assert str(caught.value).count("s.yaml:") == 1


@pytest.mark.parametrize(
    ("arrivals", "models", "more", "expected"),
    [
        (
            "{a: {poisson: 5/s}, b: {after: a}}",
            "\n  a: x\n  b: {source: x, deadline: period}",
            "",
            "s.yaml:3: models.b.deadline: its requests have no period; state a time like 33ms",
        ),
        (
            "{mix: {in_flight: 1}}",
            "{a: {source: x, deadline: period}}",
            "",
            "s.yaml:1: models.a.deadline: its requests have no period",
        ),
        (
            "{a: {periodic: 5/s}}",
            "{a: {source: x, deadline: periods}}",
            "",
            "s.yaml:1: models.a.deadline: 'periods' is not a duration",
        ),
        (
            "{a: {periodic: 5/s}}",
            "{a: {source: x, deadline: 0}}",
            "",
            "s.yaml:1: models.a.deadline: must be greater than 0",
        ),
        (
            "{a: {periodic: 5/s}}",
            "{a: x}",
            "score: xrbench\n",
            "s.yaml:1: models.a.deadline: is missing; the score xrbench needs it",
        ),
        (
            "{a: {periodic: 5/s}}",
            "{a: x}",
            "score: xrbanch\n",
            "s.yaml:5: score: must be one of 'xrbench', is 'xrbanch'",
        ),
        (
            "{a: {periodic: 5/s}}",
            "{a: x}",
            "rate_factor: 0\n",
            "s.yaml:5: rate_factor: must be greater than 0, is 0",
        ),
    ],
)
def test_a_deadline_or_score_without_sense_is_named(
    arrivals: str, models: str, more: str, expected: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(arrivals, more, models)
    assert expected in str(caught.value)


def test_the_root_of_a_cascade_is_what_starts_it() -> None:
    processes = scenario(CHAIN).processes
    assert [root_of(name, processes) for name in "abc"] == ["a", "a", "a"]
