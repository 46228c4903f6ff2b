"""Express processors in virtual time: what they overlay hardly gets on, all else is as before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coinfer.core.events import Finished
from coinfer.core.express import LEFT_SHARE
from coinfer.machine.cold import Cold
from coinfer.machine.contention import Contention
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.plan import Plan
from coinfer.policies import make_policy, policy_names
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from sim.machines import machine, play

TABLE = {"urgent": {"cpu0": 0.010}, "heavy": {"cpu0": 0.100}}
EXPRESS = Processor(
    name="cpu0+", backend="imagined", units=frozenset({"cpu0+"}), overlays=frozenset({"cpu0"})
)


def wanted(arrivals: dict[str, object], **fields: object) -> Scenario:
    """The urgent model has a deadline, the heavy one has none."""
    models = {
        "urgent": {"source": "zoo:lenet", "deadline": "33ms"},
        "heavy": {"source": "zoo:lenet"},
    }
    given = {"duration": 10.0, "warmup": 0.0, **fields}
    return Scenario.model_validate({"models": models, "arrivals": arrivals, **given})


def with_express(**fields: object) -> Machine:
    plain = machine(TABLE, **fields)
    return replace(plain, processors=(*plain.processors, EXPRESS))


@pytest.mark.parametrize("policy", ["fcfs", "edf", "least_slack", "earliest_finish"])
def test_urgent_requests_are_in_time_and_cost_what_they_take(policy: str) -> None:
    beside = wanted({"urgent": {"periodic": 5.0}, "heavy": {"closed": 1}})
    late = simulate(beside, Plan.of(machine(TABLE)), make_policy(policy)).run_counts.models
    found = simulate(beside, Plan.of(with_express()), make_policy(policy)).run_counts.models
    assert late["urgent"].late > 0
    assert found["urgent"].late == 0
    # Of each second the urgent ones take 5 x 10 ms; the rest is for runs of 100 ms.
    assert found["heavy"].completed == pytest.approx(95, abs=1)


def test_what_is_overlaid_takes_as_much_longer_as_it_is_held_up() -> None:
    once = wanted({"heavy": {"closed": 1}, "urgent": {"periodic": 1.0}}, duration=0.05)
    log = play(with_express(), once, "fcfs")
    services = [event.service_s for _, event, _ in log.steps if isinstance(event, Finished)]
    beside = 0.010 / (1 - LEFT_SHARE)
    assert services == pytest.approx([beside, 0.100 + beside * (1 - LEFT_SHARE)])


def test_what_is_known_of_the_twin_holds_on_top() -> None:
    given = with_express(
        spreads={("urgent", "cpu0"): 0.5},
        cold={("urgent", "cpu0"): Cold(1.2, 1.3)},
        contention=Contention(factors={"cpu0": {"cpu1": 1.5}, "cpu1": {"cpu0": 1.4}}, samples=3),
    )
    found = given.equipped()
    assert found.profile.expected_s("urgent", "cpu0+") == 0.010
    assert found.spreads[("urgent", "cpu0+")] == 0.5
    assert found.cold[("urgent", "cpu0+")] == Cold(1.2, 1.3)
    assert found.contention.slowdown("cpu0+", ["cpu1"]) == 1.5
    assert found.contention.slowdown("cpu1", ["cpu0", "cpu0+"]) == 1.4
    assert found.contention.slowdown("cpu0", ["cpu0+"]) == pytest.approx(1 / LEFT_SHARE)
    assert found.equipped() == found
    assert machine(TABLE).equipped().contention == Contention()


@pytest.mark.parametrize("policy", policy_names())
def test_every_request_is_answered_under_every_policy(policy: str) -> None:
    options = {"fixed": {"assignment": {"urgent": "cpu0", "heavy": "cpu0"}}}.get(policy, {})
    mixed = wanted({"urgent": {"poisson": 40.0}, "heavy": {"poisson": 5.0}}, duration=3.0)
    spreads = {(model, "cpu0"): 0.5 for model in TABLE}
    log = play(with_express(spreads=spreads), mixed, make_policy(policy, **options))
    assert len(log.finished) == len(log.arrived) > 100


def test_at_a_low_load_the_default_policy_loses_no_request_of_a_high_priority() -> None:
    """A wide run takes both cores; what comes at random meanwhile is not foreseen."""
    cores = [Processor(name=n, backend="null", units=frozenset({n})) for n in ("cpu0", "cpu1")]
    wide = Processor(name="all", backend="null", units=frozenset({"cpu0", "cpu1"}), threads=2)
    express = [
        replace(core, name=f"{core.name}+", units=frozenset({f"{core.name}+"}), overlays=core.units)
        for core in cores
    ]
    times = {
        "urgent": dict.fromkeys(("cpu0", "cpu1"), 0.010),
        "heavy": {"cpu0": 0.100, "cpu1": 0.100, "all": 0.055},
    }
    models = {
        "urgent": {"source": "zoo:lenet", "deadline": "32ms", "priority": 5, "on_late": "drop"},
        "heavy": {"source": "zoo:lenet"},
    }
    arrivals = {"urgent": {"poisson": 4.0}, "heavy": {"poisson": 0.4}}
    fields = {"models": models, "arrivals": arrivals, "duration": 300.0}
    low = Scenario.model_validate(fields)

    def hits(*processors: Processor) -> tuple[int, int]:
        subject = Machine(processors=processors, profile=Profile.from_seconds(times))
        counts = simulate(low, Plan.of(subject), make_policy("earliest_finish")).run_counts
        assert counts.models["heavy"].completed > 100
        return counts.models["urgent"].hits, counts.models["urgent"].submitted

    in_time, asked = hits(*cores, wide)
    assert in_time < 0.995 * asked
    in_time, asked = hits(*cores, wide, *express)
    assert in_time == asked > 1000
