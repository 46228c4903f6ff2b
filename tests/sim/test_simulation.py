"""The simulation: order of events, contention, swaps, overhead, limits, repeatability."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from coinfer.core.commands import Run
from coinfer.core.dispatcher import Limits
from coinfer.core.events import (
    Arrived,
    Finished,
    ModelLoaded,
    PolicyChanged,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.request import Outcome
from coinfer.errors import PolicyError, UnknownNameError
from coinfer.machine.cold import IDLE_S, Cold
from coinfer.machine.machine_file import parse_machine
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.submission import Submission
from coinfer.plan import Plan, PolicyChoice
from coinfer.policies import make_policy, policy_names
from coinfer.sim import Simulation, simulate
from coinfer.sim.services import Services
from coinfer.workload.load import Load
from coinfer.workload.scenario import ModelSpec, Scenario
from sim.machines import Log, machine, play, scenario, shared

TWO = {"x": {"a": 0.010, "b": 0.020}, "y": {"a": 0.030, "b": 0.015}}
OPEN = {"x": {"poisson": 40}, "y": {"gamma": 20, "cv": 3.0}}
OPTIONS = {"fixed": {"assignment": {"x": "a", "y": "b"}}}


def offline(x: int, y: int = 0, order: str = "grouped") -> Scenario:
    counts = {name: n for name, n in (("x", x), ("y", y)) if n}
    return scenario({"offline": {"counts": counts, "order": order}})


def ends(log: Log) -> list[float]:
    return [at for at, event, _ in log.steps if isinstance(event, Finished)]


def test_requests_run_one_after_the_other_on_one_processor() -> None:
    assert play(machine({"x": {"a": 0.25}}), offline(3)).latencies() == [0.25, 0.5, 0.75]


def test_overhead_occupies_the_processor_but_is_no_service_time() -> None:
    log = play(machine({"x": {"a": 0.25}}, overhead_s=0.125), offline(2))
    assert log.latencies() == [0.375, 0.75]
    services = [event.service_s for _, event, _ in log.steps if isinstance(event, Finished)]
    assert services == [0.25, 0.25]


def test_what_is_due_at_one_moment_comes_one_after_the_other() -> None:
    together = {"x": {"periodic": 1}, "y": {"periodic": 1}}
    on = machine(
        {"x": {"a": 0.25}, "y": {"b": 0.25}}, submission=Submission(first_s=0.125, next_s=0.0625)
    )
    log = play(on, scenario(together, duration=1.0))
    came = [at for at, event, _ in log.steps if isinstance(event, Arrived)]
    assert came == [0.125, 0.1875]
    # Latency counts from when it was due, and what starts is decided once both are known.
    assert log.latencies() == [0.4375, 0.4375]


def test_who_asks_again_after_an_answer_is_not_waited_for() -> None:
    on = machine({"x": {"a": 0.25}}, submission=Submission(first_s=0.125, next_s=0.0625))
    log = play(on, scenario({"x": {"closed": 1}}, duration=1.0))
    assert log.latencies() == [0.375, 0.25, 0.25, 0.25]


def test_what_follows_from_an_answer_waits_for_nobody_who_is_still_to_come() -> None:
    on = machine({"x": {"a": 0.25}, "y": {"b": 0.375}}, submission=Submission(0.125, 0.0625))
    log = play(on, scenario({"x": {"periodic": 2}, "y": {"closed": 1}}, duration=1.0))
    came = [(at, event.request.model) for at, event, _ in log.steps if isinstance(event, Arrived)]
    # That of y is answered at 0.5625, when one of x is due that comes at 0.625.
    assert came == [(0.125, "x"), (0.1875, "y"), (0.5625, "y"), (0.625, "x"), (0.9375, "y")]


def test_what_is_all_due_at_the_start_is_submitted_while_the_first_of_it_runs() -> None:
    on = machine({"x": {"a": 0.25}}, submission=Submission(first_s=0.125, next_s=0.0625))
    assert play(on, offline(3)).latencies() == [0.25, 0.5, 0.75]


def test_no_submission_lies_before_the_moment_that_the_simulation_has_reached() -> None:
    on = machine({"x": {"a": 0.01}, "y": {"b": 0.015}}, submission=Submission(0.05, 0.02))
    log = play(on, scenario({"x": {"closed": 2}, "y": {"periodic": 40}}, duration=3.0))
    moments = [at for at, _, _ in log.steps]
    assert moments == sorted(moments)
    assert len(log.finished) == len(log.arrived)


@pytest.mark.parametrize("policy", policy_names())
@pytest.mark.parametrize(
    "arrivals", [OPEN, {"mix": {"in_flight": 5}}, {"x": {"closed": 3}, "y": {"poisson": 30}}]
)
def test_little_holds_and_every_request_is_answered(policy: str, arrivals: dict) -> None:
    wanted = scenario(arrivals, models=["x", "y"], duration=3.0)
    made = make_policy(policy, **OPTIONS.get(policy, {}))
    spread = {(m, p): 0.5 for m in TWO for p in ("a", "b")}
    log = play(machine(TWO, spreads=spread), wanted, made)
    assert len(log.finished) == len(log.arrived) > 100
    assert log.in_system_s == pytest.approx(sum(log.latencies()), rel=1e-9)


@pytest.mark.parametrize("policy", ["fcfs", "earliest_finish"])
def test_two_runs_take_the_same_steps_to_the_last_bit(policy: str) -> None:
    shape = machine(
        TWO, spreads={("x", "a"): 1.0, ("y", "b"): 0.3}, contention=shared(a={"b": 1.3})
    )
    wanted = scenario(OPEN, duration=5.0)
    assert play(shape, wanted, policy).steps == play(shape, wanted, policy).steps


def test_another_seed_draws_other_service_times() -> None:
    shape = machine({"x": {"a": 0.01}}, spreads={("x", "a"): 1.0})
    assert play(shape, offline(5)).latencies() != play(shape, offline(5), seed=1).latencies()


def test_a_policy_does_not_change_the_times_of_a_pair() -> None:
    shape = machine({"x": {"a": 0.01}}, spreads={("x", "a"): 1.0})
    assert play(shape, offline(20)).latencies() == play(shape, offline(20), "sjf").latencies()


def test_at_one_instant_ends_come_before_timers_and_those_before_arrivals() -> None:
    # Deadlines at 0.25, 0.5, ... fall on arrivals, ends of runs of 0.25 s fall on both.
    wanted = scenario({"x": {"periodic": 8}}, duration=2.0)
    promise = ModelSpec(source="zoo:lenet", deadline=0.25, on_late="drop")
    wanted = wanted.model_copy(update={"models": {"x": promise}})
    log = play(machine({"x": {"a": 0.25}}), wanted)
    order = {ModelLoaded: -1, Finished: 0, TimerFired: 1, Arrived: 2}
    kinds = [(at, order[type(event)]) for at, event, _ in log.steps]
    assert kinds == sorted(kinds)
    assert {(0.5, 0), (0.5, 1), (0.5, 2)} <= set(kinds)


def test_a_change_of_model_and_a_rest_cost_what_was_measured() -> None:
    cold = {("x", "a"): Cold(after_other=2.0), ("y", "a"): Cold(after_other=3.0)}
    log = play(machine({"x": {"a": 0.25}, "y": {"a": 0.5}}, cold=cold), offline(2, 1))
    # The first one is a change, too: nothing has run before.
    assert ends(log) == [0.5, 0.75, 2.25]


def test_the_longer_the_rest_the_colder_the_start() -> None:
    cold = {("x", "a"): Cold(after_idle=3.0)}
    wanted = scenario({"x": {"periodic": 4}}, duration=0.5)
    assert ends(play(machine({"x": {"a": 0.125}}, cold=cold), wanted)) == [0.375, 0.5]
    # Due at 0 and 0.25: the second one waits for the first, and starts without a rest.
    shorter = play(machine({"x": {"a": 0.24}}, cold={("x", "a"): Cold(after_idle=1.0)}), wanted)
    assert ends(shorter) == [0.24, 0.49]
    rest_s = 0.25 - 0.24
    colder = play(machine({"x": {"a": 0.24}}, cold={("x", "a"): Cold(1.0, 1.0 + 1e-9)}), wanted)
    assert ends(colder)[1] - 0.49 == pytest.approx(0.24e-9 * rest_s / IDLE_S, rel=1e-3)


# --- contention -------------------------------------------------------------------------------


def test_work_proceeds_at_the_speed_of_the_moment() -> None:
    # Alone, a takes 1 s. b disturbs it from 0 to 0.5 s: a does 0.25 s of work until then.
    shape = machine({"x": {"a": 1.0}, "y": {"b": 0.5}}, contention=shared(a={"b": 2.0}))
    log = play(shape, offline(1, 1))
    assert ends(log) == [0.5, 1.25]
    services = [event.service_s for _, event, _ in log.steps if isinstance(event, Finished)]
    assert services == [0.5, 1.25]


def test_a_late_neighbour_slows_what_runs_already() -> None:
    shape = machine({"x": {"a": 1.0}, "y": {"b": 1.0}}, contention=shared(a={"b": 2.0}, b={"a": 4}))
    wanted = scenario({"x": {"periodic": 0.1}, "y": {"periodic": 0.1, "phase": 0.5}}, duration=1.0)
    # x: half done at 0.5, the rest at half speed: 1.5. y: 0.25 done at 1.5, then alone: 2.25.
    assert ends(play(shape, wanted)) == [1.5, 2.25]


def test_slowdowns_of_several_neighbours_multiply() -> None:
    table = {"x": {"a": 1.0}, "y": {"b": 10.0}, "z": {"c": 10.0}}
    counts = {"counts": {"y": 1, "z": 1, "x": 1}, "order": "grouped"}
    shape = machine(table, contention=shared(a={"b": 2.0, "c": 1.5}))
    assert ends(play(shape, scenario({"offline": counts})))[0] == 3.0


def test_factors_of_one_change_nothing() -> None:
    wanted = scenario(OPEN, duration=3.0)
    spread = {("x", "a"): 1.0}
    plain = play(machine(TWO, spreads=spread), wanted)
    # c is never used, so its factor keeps contention on without any effect.
    table = {**TWO, "z": {"c": 1.0}}
    quiet = shared(c={"a": 2.0})
    assert play(machine(table, spreads=spread, contention=quiet), wanted).latencies() == (
        pytest.approx(plain.latencies(), abs=1e-12)
    )


# --- one model at a time ----------------------------------------------------------------------


def test_changing_the_model_costs_its_load_time() -> None:
    text = "processors: {a: {one_model: true, load: 1s}}\ntimes: {x: {a: 0.5}, y: {a: 0.25}}\n"
    # x (held from the start), x, then y: 1 s to load it and 0.25 s to run it.
    assert play(parse_machine(text), offline(2, 1)).latencies() == [0.5, 1.0, 2.25]


def test_a_free_change_is_as_good_as_holding_all() -> None:
    times = "times: {x: {a: 0.5}, y: {a: 0.25}}\n"
    free = parse_machine("processors: {a: {one_model: true, load: 0}}\n" + times)
    every = parse_machine("processors: {a: {}}\n" + times)
    wanted = offline(5, 5, "interleaved")
    assert play(free, wanted).latencies() == play(every, wanted).latencies()


def pairs(log: Log) -> set[tuple[str, str]]:
    commands = [command for _, _, commands in log.steps for command in commands]
    runs = [command.execution for command in commands if isinstance(command, Run)]
    return {(execution.model, execution.processor) for execution in runs}


def test_a_kept_model_is_the_only_one_that_runs_there() -> None:
    wanted = offline(20, 20, "interleaved")
    assert ("y", "a") in pairs(play(machine(TWO), wanted))
    assert pairs(play(machine(TWO).holding({"a": "x"}), wanted)) == {("x", "a"), ("y", "b")}


# --- limits and ends --------------------------------------------------------------------------


def test_an_overdue_execution_is_abandoned_and_its_processor_comes_back() -> None:
    log = Log()
    shape = machine({"x": {"a": 1.0, "b": 5.0}})
    wanted = offline(3)
    limits = Limits(hang_factor=0.1, hang_min_s=0.5, retries=5)
    Simulation(
        Plan.of(shape), make_policy("fcfs"), Load(wanted), wanted.models, log, limits=limits
    ).run()
    assert any(isinstance(event, ProcessorRestored) for _, event, _ in log.steps)
    assert {outcome for _, outcome in log.finished.values()} == {Outcome.FAILED}


def test_what_is_left_at_the_limit_stays_unanswered() -> None:
    wanted = offline(10)
    simulation = Simulation(
        Plan.of(machine({"x": {"a": 1.0}})), make_policy("fcfs"), Load(wanted), wanted.models, Log()
    )
    simulation.run(until_s=3.5)
    assert (simulation.now, simulation.n_unanswered) == (3.0, 7)


def test_memory_does_not_grow_with_the_requests() -> None:
    wanted = scenario({"x": {"poisson": 50}}, duration=40.0)
    done = simulate(wanted, Plan.of(machine({"x": {"a": 0.01}})), make_policy("fcfs"))
    assert list(done.recorder.requests()) == []
    assert done.run_counts.models["x"].completed > 1500


def test_the_window_of_finite_counts_ends_with_the_last_answer() -> None:
    done = simulate(offline(4), Plan.of(machine({"x": {"a": 0.25}})), make_policy("fcfs"))
    assert done.run_counts.duration_s == 1.0
    assert done.run_counts.models["x"].served == 4
    assert done.run_counts.processors["a"].busy_s == 1.0


def test_the_window_lasts_as_long_as_the_scenario_says() -> None:
    wanted = scenario({"x": {"periodic": 1}}, duration=10.0, warmup=2.0)
    done = simulate(wanted, Plan.of(machine({"x": {"a": 0.25}})), make_policy("fcfs"))
    assert done.run_counts.duration_s == 10.0
    assert done.run_counts.models["x"].submitted == 10


def test_a_model_that_no_processor_runs_is_named() -> None:
    wanted = scenario({"ghost": {"closed": 1}})
    with pytest.raises(UnknownNameError, match=r"model 'ghost'.*No processor of machine"):
        simulate(wanted, Plan.of(machine(TWO)), make_policy("fcfs"))


def test_a_policy_that_fails_ends_the_simulation_with_its_fault() -> None:
    with pytest.raises(PolicyError, match="ghost"):
        simulate(
            offline(1), Plan.of(machine(TWO)), make_policy("priority", table={"ghost": {"x": 1}})
        )


# --- service times ----------------------------------------------------------------------------


def test_measured_times_are_resampled() -> None:
    samples = (0.010, 0.011, 0.030)
    measured = Profile({ProfileKey("x", "a"): Measurement(seconds=samples)})
    shape = replace(machine({"x": {"a": 1.0}}), profile=measured)
    log = play(shape, offline(300))
    drawn = [event.service_s for _, event, _ in log.steps if isinstance(event, Finished)]
    assert set(drawn) == set(samples)
    assert sum(drawn) / 300 == pytest.approx(0.017, rel=0.1)


def test_deterministic_executions_take_their_means() -> None:
    shape = machine({"x": {"a": 0.25}}, spreads={("x", "a"): 2.0})
    done = simulate(offline(4), Plan.of(shape), make_policy("fcfs"), deterministic=True)
    assert done.run_counts.duration_s == 1.0


@pytest.mark.parametrize("cv", [0.2, 1.0, 2.0])
def test_spread_times_have_the_mean_and_the_variation_that_is_stated(cv: float) -> None:
    shape = machine({"x": {"a": 0.02}}, spreads={("x", "a"): cv})
    log = play(shape, offline(20_000))
    drawn = [event.service_s for _, event, _ in log.steps if isinstance(event, Finished)]
    mean = sum(drawn) / len(drawn)
    variance = sum((s - mean) ** 2 for s in drawn) / len(drawn)
    # Standard errors: cv / sqrt(n) = 1.4 % of the mean at cv 2; the cv's is about 2 %.
    assert mean == pytest.approx(0.02, rel=0.05)
    assert variance**0.5 / mean == pytest.approx(cv, rel=0.06)


def test_a_batch_that_was_not_measured_takes_scaled_samples() -> None:
    wanted = scenario({"x": {"closed": 1}}, duration=2.0)
    two = ModelSpec(source="zoo:lenet", batch=2)
    wanted = wanted.model_copy(update={"models": {"x": two}})
    done = simulate(wanted, Plan.of(machine({"x": {"a": 0.1}})), make_policy("fcfs"))
    assert done.run_counts.models["x"].served in (9, 10)


def test_services_of_equal_seeds_are_equal() -> None:
    shape = machine({"x": {"a": 0.02}}, spreads={("x", "a"): 1.0})
    steps = play(shape, offline(5)).steps
    runs = [c.execution for _, _, commands in steps for c in commands if isinstance(c, Run)]
    first, second = Services(shape, seed=3), Services(shape, seed=3)
    assert [first.draw(e) for e in runs] == [second.draw(e) for e in runs]


def test_another_policy_may_decide_from_a_moment_on() -> None:
    board, log = machine({"m": {"p": 0.5}, "n": {"p": 0.1}}), Log()
    load = scenario({"m": {"trace": [0.0, 0.1, 0.2]}, "n": {"trace": [0.3, 0.35]}})
    plan = Plan.of(board, policy=PolicyChoice(name="fcfs"))
    simulation = Simulation(plan, make_policy("fcfs"), Load(load), load.models, log)
    simulation.run(0.4)
    simulation.change_policy(make_policy("sjf"), PolicyChoice(name="sjf"), 0.4)
    simulation.core.check()
    simulation.run()
    order = [c.execution.variant for *_, done in log.steps for c in done if isinstance(c, Run)]
    assert order == ["m", "n", "n", "m", "m"]
    assert [at_s for at_s, event, _ in log.steps if isinstance(event, PolicyChanged)] == [0.4]


def test_a_change_of_policy_starts_what_waits_for_a_processor_that_is_idle() -> None:
    board, log = machine({"m": {"p": 0.5, "q": 0.5}}), Log()
    load = scenario({"m": {"trace": [0.0, 0.0, 0.0]}})
    fixed = make_policy("fixed", assignment={"m": "p"})
    simulation = Simulation(Plan.of(board), fixed, Load(load), load.models, log)
    simulation.run(0.2)
    simulation.change_policy(make_policy("fcfs"), PolicyChoice(name="fcfs"), 0.25)
    simulation.run()
    assert sorted(at_s for at_s, _ in log.finished.values()) == [0.5, 0.75, 1.0]


def test_requests_are_promised_something_else_from_a_moment_on() -> None:
    board, log = machine({"m": {"p": 0.1}}), Log()
    load = scenario({"m": {"trace": [0.0, 1.0, 2.0]}})
    simulation = Simulation(Plan.of(board), make_policy("fcfs"), Load(load), load.models, log)
    simulation.run(1.5)
    simulation.promise({"m": ModelSpec(source="zoo:lenet", deadline=0.25, priority=3)})
    simulation.run()
    requests = [event.request for _, event, _ in log.steps if isinstance(event, Arrived)]
    assert [request.deadline_s for request in requests] == [math.inf, math.inf, 2.25]
    assert [request.priority for request in requests] == [0, 0, 3]


def test_a_closed_loop_goes_on_from_where_a_simulation_stopped() -> None:
    board, load = machine({"m": {"p": 0.1}}), scenario({"m": {"closed": 2}}, duration=3.0)
    whole, parts = play(board, load), Log()
    simulation = Simulation(Plan.of(board), make_policy("fcfs"), Load(load), load.models, parts)
    for until_s in (0.05, 1.0, 1.0, 2.55):
        simulation.run(until_s)
    simulation.run()
    assert parts.finished == whole.finished
