"""Queues whose mean waits are known, and the same queues in SimPy."""

from __future__ import annotations

import math
import statistics

import pytest
import simpy

from coinfer.core.commands import Execution
from coinfer.core.request import Request
from coinfer.machine.machine import Machine
from coinfer.machine.span import Span
from coinfer.sim.services import Services
from coinfer.workload.load import Load
from sim.machines import machine, play, scenario

MEAN_S = 0.01
REPLICATIONS = 10
T_999 = 4.781
"""Two-sided 99.9 % quantile of Student's t with 9 degrees of freedom."""


def servers(count: int, cv: float) -> Machine:
    row = {f"p{i}": MEAN_S for i in range(count)}
    return machine({"x": row}, spreads={("x", name): cv for name in row if cv})


def mean_latencies_s(shape: Machine, rate_per_s: float) -> list[float]:
    """Mean latency of about 2,500 requests after the first 300, by seed."""
    means = []
    for seed in range(REPLICATIONS):
        wanted = scenario({"x": {"poisson": rate_per_s}}, duration=2800 / rate_per_s, seed=seed)
        means.append(statistics.fmean(play(shape, wanted, seed=seed).latencies()[300:]))
    return means


def assert_agrees(means: list[float], expected_s: float) -> None:
    half_s = T_999 * statistics.stdev(means) / math.sqrt(len(means))
    assert half_s < 0.15 * expected_s, "the bounds are too wide to say anything"
    assert abs(statistics.fmean(means) - expected_s) <= half_s


def erlang_c(count: int, load: float) -> float:
    """Probability that a request has to wait, for an offered load in servers."""
    terms = [load**k / math.factorial(k) for k in range(count)]
    last = load**count / math.factorial(count) * count / (count - load)
    return last / (sum(terms) + last)


def test_m_m_1() -> None:
    rate = 60.0
    assert_agrees(mean_latencies_s(servers(1, 1.0), rate), 1 / (1 / MEAN_S - rate))


def test_m_d_1() -> None:
    rate = 70.0
    rho = rate * MEAN_S
    expected_s = MEAN_S + rho * MEAN_S / (2 * (1 - rho))
    assert_agrees(mean_latencies_s(servers(1, 0.0), rate), expected_s)


def test_m_m_c() -> None:
    count, rate = 3, 210.0
    wait_s = erlang_c(count, rate * MEAN_S) / (count / MEAN_S - rate)
    assert_agrees(mean_latencies_s(servers(count, 1.0), rate), MEAN_S + wait_s)


def simpy_latencies_s(shape: Machine, dues: list[float], seed: int) -> list[float]:
    """First come, first served on whichever free processor is the fastest, in SimPy."""
    services = Services(shape, seed=seed)
    row = {p.name: shape.profile.expected_s("x", p.name) or 0.0 for p in shape.processors}
    environment = simpy.Environment()
    free = simpy.PriorityStore(environment)
    free.items = sorted((seconds, name) for name, seconds in row.items())
    latencies = [0.0] * len(dues)

    def serve(number: int, due: float):
        yield environment.timeout(due)
        seconds, name = yield free.get()
        request = Request(id=number, model="x", arrival_s=due)
        execution = Execution(number, "x", Span(), name, (request,), 0.0, seconds)
        yield environment.timeout(services.draw(execution))
        yield free.put((seconds, name))
        latencies[number] = environment.now - due

    for number, due in enumerate(dues):
        environment.process(serve(number, due))
    environment.run()
    return latencies


@pytest.mark.parametrize(
    "shape",
    [servers(1, 1.0), servers(1, 0.0), machine({"x": {"fast": 0.008, "mid": 0.013, "slow": 0.03}})],
    ids=["M/M/1", "M/D/1", "unlike processors"],
)
def test_every_latency_is_that_of_simpy(shape: Machine) -> None:
    wanted = scenario({"x": {"poisson": 85}}, duration=20.0, seed=4)
    load = Load(wanted)
    dues, due = [], load.initial()
    while due:
        dues.append(due[0].time_s)
        due = load.after_due(due[0])
    assert len(dues) > 1500
    ours = play(shape, wanted, seed=4).latencies()
    assert ours == pytest.approx(simpy_latencies_s(shape, dues, 4), abs=1e-9)
