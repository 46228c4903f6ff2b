"""The search finds the factor that queueing theory knows, and says how close it came."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from coinfer.core.request import Outcome
from coinfer.errors import ConfigurationError
from coinfer.experiments.saturation import (
    Kept,
    Quality,
    Saturation,
    find_saturation,
    frames_of,
    on_machine,
    on_this_machine,
)
from coinfer.machine.batching import Batching
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.metrics.latency import LatencySketch
from coinfer.plan import Plan, PolicyChoice
from coinfer.planner.prepare import prepare
from coinfer.profiling import Effort, Profiler
from coinfer.workload.arrivals import After
from coinfer.workload.scenario import Scenario
from sim.machines import machine

SERVICE_S = 0.004
ONE = machine({"m": {"p": SERVICE_S}})

FCFS = PolicyChoice(name="fcfs")


def scenario(process: dict[str, Any], **promises: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "models": {"m": {"source": "zoo:tiny_mlp", **promises}},
            "arrivals": {"m": process},
            "duration": 20.0,
            "warmup": 0.0,
            "policy": "fcfs",
        }
    )


def search(
    wanted: Scenario, quality: Quality, least: float, precision: float = 1e-4, guess: float = 1.0
) -> Saturation:
    kept = Kept.of(wanted, quality=quality, least=least)
    return find_saturation(
        wanted, kept, on_machine(Plan.of(ONE, policy=FCFS)), precision=precision, guess=guess
    )


@pytest.mark.parametrize(("rate_per_s", "guess"), [(10.0, 1.0), (10.0, 300.0), (900.0, 0.01)])
def test_periodic_frames_fit_until_the_period_is_the_service_time(
    rate_per_s: float, guess: float
) -> None:
    """A steady stream on one server meets every deadline of one period up to a load of 1."""
    wanted = scenario({"periodic": rate_per_s}, deadline="period")
    wanted = wanted.with_options(duration_s=300 / rate_per_s)
    found = search(wanted, Quality.HIT_RATE, 1.0, guess=guess)
    known = 1 / (rate_per_s * SERVICE_S)
    assert found.factor is not None
    assert found.broken_at is not None
    # The period at the factor itself is the service time but for rounding: either is right.
    assert found.factor <= known * (1 + 1e-9)
    assert found.broken_at >= known * (1 - 1e-9)
    assert 0 < found.precision <= 1e-4


def test_drops_begin_at_a_load_of_one_over_the_share_to_keep() -> None:
    """A saturated server completes one frame per service time; the others are dropped."""
    wanted = scenario({"periodic": 1000.0}, deadline="period", on_late="drop")
    wanted = wanted.with_options(duration_s=4.0)
    found = search(wanted, Quality.QOE, 0.5, precision=1e-3)
    assert found.factor == pytest.approx(1 / (0.5 * 1000 * SERVICE_S), rel=2e-3)


def test_a_fixed_deadline_limits_the_load_of_an_md1_queue() -> None:
    """P(wait > t) of M/D/1 grows with the load; at the answer it is as large as allowed."""
    wanted = scenario({"poisson": 100.0}, deadline=0.012).with_options(duration_s=100.0)
    found = search(wanted, Quality.HIT_RATE, 0.9, precision=3e-3, guess=2.0)
    assert found.factor is not None
    load = found.factor * 100 * SERVICE_S
    assert 1 - md1_waits_at_most(2.0, load) == pytest.approx(0.1, abs=0.02)


def md1_waits_at_most(services: float, load: float) -> float:
    """P(wait <= services) of M/D/1 (Erlang 1909; for example Tijms 2003, section 9.5.3)."""
    return (1 - load) * sum(
        (load * (k - services)) ** k / math.factorial(k) * math.exp(-load * (k - services))
        for k in range(int(services) + 1)
    )


def test_two_searches_take_the_same_steps() -> None:
    wanted = scenario({"poisson": 100.0}, deadline=0.02).with_options(duration_s=5.0)
    first, second = (search(wanted, Quality.HIT_RATE, 0.9, precision=0.01) for _ in range(2))
    assert first == second
    assert len(first.trials) < 12


def test_trials_tell_the_batches_that_let_them_take_more() -> None:
    entries = {
        ProfileKey("m", "p", batch): Measurement(seconds=(SERVICE_S * (0.8 + 0.2 * batch),))
        for batch in (1, 8)
    }
    plan = Plan.of(dataclasses.replace(ONE, profile=Profile(entries)), policy=FCFS)
    wanted = scenario({"poisson": 100.0}, deadline=0.1)
    kept = Kept.of(wanted, quality=Quality.HIT_RATE, least=0.95)
    factors = []
    for each in (plan, plan.with_batching("m", Batching(8))):
        found = find_saturation(wanted, kept, on_machine(each), precision=0.1)
        factors.append(found.factor)
    assert factors[1] > 1.5 * factors[0]
    trial = found.to_json()["trials"][-1]
    assert min(trial["shared"]["m"]) == 2
    assert max(trial["shared"]["m"]) <= 8
    assert 2 <= found.trials[-1].together["m"] <= 8


def test_trials_have_the_same_frames_whatever_the_factor() -> None:
    wanted = scenario({"poisson": 50.0}, deadline=1.0)
    measure = on_machine(Plan.of(ONE, policy=FCFS))
    counts = {measure(wanted.scaled(f)).models["m"].submitted for f in (0.1, 1.0, 3.7)}
    assert len(counts) == 1


def test_the_answer_stands_between_a_passed_and_a_broken_trial() -> None:
    found = search(scenario({"periodic": 100.0}, deadline="period"), Quality.HIT_RATE, 0.95, 0.05)
    by_factor = {trial.factor: trial.passed for trial in found.trials}
    assert by_factor[found.factor]
    assert not by_factor[found.broken_at]
    assert found.to_json()["trials"][0]["shares"].keys() == {"m"}


def stub(models: dict[str, tuple[int, int]], withheld: dict[str, int]) -> RunCounts:
    """Submitted and completed in time, by model."""
    run_counts = {}
    for name, (submitted, done) in models.items():
        counts = run_counts[name] = ModelCounts(LatencySketch())
        counts.submitted = submitted
        counts.hits = done
        for _ in range(done):
            counts.latencies.add(0.01)
    return RunCounts(duration_s=1.0, models=run_counts, withheld=withheld)


CASCADE = {
    "models": {
        "a": {"source": "x", "deadline": 0.1, "on_late": "drop"},
        "b": {"source": "x", "deadline": 0.1},
        "free": {"source": "x"},
        "loop": {"source": "x"},
        "tail": {"source": "x", "deadline": 0.1},
    },
    "arrivals": {
        "a": {"periodic": 10},
        "b": {"after": "a"},
        "free": {"poisson": 3},
        "loop": {"closed": 1},
        "tail": {"after": "loop"},
    },
}


def test_withheld_frames_count_and_closed_loops_do_not() -> None:
    wanted = Scenario.model_validate(CASCADE)
    seen = stub(
        {"a": (10, 8), "b": (8, 6), "free": (4, 4), "loop": (9, 1), "tail": (9, 0)}, {"b": 2}
    )
    qoe = Kept.of(wanted, quality=Quality.QOE).shares(seen, wanted)
    assert qoe == {"a": 0.8, "b": 0.6, "free": 1.0}
    assert Kept.of(wanted, quality=Quality.HIT_RATE).shares(seen, wanted) == {"a": 0.8, "b": 0.6}


def test_by_default_the_qoe_is_asked_for_only_where_something_is_dropped() -> None:
    dropping = Scenario.model_validate(CASCADE)
    assert Kept.of(dropping) == Kept(quality=Quality.QOE, least=0.95)
    patient = scenario({"periodic": 10}, deadline=0.1)
    assert Kept.of(patient) == Kept(quality=Quality.HIT_RATE, least=0.95)


@pytest.mark.parametrize(
    ("process", "promises", "options", "message"),
    [
        ({"closed": 1}, {"deadline": 0.1}, {}, "has no rate to scale"),
        ({"periodic": 1}, {}, {}, "has a deadline, so nothing tells when it is saturated"),
        ({"periodic": 1}, {"deadline": 0.1}, {"quality": Quality.QOE}, "its QoE is 1 at any rate"),
        ({"periodic": 1}, {"deadline": 0.1}, {"least": 1.5}, "must be in 0..1, is 1.5"),
        ({"periodic": 1}, {"deadline": 0.1}, {"least": 0.0}, "must be in 0..1, is 0"),
    ],
)
def test_a_question_without_an_answer_is_refused(
    process: dict[str, Any], promises: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Kept.of(scenario(process, **promises), **options)


def test_a_precision_that_is_never_reached_is_refused() -> None:
    wanted = scenario({"periodic": 1}, deadline=0.1)
    with pytest.raises(ConfigurationError, match="precision must be greater than 0"):
        search(wanted, Quality.HIT_RATE, 0.9, precision=0.0)


def test_a_deadline_below_the_service_time_is_kept_at_no_rate() -> None:
    found = search(scenario({"periodic": 10}, deadline=0.001), Quality.HIT_RATE, 0.9)
    assert found.factor is None
    assert found.precision is None


def test_a_stride_that_leads_nowhere_is_refused() -> None:
    wanted = scenario({"periodic": 1}, deadline=0.1)
    kept = Kept.of(wanted)
    with pytest.raises(ConfigurationError, match="stride must be greater than 1"):
        find_saturation(wanted, kept, on_machine(Plan.of(ONE, policy=FCFS)), stride=1.0)


def test_a_short_stride_from_a_good_guess_takes_few_trials() -> None:
    wanted = scenario({"periodic": 1000.0}, deadline="period", on_late="drop")
    kept = Kept.of(wanted, least=0.5)
    measure = on_machine(Plan.of(ONE, policy=FCFS))
    near = find_saturation(wanted, kept, measure, guess=0.5, stride=1.1, precision=0.1)
    assert near.factor == pytest.approx(0.5, rel=0.1)
    assert len(near.trials) <= 3


@pytest.mark.parametrize(("quality", "dropped", "late"), [("qoe", 7, 99), ("hit_rate", 3, 4)])
def test_a_promise_is_broken_once_more_is_lost_than_the_rest_can_make_up(
    quality: str, dropped: int, late: int
) -> None:
    """Of 100 frames 95 must be kept; of 160, eight may be lost."""
    kept = Kept(quality=Quality(quality), least=0.95)
    counts = ModelCounts(LatencySketch())
    counts.submitted = 80
    counts.others[Outcome.DROPPED] = dropped - 2
    counts.late = late
    run_counts = RunCounts(duration_s=1.0, models={"m": counts}, withheld={"m": 0})
    wanted = scenario({"periodic": 1.0}, deadline=0.1)
    more = dataclasses.replace(run_counts, withheld={"m": 3})
    assert not kept.is_broken(run_counts, wanted, {"m": 100})
    assert kept.is_broken(more, wanted, {"m": 100})
    assert not kept.is_broken(more, wanted, {"m": 160})


def test_a_trial_is_not_ended_for_a_model_that_is_not_asked_about() -> None:
    """Without a deadline there is no hit rate; what is lost of `free` decides nothing."""
    wanted = Scenario.model_validate(CASCADE)
    seen = stub({"a": (10, 10), "b": (10, 10), "free": (4, 0)}, {"free": 9})
    frames = {"a": 10, "b": 10, "free": 13}
    assert not Kept.of(wanted, quality=Quality.HIT_RATE).is_broken(seen, wanted, frames)
    assert Kept.of(wanted, quality=Quality.QOE).is_broken(seen, wanted, frames)


def test_a_frame_at_the_edge_of_a_trial_may_have_several_followers() -> None:
    """Of 20 crops one is lost, and up to 4 more may be due: 19 of 20 or 23 of 24."""
    wanted = scenario({"periodic": 1.0}, deadline=0.1)
    for count, broken in ((1, True), (4, False)):
        crops = {"m": wanted.processes["m"], "crop": After(after="m", count=count)}
        models = {**wanted.models, "crop": wanted.models["m"]}
        several = wanted.model_copy(update={"models": models, "arrivals": crops})
        seen = stub({"m": (5, 5), "crop": (19, 19)}, {"crop": 1})
        kept = Kept(quality=Quality.QOE, least=0.955)
        assert kept.is_broken(seen, several, {"m": 5, "crop": 20}) is broken


@pytest.mark.parametrize("process", [{"periodic": 40.0}, {"gamma": 50.0, "cv": 5.0}])
def test_frames_are_counted_as_they_will_be(process: dict[str, Any]) -> None:
    """The counts of bursts are far from what their rate says."""
    wanted = Scenario.model_validate(
        {
            "models": {
                "m": {"source": "x"},
                "next": {"source": "x"},
                "crops": {"source": "x"},
                "loop": {"source": "x"},
                "tail": {"source": "x"},
            },
            "arrivals": {
                "m": process,
                "next": {"after": "m", "probability": 0.5},
                "crops": {"after": "next", "count": {"poisson": 3}},
                "loop": {"closed": 1},
                "tail": {"after": "loop"},
            },
            "duration": 3.0,
            "warmup": 1.0,
            "policy": "fcfs",
        }
    )
    times = {name: {"p": 1e-5} for name in wanted.models}
    done = on_machine(Plan.of(machine(times), policy=FCFS))(wanted)
    followed = ("m", "next", "crops")
    assert frames_of(wanted) == {name: done.models[name].submitted for name in followed}


@pytest.mark.alone
def test_trials_run_on_this_machine() -> None:
    wanted = scenario({"periodic": 20.0}, deadline=5.0).with_options(duration_s=0.2)
    effort = Effort(min_runs=2, max_runs=3, max_s=0.05)
    ready = prepare(wanted, Profiler(effort=effort))
    with on_this_machine(ready, Kept.of(wanted)) as measure:
        for _ in range(2):
            run_counts = measure(wanted.scaled(2.0))
            assert run_counts.models["m"].hits == run_counts.models["m"].submitted == 8


@pytest.mark.alone
def test_a_trial_on_this_machine_ends_once_the_promise_is_broken() -> None:
    wanted = scenario({"periodic": 100.0}, deadline=1e-9).with_options(duration_s=60.0)
    ready = prepare(wanted, Profiler(effort=Effort(min_runs=2, max_runs=3, max_s=0.05)))
    with on_this_machine(ready, Kept.of(wanted, least=0.999)) as measure:
        run_counts = measure(wanted)
    assert run_counts.models["m"].hits == 0
    assert 7 <= run_counts.models["m"].submitted < 3000
