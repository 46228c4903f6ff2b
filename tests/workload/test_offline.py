"""Finite counts that are all due at the start."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from coinfer.errors import ConfigurationError, ScenarioError
from coinfer.workload.load import Due, Load
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario

MODELS = "models: {a: zoo:lenet, b: zoo:lenet}\n"


def offline(order: str = "shuffled", a: int = 6, b: int = 3, seed: int = 0) -> Scenario:
    return parse_scenario(
        f"{MODELS}arrivals: {{offline: {{counts: {{a: {a}, b: {b}}}, order: {order}}}}}\n"
        f"seed: {seed}\n"
    )


def dues(scenario: Scenario) -> list[Due]:
    load = Load(scenario)
    found, following = [], load.initial()
    while following:
        [due] = following
        found.append(due)
        following = load.after_due(due)
    return found


@pytest.mark.parametrize("order", ["shuffled", "interleaved", "grouped"])
def test_as_many_as_counted_are_due_at_once_in_every_order(order: str) -> None:
    found = dues(offline(order))
    assert Counter(due.model for due in found) == {"a": 6, "b": 3}
    assert {due.time_s for due in found} == {0.0}
    assert [due.index for due in found if due.model == "a"] == list(range(6))


def test_orders_are_what_they_say() -> None:
    assert "".join(due.model for due in dues(offline("grouped"))) == "aaaaaabbb"
    assert "".join(due.model for due in dues(offline("interleaved"))) == "abaabaaba"


def test_a_shuffle_follows_the_seed() -> None:
    one, two = (dues(offline(a=50, b=50, seed=seed)) for seed in (0, 1))
    assert one == dues(offline(a=50, b=50, seed=0))
    assert one != two


def test_an_answer_asks_for_nothing_more() -> None:
    load = Load(offline())
    [due] = load.initial()
    assert load.after_answer(due, 1.0, True) == []


def test_the_mix_is_that_of_the_counts_and_there_are_no_rates() -> None:
    load = Load(offline())
    assert load.offered_mix() == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert load.offered_rates_per_s() is None


def test_it_begins_at_once_and_ends_by_itself() -> None:
    scenario = offline()
    assert (scenario.begin_s, scenario.end_s) == (0.0, math.inf)
    assert scenario.mix is None
    assert scenario.processes == {}


def test_a_duration_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lasts until all is answered"):
        offline().with_options(duration_s=3.0)


def test_writing_and_reading_again_gives_the_same() -> None:
    # Only what was written: a duration has no meaning here.
    text = offline("grouped").model_dump_json(by_alias=True, exclude_unset=True)
    assert parse_scenario(text) == offline("grouped")


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [
        ("{offline: {}}", "arrivals.offline.counts: is missing; add it"),
        ("{offline: {counts: {}}}", "arrivals.offline.counts: must not be empty"),
        ("{offline: {counts: {a: 1, b: 0}}}", "counts.b: must be at least 1, is 0"),
        ("{offline: {counts: {a: 1, b: 1.5}}}", "counts.b: expected a whole number, got 1.5"),
        ("{offline: {counts: {a: 1, c: 1}}}", "counts.c: unknown model 'c'"),
        ("{offline: {counts: {a: 1}}}", "model 'b' gets no requests"),
        ("{offline: {counts: {a: 1, b: 1}, order: up}}", "order: must be one of 'shuffled'"),
        (
            "{offline: {counts: {a: 600, b: 600}}}",
            "1200 requests in flight exceed the admission limit of 1000",
        ),
        ("{offline: {counts: {a: 1, b: 1}}}\nduration: 3s", "3: duration: has no meaning for an"),
        ("{offline: {counts: {a: 1, b: 1}}}\nwarmup: 3s", "3: warmup: has no meaning for an"),
    ],
)
def test_a_wrong_offline_load_names_field_and_remedy(arrivals: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(f"{MODELS}arrivals: {arrivals}\n", origin="s.yaml")
    assert message in str(caught.value)


# --- machines ---------------------------------------------------------------------------------


def test_models_need_no_source_where_a_file_describes_the_machine() -> None:
    scenario = parse_scenario(
        "machine: boards/b.yaml\nmodels: {a: {}}\narrivals: {a: {closed: 1}}\n", base=Path("/dir")
    )
    assert scenario.machine == Path("/dir/boards/b.yaml")
    assert scenario.models["a"].source == ""


def test_models_need_a_source_on_this_machine() -> None:
    with pytest.raises(ScenarioError, match=r"s\.yaml:2: models\.a\.source: is missing; add it"):
        parse_scenario("models:\n  a: {}\narrivals: {a: {closed: 1}}\n", origin="s.yaml")
