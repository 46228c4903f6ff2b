"""Cascades on real threads: the driver submits what comes after a completed request."""

from __future__ import annotations

from collections import Counter
from typing import Any

from coinfer.backends.null import Faults, NullBackend
from coinfer.core.commands import Reply
from coinfer.core.events import Arrived
from coinfer.core.request import Outcome
from coinfer.machine.profile import Profile
from coinfer.metrics.xrbench import xrbench_score
from coinfer.runtime.load_generator import LoadGenerator
from coinfer.runtime.play import play
from coinfer.workload.load import Load
from coinfer.workload.scenario_file import parse_scenario
from runtime.engines import FEED, MODEL, cpus, null_engine, ready

CHAIN = "{a: {periodic: 200/s}, b: {after: a, probability: 0.5}, c: {after: b}}"


class Steps:
    """Keeps what arrived and how it was answered."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, float, float]] = []
        self.answered: dict[tuple[str, float], tuple[float, Outcome]] = {}

    def observe(self, event: Any, commands: Any, now: float) -> None:
        if isinstance(event, Arrived):
            self.arrived.append((event.request.model, event.request.arrival_s, now))
        for command in commands:
            if isinstance(command, Reply):
                request = command.request
                self.answered[request.model, request.arrival_s] = (now, command.outcome)


def run(arrivals: str, **options: Any) -> tuple[Steps, Load]:
    names = [part.split(":")[0].strip(" {") for part in arrivals.split("}, ")]
    models = "{" + ", ".join(f"{name}: x.onnx" for name in names) + "}"
    scenario = parse_scenario(f"models: {models}\narrivals: {arrivals}\nduration: 0.2\nwarmup: 0\n")
    steps = Steps()
    with null_engine(models=dict.fromkeys(names, MODEL), observer=steps, **options) as engine:
        load = Load(scenario)
        driver = LoadGenerator(engine, load, {name: [FEED] for name in names}, scenario.models)
        driver.play(lambda now_s: True)
        assert engine.drain(20.0)
        driver.stop()
    return steps, load


def test_each_follower_comes_once_and_after_what_it_follows() -> None:
    steps, load = run(CHAIN, service_s=0.001)
    frames = {(model, due_s) for model, due_s, _ in steps.arrived}
    assert len(frames) == len(steps.arrived)
    by_model = [sum(model == name for model, _, _ in steps.arrived) for name in "abc"]
    assert by_model[0] == 40
    # Which frames are followed is a matter of the seed, so the number is exact.
    assert by_model[1] == by_model[2] == sum(load._cascades["a"][0].trigger(i) for i in range(40))
    for model, due_s, now in steps.arrived:
        if model != "a":
            before, outcome = steps.answered[{"b": "a", "c": "b"}[model], due_s]
            assert outcome is Outcome.COMPLETED
            assert now >= before
    assert load.withheld == {}


def test_every_follower_of_a_frame_is_submitted_once() -> None:
    steps, load = run("{a: {periodic: 100/s}, b: {after: a, count: {poisson: 3}}}")
    trigger = load._cascades["a"][0].trigger
    counts = Counter((model, due_s) for model, due_s, _ in steps.arrived)
    followed = sorted(count for (model, _), count in counts.items() if model == "b")
    assert followed == sorted(filter(None, map(trigger, range(20))))
    assert max(followed) > 1


def test_what_comes_after_a_failed_request_is_withheld() -> None:
    faults = Faults()
    faults.fail(times=10**6)
    steps, load = run("{a: {periodic: 100/s}, b: {after: a}}", faults=faults)
    assert {model for model, _, _ in steps.arrived} == {"a"}
    assert load.withheld == {"b": 20}


def test_a_run_counts_what_comes_after_its_last_frames_and_scores_it() -> None:
    """The window is over before the last frame is answered; what comes after it belongs to it."""
    models = "{a: {source: x, deadline: 10s}, b: {source: x, deadline: 10s}}"
    scenario = parse_scenario(
        f"models: {models}\narrivals: {{a: {{periodic: 10/s}}, b: {{after: a}}}}\n"
        "duration: 0.25\nwarmup: 0\nscore: xrbench\n"
    )
    profile = Profile.from_seconds({name: {"p0": 0.04} for name in "ab"})
    played = play(
        ready(scenario, MODEL, FEED, cpus("p0"), profile),
        backends={"null": NullBackend(0.04)},
    )
    assert [played.run_counts.models[name].completed for name in "ab"] == [3, 3]
    score = xrbench_score(played.run_counts)
    assert score is not None
    assert score.score == 100.0
