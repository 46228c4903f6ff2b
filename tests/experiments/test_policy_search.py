"""The search finds what is clearly better, also where times are off, within its budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from coinfer.core.policy import Policy, Start
from coinfer.core.view import View
from coinfer.errors import PolicyError
from coinfer.experiments.policy_candidates import candidates
from coinfer.experiments.policy_search import OFF_BY, Found, PolicySearch, Way
from coinfer.experiments.promises import Figures
from coinfer.plan import Plan, PolicyChoice
from coinfer.policies import registry
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from sim.machines import machine, scenario

PLAN = Plan.of(machine({"m": {"p": 0.004}}))
LOAD = Scenario.model_validate(
    {
        "models": {"m": {"source": "zoo:lenet", "deadline": 0.02}},
        "arrivals": {"m": {"poisson": 100.0}},
    }
)
DEFAULT, OTHER = PolicyChoice(), PolicyChoice(name="fcfs")


class Judged(PolicySearch):
    """A search whose simulations end as a table says, by name of the policy and factor."""

    __slots__ = ("table",)
    table: Mapping[str, Mapping[float, float]]

    def _figures(self, way: Way, load: Scenario, off_by: float) -> Figures:
        share = self.table[way.policy.name][off_by]
        return (0.0, share, 1.0)


def judged(**table: tuple[float, float]) -> Found:
    """Search among policies whose shares in time are given, exact and with times that are off."""
    search = Judged(scenario=LOAD, forms={"": PLAN}, budget=1000)
    search.table = {name: {1.0: one, OFF_BY: other} for name, (one, other) in table.items()}
    return search.find([PolicyChoice(name=name) for name in table])


def chosen(found: Found) -> str:
    return str(found.tried[0].way)


def test_what_is_better_in_both_is_chosen() -> None:
    assert chosen(judged(earliest_finish=(0.7, 0.6), edf=(0.8, 0.7), fcfs=(0.75, 0.72))) == "edf"


def test_what_wins_only_on_exact_times_is_not() -> None:
    assert chosen(judged(earliest_finish=(0.7, 0.6), edf=(0.99, 0.5), fcfs=(0.7, 0.6))) == (
        "earliest_finish"
    )


def test_what_is_as_good_as_the_default_does_not_replace_it() -> None:
    assert chosen(judged(earliest_finish=(0.9, 0.8), edf=(0.902, 0.802))) == "earliest_finish"


def test_the_default_is_in_the_last_round_however_bad_it_is() -> None:
    table = dict.fromkeys(["edf", "fcfs", "sjf", "heft", "min_min", "max_min"], (0.9, 0.9))
    found = judged(earliest_finish=(0.1, 0.1), **table)
    assert chosen(found) != "earliest_finish"
    last = [each.way.policy.name for each in found.tried[: found.finalists]]
    assert "earliest_finish" in last
    assert sorted(each.way.policy.name for each in found.tried) == sorted(
        ["earliest_finish", *table]
    )


@pytest.mark.parametrize("budget", [2000, 8000])
def test_it_keeps_to_its_budget_and_tells_how_far_it_is(budget: int) -> None:
    told: list[int] = []
    wanted = scenario({"m": {"poisson": 100.0}}, duration=1000.0)
    search = PolicySearch(scenario=wanted, forms={"": PLAN}, budget=budget, tell=told.append)
    names = ["earliest_finish", "edf", "fcfs", "sjf", "round_robin", "affinity"]
    found = search.find([PolicyChoice(name=name) for name in names])
    assert found.requests == pytest.approx(budget, rel=0.5)
    assert told == sorted(told)
    assert told[-1] <= found.requests


def test_no_more_is_simulated_than_the_scenario_has() -> None:
    wanted = scenario({"offline": {"counts": {"m": 30}}})
    found = PolicySearch(scenario=wanted, forms={"": PLAN}, budget=10**6).find([DEFAULT, OTHER])
    assert found.requests == 2 * 2 * 30


def test_two_searches_find_the_same() -> None:
    policies, _ = candidates(LOAD, PLAN)
    one, other = (
        PolicySearch(scenario=LOAD, forms={"": PLAN}, budget=2000).find(policies) for _ in "ab"
    )
    assert one == other


def test_forms_of_the_plan_are_tried_with_the_best_and_must_be_clearly_better() -> None:
    fast = Plan.of(machine({"m": {"p": 0.001}}))
    heavy = scenario({"m": {"closed": 2}})
    for forms, form in (({"": PLAN, "fast": fast}, "fast"), ({"": PLAN, "same": PLAN}, "")):
        found = PolicySearch(scenario=heavy, forms=forms, budget=2000).find([DEFAULT, OTHER])
        assert found.tried[0].way.form == form


@dataclass(kw_only=True)
class Raises(Policy):
    """A policy of another package, with a fault."""

    def decide(self, view: View) -> Iterator[Start]:
        raise ValueError("nobody home")
        yield


@dataclass(kw_only=True)
class NeedsMuch(Raises):
    much: int


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = __name__
    points = EntryPoints(
        EntryPoint(name, f"{here}:{name}", "coinfer.policies") for name in ("Raises", "NeedsMuch")
    )
    monkeypatch.setattr(registry, "entry_points", lambda **which: points.select(**which))


@pytest.mark.usefixtures("installed")
def test_a_policy_of_another_package_is_tried_and_its_fault_is_told() -> None:
    policies, refused = candidates(LOAD, PLAN)
    assert policies[0] == DEFAULT
    assert PolicyChoice(name="Raises") in policies
    assert [each.name for each in refused] == ["NeedsMuch"]
    assert "'much': is required" in refused[0].why
    search = PolicySearch(scenario=LOAD, forms={"": PLAN}, budget=1000)
    found = search.find([DEFAULT, PolicyChoice(name="Raises")])
    assert chosen(found) == "earliest_finish"
    [fault] = found.refused
    assert fault.name == "Raises"
    assert "nobody home" in fault.why


@pytest.mark.usefixtures("installed")
def test_a_fault_of_the_default_is_not_passed_over() -> None:
    search = PolicySearch(scenario=LOAD, forms={"": PLAN}, budget=1000)
    with pytest.raises(PolicyError, match="nobody home"):
        search.find([PolicyChoice(name="Raises"), OTHER])


def test_every_policy_is_a_candidate_and_fixed_has_the_mapping_that_balances_best() -> None:
    two = Plan.of(machine({"a": {"p": 0.004, "q": 0.008}, "b": {"p": 0.004, "q": 0.008}}))
    wanted = scenario({"a": {"poisson": 100.0}, "b": {"poisson": 10.0}})
    policies, refused = candidates(wanted, two)
    assert {each.name for each in policies} == set(registry.policy_names())
    assert refused == []
    [fixed] = [each for each in policies if each.name == "fixed"]
    assert fixed.options == {"assignment": {"a": "p", "b": "q"}}


def test_times_that_are_off_are_so_under_every_policy_alike() -> None:
    """One server: one execution after the other takes as long, whatever the order of requests."""

    def seconds(name: str, off_by: float) -> list[float]:
        found = simulate(
            LOAD, PLAN, registry.make_policy(name), off_by=off_by, keep_records=True
        ).recorder
        return [each.service_s for each in found.executions()]

    assert seconds("fcfs", 1.5) == seconds("earliest_finish", 1.5)
    assert seconds("fcfs", 1.5) != seconds("fcfs", 1.0)


def test_each_execution_takes_so_many_times_as_long_or_as_short() -> None:
    wanted = scenario({"m": {"periodic": 1.0}}, duration=200.0)
    found = simulate(wanted, PLAN, registry.make_policy("fcfs"), off_by=1.5, keep_records=True)
    seconds = [each.service_s for each in found.recorder.executions()]
    assert {round(each / 0.004, 6) for each in seconds if each} == {1.5, round(1 / 1.5, 6)}
    assert 60 < sum(each > 0.004 for each in seconds if each) < 140
