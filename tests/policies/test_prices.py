"""What held cores cost others: the relative values of many servers, and what follows for widths."""

from __future__ import annotations

import math
import random
from collections import defaultdict

import numpy as np
import pytest

from coinfer.machine.machine_file import load_machine
from coinfer.machine.scaling import Scaling
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.policies.prices import prices_of, rises
from coinfer.sim import simulate
from coinfer.testing.machine import VirtualMachine
from policies.every_width import every_width
from policies.frames import frames_at


def relative_values(busy: float, servers: int, states: int) -> tuple[list[float], float]:
    """Solve the balance of many servers for what a further request adds, and for the mean wait."""
    come = busy * servers  # per service time
    rows = np.zeros((states + 1, states + 1))  # unknown: the values, then the waiting per time
    costs = np.zeros(states + 1)
    for n in range(states):
        ends = float(min(n, servers))
        more = n + 1 if n + 1 < states else n
        rows[n, more] += come
        rows[n, n] -= come + ends
        rows[n, max(n - 1, 0)] += ends
        rows[n, states] = -1.0
        costs[n] = -max(n - servers, 0)
    rows[states, 0] = 1.0
    found = np.linalg.solve(rows, costs)
    return list(np.diff(found[:states])), float(found[states] / come)


@pytest.mark.parametrize(("busy", "servers"), [(0.3, 1), (0.5, 4), (0.8, 8), (0.9, 16)])
def test_prices_are_the_relative_values_of_many_servers(busy: float, servers: int) -> None:
    adds, wait = relative_values(busy, servers, 600)
    table = rises(busy, servers)
    assert len(table) == servers + 1
    assert wait * np.diff(table) == pytest.approx(adds[:servers], rel=1e-6)


def test_what_is_held_for_an_exponential_time_costs_its_price() -> None:
    """Over all such times the mean cost of a run is what the balance of the servers says."""
    table, mean_s, wait = rises(0.7, 8), 0.02, 0.1
    known = prices_of([(0.7, wait)], 8, 1.0, mean_s)
    steps = 20_000
    lengths = [-mean_s * math.log1p(-(n + 0.5) / steps) for n in range(steps)]
    for busy in (0, 3, 7):
        mean_cost = sum(known.cost_s(8 - busy, 1, 1, s) for s in lengths) / steps
        price_s = wait * (table[busy + 1] - table[busy]) * mean_s
        assert mean_cost == pytest.approx(price_s, rel=1e-3)


def test_the_last_cores_cost_most_and_a_short_run_costs_less_than_its_share() -> None:
    known = prices_of([(0.6, 0.05)], 8, 1.0, 0.1)
    costs = [known.cost_s(free, 1, 1, 0.1) for free in range(8, 0, -1)]
    assert costs == sorted(costs)
    assert costs[7] > 5 * costs[0]
    assert known.cost_s(4, 1, 1, 0.001) < 0.1 * known.cost_s(4, 1, 1, 0.01)
    assert known.cost_s(8, 2, 1, 0.1) == pytest.approx(sum(costs[:2]))


def test_a_run_narrower_than_usual_costs_what_a_server_of_others_does() -> None:
    """What it leaves of a group of cores is of use only to what is as narrow."""
    known = prices_of([(0.8, 0.05)], 16, 4.0, 0.1)
    for free in range(17):
        costs = [known.cost_s(free, width, 4, 0.1) for width in (1, 2, 4, 8)]
        assert costs[0] == costs[1] == costs[2]
        assert costs[3] > costs[2]
    assert known.cost_s(8, 1, 8, 0.1) == known.cost_s(8, 4, 8, 0.1)
    assert known.cost_s(8, 1, 2, 0.1) == known.cost_s(8, 2, 2, 0.1) < known.cost_s(8, 4, 2, 0.1)
    among_single = prices_of([(0.8, 0.05)], 16, 1.2, 0.1)
    assert among_single.cost_s(8, 1, 4, 0.1) < among_single.cost_s(8, 2, 4, 0.1)


def test_while_others_wait_a_narrower_run_costs_its_own_cores_only() -> None:
    """They take what it leaves of a group, for as long as the queue lasts."""
    known = prices_of([(0.8, 0.05)], 16, 4.0, 0.1)
    alone = known.cost_s(8, 1, 4, 0.1)
    own = known.cost_s(8, 1, 1, 0.1)
    costs = [known.cost_s(8, 1, 4, 0.1, queued) for queued in (-8, 0, 1, 2, 4, 64)]
    assert costs == sorted(costs, reverse=True)
    assert costs[:2] == [alone, alone]
    assert alone > costs[2] > costs[3] > own
    assert costs[5] == own  # 64 cores are busy for 0.4 s, and what comes meanwhile
    assert known.cost_s(8, 4, 4, 0.1, 64) == known.cost_s(8, 4, 4, 0.1)
    assert known.cost_s(8, 8, 4, 0.1, 64) == known.cost_s(8, 8, 4, 0.1)


def test_what_has_to_wait_for_cores_costs_what_it_does_once_they_are_free() -> None:
    known = prices_of([(0.8, 0.05)], 16, 1.5, 0.1)
    costs = [known.cost_s(free, 4, 4, 0.1) for free in (0, 3, 4)]
    assert costs[0] == costs[1] == costs[2] > known.cost_s(5, 4, 4, 0.1)


def test_prices_are_the_mean_of_those_at_several_loads() -> None:
    low, high = (prices_of([each], 6, 4.0, 0.1) for each in ((0.5, 0.1), (0.9, 2.0)))
    both = prices_of([(0.5, 0.1), (0.9, 2.0)], 6, 4.0, 0.1)
    for free in range(7):
        mean = (low.cost_s(free, 1, 1, 0.2) + high.cost_s(free, 1, 1, 0.2)) / 2
        assert both.cost_s(free, 1, 1, 0.2) == pytest.approx(mean)
    idle = prices_of([(0.0, 0.0)], 6, 4.0, 0.1)
    assert idle.cost_s(1, 6, 6, 0.2) == 0.0


def test_at_one_load_runs_are_wide_on_an_idle_machine_and_narrow_on_the_last_cores() -> None:
    """What a width costs is told by the cores that are free, not by the load alone."""
    scaling, cores, load = Scaling(mean_s=0.1, serial=0.1), 16, 0.75
    everyone = every_width(cores)
    seconds = {"m": {p.name: scaling.seconds(p.threads) for p in everyone}}
    machine = VirtualMachine(everyone, make_policy("earliest_finish"), seconds)
    draw, at_s = random.Random(1), 0.0
    for _ in range(6_000):
        at_s += draw.expovariate(load * cores / scaling.mean_s)
        machine.submit("m", arrival_s=at_s)
    machine.run()
    width = {p.name: p.threads for p in everyone}
    found: dict[int, list[int]] = defaultdict(list)
    running: list[tuple[float, int]] = []
    for execution in machine.executions:
        begun_s, taken = execution.started_s, width[execution.processor]
        running = [(end_s, cores) for end_s, cores in running if end_s > begun_s + 1e-9]
        free = cores - sum(each for _, each in running)
        if execution.requests[0].id > 1_000:
            found[free].append(taken)
        running.append((execution.expected_end_s, taken))

    def mean(least: int, most: int) -> float:
        chosen = [taken for free, each in found.items() if least <= free <= most for taken in each]
        return sum(chosen) / len(chosen)

    assert mean(12, 16) > 1.7 * mean(2, 5)


def test_eight_networks_at_frame_rates_are_answered_sooner_than_with_any_one_width() -> None:
    machine = load_machine("lib:cores-16")
    frames_per_s = {
        "small_resnet": 30.0,
        "squeezenet1_1": 30.0,
        "mobilenet_v2": 30.0,
        "resnet50": 10.0,
        "densenet201": 8.0,
        "inception_v3": 6.0,
        "resnet101": 5.0,
        "vgg16": 2.0,
    }
    scenario = frames_at(machine, frames_per_s, 0.5, 3200)

    def response_s(plan: Plan) -> float:
        counts = simulate(scenario, plan, make_policy("earliest_finish")).run_counts.models
        return math.prod(each.latencies.mean_s() for each in counts.values()) ** (1 / len(counts))

    plan = Plan.of(machine, models=frames_per_s)
    fixed_s = []
    for width in (1, 2, 4):
        names = {p.name for p in machine.processors if p.threads == width}
        of_width = plan.profile.where(lambda key, names=names: key.processor in names)
        fixed_s.append(response_s(plan.loading(of_width)))
    assert min(fixed_s) > 1.05 * response_s(plan)
