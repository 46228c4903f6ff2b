"""Requests in two executions at once, simulated: sooner, counted right, replayed alike."""

from __future__ import annotations

import dataclasses
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coinfer.bound import throughput_bound
from coinfer.core.commands import Run
from coinfer.core.request import Outcome
from coinfer.machine.machine import Machine
from coinfer.machine.span import Fork, Span
from coinfer.metrics.explanation import Explainer
from coinfer.metrics.explanation_table import render_explanation
from coinfer.metrics.observers import Observers
from coinfer.metrics.recorder import Recorder
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.replay import LogHeader, recording, replay
from coinfer.sim import Simulation
from coinfer.testing.machine import processors, profile
from coinfer.workload.load import Load
from sim.machines import Log, play, scenario

PLANNING = ("heft", "heft_reserved", "least_slack", "shortest_expected_latency", "two_queues")
FORK = Fork(1, 3, 4)


def forking(plan: Plan) -> Plan:
    variant = dataclasses.replace(plan.models["towers"].original, forks=(FORK,))
    return plan.with_variant("towers", variant)


NAMES = tuple(processors("p", "q"))
TIMES = profile("towers", {"p": 0.06, "q": 0.06}, units=6)
MACHINE = Machine(processors=NAMES, profile=TIMES)
IN_LINE = Plan.of(MACHINE)
FORKING = forking(IN_LINE)
ALONE = scenario({"offline": {"counts": {"towers": 1}}})


@pytest.mark.parametrize("policy", PLANNING)
def test_a_lone_request_is_answered_sooner_with_a_fork_than_without(policy: str) -> None:
    assert play(IN_LINE, ALONE, policy).latencies() == [pytest.approx(0.06)]
    assert play(FORKING, ALONE, policy).latencies() == [pytest.approx(0.04)]


@pytest.mark.parametrize("policy", PLANNING)
def test_where_the_second_processor_is_too_slow_nothing_changes(policy: str) -> None:
    slow = profile("towers", {"p": 0.06, "q": 0.6}, units=6)
    machine = forking(Plan.of(Machine(processors=NAMES, profile=slow)))
    log = play(machine, ALONE, policy)
    assert log.latencies() == [pytest.approx(0.06)]
    assert sum(isinstance(c, Run) for _, _, commands in log.steps for c in commands) == 1


@pytest.mark.parametrize("policy", PLANNING)
def test_forks_answer_every_request_and_never_beat_the_bound(policy: str) -> None:
    wanted = scenario({"offline": {"counts": {"towers": 200}}})
    log = play(FORKING, wanted, policy)
    assert {outcome for _, outcome in log.finished.values()} == {Outcome.COMPLETED}
    end_s = max(at for at, _ in log.finished.values())
    bound = throughput_bound(FORKING.profile, NAMES, {"towers": 1}).throughput_per_s
    assert 0.95 * bound <= 200 / end_s <= bound * (1 + 1e-9)


@pytest.mark.parametrize("rate", [2, 10])
def test_at_a_low_rate_the_mean_latency_falls(rate: int) -> None:
    wanted = scenario({"towers": {"poisson": rate}}, duration=20.0)
    forking, in_line = (play(m, wanted, "heft").latencies() for m in (FORKING, IN_LINE))
    assert len(forking) == len(in_line)
    assert sum(forking) < 0.85 * sum(in_line)


def records(observer: Any = None) -> Recorder:
    recorder = Recorder()
    watching = recorder if observer is None else Observers(recorder, observer)
    simulation = Simulation(FORKING, make_policy("heft"), Load(ALONE), ALONE.models, watching)
    if isinstance(observer, Explainer):
        observer.watch(simulation.core.view)
    simulation.run()
    return recorder


def test_both_executions_are_recorded_and_the_request_counts_once() -> None:
    recorder = records()
    (request,) = recorder.requests()
    assert request.executions == (0, 1, 2, 3)
    assert request.processors == ("p", "p", "q", "p")
    assert request.latency_s == pytest.approx(0.04)
    left, right = [each for each in recorder.executions() if each.id in (1, 2)]
    assert left.started_s == right.started_s
    assert {left.span, right.span} == {Span(1, 2), Span(3, 4)}
    run_counts = recorder.run_counts(0.04)
    assert run_counts.models["towers"].served == 1
    assert run_counts.processors["p"].busy_s == pytest.approx(0.04)
    assert run_counts.processors["q"].busy_s == pytest.approx(0.02)


def test_an_explanation_tells_of_both() -> None:
    explainer = Explainer()
    records(explainer)
    assert explainer.found is not None
    choices = explainer.found.choices
    assert [(c.span, c.processor) for c in choices] == [
        (Span(0, 0), "p"),
        (Span(1, 2), "p"),
        (Span(3, 4), "q"),
        (Span(5, 5), "p"),
    ]
    assert choices[1].at_s == choices[2].at_s
    assert [c.beside for c in choices] == [None, Span(3, 4), Span(1, 2), None]
    assert all(c.took_s == pytest.approx(c.expected_s) for c in choices)
    console = Console(file=StringIO(), width=120)
    console.print(render_explanation(explainer.found))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "took 20 ms, beside units 3-4" in shown
    assert "took 20 ms, beside units 1-2" in shown


def test_a_recorded_run_with_forks_is_replayed_step_by_step(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    header = LogHeader(policy="heft", processors=NAMES)
    wanted = scenario({"towers": {"poisson": 15}}, duration=3.0)
    with recording(path, header) as log:
        observers, kept = Observers(log, noted := Log()), noted
        simulation = Simulation(
            FORKING, make_policy("heft"), Load(wanted), wanted.models, observers
        )
        simulation.run()
    assert any(sum(isinstance(c, Run) for c in commands) == 2 for _, _, commands in kept.steps)
    done = replay(path)
    assert done.difference is None
    assert done.steps == len(kept.steps)
