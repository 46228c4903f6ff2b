import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.core.commands import Command, Execution, Reply, Run
from coinfer.core.events import Arrived, Finished, TimerFired
from coinfer.core.request import Outcome, Request
from coinfer.errors import ConfigurationError
from coinfer.machine.span import Span
from coinfer.metrics.recorder import Recorder
from coinfer.metrics.records import Window
from coinfer.metrics.summary import Summary, summarise
from metrics.story import MODELS, PROCESSORS, Story, stories


def summary_of(recorder: Recorder, now: float, **more: object) -> Summary:
    fixed = {"scenario": "s", "mode": "run", "policy": "fcfs", "seed": 1, "processors": PROCESSORS}
    return summarise(recorder.run_counts(now), **{**fixed, **more})  # type: ignore[arg-type]


def answered(outcome: Outcome, *, deadline_s: float = math.inf, at: float = 0.5) -> Recorder:
    recorder = Recorder()
    request = Request(id=1, model="a", arrival_s=0.0, deadline_s=deadline_s)
    commands: list[Command] = [Reply(request, outcome)]
    recorder.observe(Arrived(request), [], 0.0)
    recorder.observe(TimerFired(), commands, at)
    return recorder


@settings(deadline=None, max_examples=50)
@given(stories, st.booleans())
def test_json_round_trip_is_lossless(story: Story, keep: bool) -> None:
    summary = summary_of(
        story.told_to(Recorder(keep_records=keep)),
        story.now,
        models=MODELS,
        bound_per_s=12.5,
        environment={"cores": 2, "versions": {"numpy": "2"}},
        output_errors={"p": {"a": 0.002}},
        warnings=["noisy"],
    )
    text = json.dumps(summary.to_json(), allow_nan=False)
    assert Summary.from_json(json.loads(text)) == summary


def test_json_has_the_documented_fields() -> None:
    data = summary_of(answered(Outcome.COMPLETED), 1.0, bound_per_s=4.0).to_json()
    assert list(data)[:10] == [
        "scenario", "mode", "policy", "seed", "duration_s", "environment", "models", "processors",
        "totals", "bound",
    ]  # fmt: skip
    assert set(data["models"]["a"]) >= {
        "submitted", "completed", "late", "dropped", "failed", "throughput_per_s",
        "deadline_hit_rate", "latency_ms",
    }  # fmt: skip
    assert set(data["models"]["a"]["latency_ms"]) == {"mean", "p50", "p90", "p95", "p99", "max"}
    assert set(data["processors"]["p"]) >= {
        "backend", "units", "precision", "busy_fraction", "executions",
    }  # fmt: skip
    assert set(data["totals"]) >= {"submitted", "completed", "throughput_per_s"}
    assert data["bound"] == {"throughput_per_s": 4.0, "fraction": 0.25, "mix_of": "offered"}


@pytest.mark.parametrize(
    "outcome", [Outcome.DROPPED, Outcome.REJECTED, Outcome.FAILED, Outcome.CANCELLED]
)
def test_what_is_not_completed_misses_its_deadline_and_has_no_latency(outcome: Outcome) -> None:
    row = summary_of(answered(outcome, deadline_s=9.0), 10.0).models["a"]
    assert row.deadline_hit_rate == 0.0
    assert row.latency_ms.mean is None
    assert row.latency_ms.p50 is None
    assert row.late == 0
    assert row.throughput_per_s == 0.0


def test_unfinished_requests_miss_their_deadlines_and_are_warned_about() -> None:
    recorder = Recorder()
    recorder.observe(Arrived(Request(id=1, model="a", arrival_s=0.0, deadline_s=99.0)), [], 0.0)
    summary = summary_of(recorder, 1.0)
    assert summary.models["a"].unfinished == 1
    assert summary.models["a"].deadline_hit_rate == 0.0
    assert any("1 requests had no answer" in warning for warning in summary.warnings)


def test_an_answer_at_the_deadline_is_in_time_and_after_it_is_late() -> None:
    on_time = summary_of(answered(Outcome.COMPLETED, deadline_s=0.5), 1.0).models["a"]
    late = summary_of(answered(Outcome.COMPLETED, deadline_s=0.499), 1.0).models["a"]
    assert (on_time.deadline_hit_rate, on_time.late) == (1.0, 0)
    assert (late.deadline_hit_rate, late.late, late.completed) == (0.0, 1, 1)


def test_no_deadline_means_no_hit_rate() -> None:
    assert summary_of(answered(Outcome.COMPLETED), 1.0).models["a"].deadline_hit_rate is None


def test_latency_counts_from_the_moment_due() -> None:
    recorder = Recorder()
    request = Request(id=1, model="a", arrival_s=1.0)
    recorder.observe(Arrived(request), [], 1.4)
    recorder.observe(TimerFired(), [Reply(request, Outcome.COMPLETED)], 1.5)
    assert summary_of(recorder, 2.0).models["a"].latency_ms.mean == pytest.approx(500.0)


def test_completion_after_the_window_counts_as_completed_but_not_as_throughput() -> None:
    recorder = Recorder(window=Window(start_s=0.0, end_s=2.0))
    for number, (due, done) in enumerate([(0.0, 1.0), (1.0, 3.0), (2.5, 3.5)]):
        request = Request(id=number, model="a", arrival_s=due)
        recorder.observe(Arrived(request), [], due)
        recorder.observe(TimerFired(), [Reply(request, Outcome.COMPLETED)], done)
    row = summary_of(recorder, 4.0).models["a"]
    assert (row.submitted, row.completed, row.throughput_per_s) == (2, 2, 0.5)


def test_models_and_processors_that_did_nothing_are_listed() -> None:
    summary = summary_of(Recorder(), 1.0, models=("z", "a"))
    assert list(summary.models) == ["z", "a"]
    assert summary.models["z"].submitted == 0
    assert summary.processors["q"].busy_fraction == 0.0


def test_a_run_stopped_during_warm_up_has_figures_without_dividing_by_zero() -> None:
    recorder = Recorder(window=Window(start_s=5.0, end_s=6.0))
    summary = summary_of(recorder, 1.0, models=("a",), bound_per_s=10.0)
    assert (summary.duration_s, summary.totals.throughput_per_s) == (0.0, 0.0)
    assert summary.bound.fraction == 0.0


def test_a_run_that_exceeds_its_bound_has_a_profile_that_is_out_of_date() -> None:
    summary = summary_of(answered(Outcome.COMPLETED), 1.0, bound_per_s=0.9, mode="run")
    assert any("the profile is out of date" in warning for warning in summary.warnings)
    within_noise = summary_of(answered(Outcome.COMPLETED), 1.0, bound_per_s=0.99, mode="run")
    assert not any("of its bound" in warning for warning in within_noise.warnings)


def test_a_simulation_that_exceeds_its_bound_drew_short_times() -> None:
    summary = summary_of(answered(Outcome.COMPLETED), 1.0, bound_per_s=0.9, mode="simulate")
    [warning] = [each for each in summary.warnings if "than the bound" in each]
    assert warning.startswith("11.1% more was served")
    assert "times drawn were shorter" in warning


@pytest.mark.parametrize("mode", ["run", "simulate"])
def test_what_began_before_the_window_may_exceed_the_bound(mode: str) -> None:
    recorder = Recorder(window=Window(start_s=1.0, end_s=2.0))
    waiting = Request(id=1, model="a", arrival_s=0.0)
    execution = Execution(1, "a", Span(), "p", (waiting,), 0.5, 1.0)
    recorder.observe(Arrived(waiting), [Run(execution)], 0.5)
    recorder.observe(Finished(1, 1.0), [Reply(waiting, Outcome.COMPLETED)], 1.5)
    run_counts = recorder.run_counts(2.0)
    assert run_counts.processors["p"].begun_s == 0.5
    summary = summary_of(recorder, 2.0, bound_per_s=0.8, mode=mode)
    assert any("had partly been done before it" in warning for warning in summary.warnings)
    more = summary_of(recorder, 2.0, bound_per_s=0.6, mode=mode)
    assert not any("had partly been done before it" in warning for warning in more.warnings)


@pytest.mark.parametrize("broken", [None, [], {}, {"scenario": 1}, {"scenario": math.nan}])
def test_what_is_no_summary_is_refused_in_one_line(broken: object) -> None:
    with pytest.raises(ConfigurationError, match="not the JSON of a run") as caught:
        Summary.from_json(broken)
    assert "\n" not in str(caught.value)


def test_a_wrong_field_is_named_and_an_unknown_one_ignored() -> None:
    data = summary_of(answered(Outcome.COMPLETED), 1.0).to_json()
    assert Summary.from_json({**data, "later": 1}).scenario == "s"
    data["totals"]["submitted"] = "many"
    with pytest.raises(ConfigurationError, match=r"totals\.submitted"):
        Summary.from_json(data)


@pytest.mark.parametrize("figure", [math.inf, -math.inf, math.nan])
def test_figures_that_are_no_numbers_are_refused(figure: float) -> None:
    data = summary_of(answered(Outcome.COMPLETED), 1.0).to_json()
    data["totals"]["throughput_per_s"] = figure
    with pytest.raises(ConfigurationError, match="not the JSON of a run"):
        Summary.from_json(data)
