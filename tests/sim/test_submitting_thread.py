"""The thread that submits needs a core: an idle one, or what gives way stands still meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from coinfer.core.events import Arrived, Finished
from coinfer.machine.contention import Contention
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.submission import Submission
from coinfer.machine.topology import Core, Topology
from coinfer.plan import Plan
from coinfer.sim import simulate
from coinfer.sim.services import Services
from coinfer.workload.scenario import Scenario
from sim.machines import Log, machine, play, scenario

ENTERS = Submission(first_s=0.125, next_s=0.0625)


def cores(n: int = 2, *, is_express: bool = False, **fields: Any) -> Machine:
    """That many cores, a processor on each (`c0`, ...) and one on all of them (`all`)."""
    names = [f"core{number}" for number in range(n)]
    found = [Processor(name=f"c{u[4:]}", backend="null", units=frozenset({u})) for u in names]
    found.append(Processor(name="all", backend="null", units=frozenset(names), threads=n))
    if is_express:
        found += [
            Processor(
                name=f"c{unit[4:]}+",
                backend="null",
                units=frozenset({f"{unit}+"}),
                overlays=frozenset({unit}),
            )
            for unit in names
        ]
    given: dict[str, Any] = {"submission": ENTERS, **fields}
    return Machine(processors=tuple(found), **given)


def times(table: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {"profile": Profile.from_seconds(table)}


def ends(log: Log) -> list[float]:
    return [at for at, event, _ in log.steps if isinstance(event, Finished)]


def came(log: Log) -> list[float]:
    return [at for at, event, _ in log.steps if isinstance(event, Arrived)]


BOTH = scenario({"x": {"periodic": 1}, "y": {"closed": 1}}, duration=1.5)
"""One of y runs all the time; one of x comes at 0.0 and at 1.0."""


def test_on_an_idle_core_it_is_in_nobodys_way() -> None:
    log = play(cores(**times({"x": {"c0": 0.25}, "y": {"c1": 8.0}})), BOTH)
    # At the start y is submitted by the same thread, after x.
    assert came(log) == [0.125, 0.1875, 1.125]
    assert ends(log) == [0.375 + 0.0625, 1.375, 8.1875]


def test_what_runs_on_its_core_stands_still_meanwhile() -> None:
    log = play(cores(1, **times({"x": {"c0": 0.25}, "y": {"c0": 8.0}})), BOTH)
    y_began = ends(log)[0]
    assert ends(log)[1] == y_began + 8.0 + 0.125


def test_a_run_on_all_cores_stands_still_as_a_whole() -> None:
    log = play(cores(2, **times({"x": {"c0": 0.25}, "y": {"all": 8.0}})), BOTH)
    assert ends(log)[1] == ends(log)[0] + 8.0 + 0.125


def test_what_comes_together_is_submitted_by_one_thread() -> None:
    wanted = scenario(
        {"x": {"periodic": 1}, "z": {"periodic": 1}, "y": {"closed": 1}}, duration=1.5
    )
    table = {"x": {"c0": 0.25}, "z": {"c0": 0.25}, "y": {"all": 8.0}}
    log = play(cores(2, **times(table)), wanted)
    assert ends(log)[2] == ends(log)[1] + 8.0 + 0.125 + 0.0625


def test_a_core_that_no_processor_has_is_idle() -> None:
    topology = Topology(cores=(Core(threads=(0,)), Core(threads=(1,))), used=(0, 1))
    table = times({"x": {"c0": 0.25}, "y": {"c0": 8.0}})
    log = play(cores(1, topology=topology, **table), BOTH)
    assert ends(log)[1] == ends(log)[0] + 8.0


def test_beside_an_express_run_it_goes_where_threads_give_way() -> None:
    """All is on two cores; x preempts y, and w comes while x runs."""
    urgent = {"source": "zoo:lenet", "deadline": "20s"}
    given = {"x": urgent, "w": urgent, "y": {"source": "zoo:lenet"}, "z": {"source": "zoo:lenet"}}
    wanted = Scenario.model_validate(
        {
            "models": given,
            "arrivals": {
                "y": {"closed": 1},
                "z": {"closed": 1},
                "x": {"periodic": 1, "phase": 0.5},
                "w": {"periodic": 1, "phase": 0.75},
            },
            "duration": 1.0,
            "warmup": 0.0,
        }
    )
    table = {"x": {"c0": 1.0, "c1": 1.0}, "w": {"c0": 1.0, "c1": 1.0}, "y": {"c0": 8.0}}
    on = cores(2, is_express=True, **times({**table, "z": {"c1": 8.0}}))
    log = play(on, wanted, "edf")
    took = {
        event.execution_id: event.service_s for _, event, _ in log.steps if type(event) is Finished
    }
    x, w, y, z = took[2], took[3], took[0], took[1]
    # The thread stops the one loop for x and the other one for w.
    assert (x, w) == pytest.approx((1.0, 1.0), rel=0.05)
    assert (y + z) == pytest.approx(2 * (8.0 + 1.0 + 0.125), rel=0.01)


def test_every_request_of_a_moment_is_as_slow_and_moments_differ() -> None:
    given = ENTERS._replace(factors=(1.0, 2.0))
    on = machine({"x": {"a": 0.25}, "z": {"b": 0.25}}, submission=given)
    wanted = scenario({"x": {"periodic": 1}, "z": {"periodic": 1}}, duration=40.0)
    found = came(play(on, wanted))
    moments = [(a % 1, b % 1) for a, b in zip(found[::2], found[1::2], strict=True)]
    assert set(moments) == {(0.125, 0.1875), (0.25, 0.375)}
    assert found == came(play(on, wanted))
    assert found != came(play(on, wanted, seed=1))


def test_hand_overs_are_drawn_from_what_was_measured() -> None:
    on = machine({"x": {"a": 0.25}}, overhead_s=0.125, overhead_factors=(0.5, 1.5))
    wanted = scenario({"x": {"closed": 1}}, duration=40.0)
    log = play(on, wanted)
    assert set(log.latencies()) == {0.25 + 0.0625, 0.25 + 0.1875}
    services = [event.service_s for _, event, _ in log.steps if isinstance(event, Finished)]
    assert set(services) == {0.25}


def test_deterministic_simulations_take_the_mean() -> None:
    on = machine(
        {"x": {"a": 0.25}},
        overhead_s=0.125,
        overhead_factors=(0.5, 1.5),
        submission=ENTERS._replace(factors=(0.5, 1.5)),
    )
    services = Services(on, deterministic=True)
    assert {next(services.overheads()) for _ in range(8)} == {0.125}
    assert {next(services.submissions()) for _ in range(8)} == {1.0}
    wanted = scenario({"x": {"periodic": 1}}, duration=4.0)
    done = simulate(wanted, Plan.of(on), deterministic=True, keep_records=True)
    assert {r.latency_s for r in done.recorder.requests()} == {0.125 + 0.25 + 0.125}


def test_with_contention_nothing_else_changes() -> None:
    """A run that is slowed down by another one stands still for as long."""
    table = {"x": {"c0": 0.25}, "y": {"c0": 8.0}, "z": {"c1": 16.0}}
    wanted = scenario({"x": {"periodic": 1}, "y": {"closed": 1}, "z": {"closed": 1}}, duration=1.5)
    plain = play(cores(2, **times(table)), wanted)
    slow = Contention(factors={"c1": {"c0": 1.0 + 2**-40}})
    slowed = play(cores(2, contention=slow, **times(table)), wanted)
    assert ends(slowed) == pytest.approx(ends(plain), abs=1e-6)
