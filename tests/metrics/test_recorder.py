from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.core.commands import Execution, Reply, Run
from coinfer.core.events import Arrived, Failed, Finished, TimerFired
from coinfer.core.request import Outcome, Request
from coinfer.machine.span import Span
from coinfer.metrics.recorder import Recorder
from coinfer.metrics.records import ExecutionOutcome, Window
from coinfer.metrics.summary import Summary, summarise
from core.compiled import only_plain
from metrics.story import MODELS, NAMES, PROCESSORS, Story, stories

windows = st.builds(
    lambda start, length: Window(start_s=start, end_s=start + length),
    st.floats(0.0, 5.0),
    st.floats(0.5, 10.0),
)


def summary_of(recorder: Recorder, now: float) -> Summary:
    return summarise(
        recorder.run_counts(now),
        scenario="s",
        mode="simulate",
        policy="fcfs",
        seed=1,
        processors=PROCESSORS,
        models=MODELS,
    )


@settings(deadline=None, max_examples=50)
@given(stories, windows, st.booleans())
def test_every_submitted_request_has_one_outcome_or_is_unfinished(
    story: Story, window: Window, keep: bool
) -> None:
    summary = summary_of(story.told_to(Recorder(window=window, keep_records=keep)), story.now)
    for row in (*summary.models.values(), summary.totals):
        assert row.submitted == (
            row.completed + row.dropped + row.rejected + row.failed + row.cancelled + row.unfinished
        )


@settings(deadline=None, max_examples=50)
@given(stories, windows, st.booleans())
def test_counts_are_those_of_the_story(story: Story, window: Window, keep: bool) -> None:
    recorder = story.told_to(Recorder(window=window, keep_records=keep))
    summary = summary_of(recorder, story.now)
    length = max(0.0, min(window.end_s, story.now) - window.start_s)
    assert summary.duration_s == length
    for model in MODELS:
        row = summary.models[model]
        due = [
            r
            for r in story.arrived
            if r.model == model and window.start_s <= r.arrival_s < window.end_s
        ]
        answers = {r.id: story.answers.get(r.id) for r in due}
        ends = {i: answer[1] for i, answer in answers.items() if answer}
        done = [r for r in due if (a := answers[r.id]) and a[0] is Outcome.COMPLETED]
        assert row.submitted == len(due)
        assert row.completed == len(done)
        assert row.late == sum(ends[r.id] > r.deadline_s for r in done)
        assert row.dropped == sum(
            a is not None and a[0] is Outcome.DROPPED for a in answers.values()
        )
        assert row.unfinished == sum(a is None for a in answers.values())
        limited = [r for r in due if r.deadline_s < float("inf")]
        hits = sum(r in done and ends[r.id] <= r.deadline_s for r in limited)
        assert row.deadline_hit_rate == (hits / len(limited) if limited else None)
        latencies = sorted(ends[r.id] - r.arrival_s for r in done)
        if latencies:
            middle = latencies[(len(latencies) + 1) // 2 - 1]
            assert row.latency_ms.p50 == pytest.approx(
                middle * 1e3, **({"rel": 1e-12} if keep else {"rel": 0.005, "abs": 1e-6})
            )
            assert row.latency_ms.max == pytest.approx(latencies[-1] * 1e3)
            assert row.latency_ms.mean == pytest.approx(sum(latencies) / len(latencies) * 1e3)
        else:
            assert row.latency_ms.p99 is None
        served = sum(
            outcome is Outcome.COMPLETED and window.start_s <= at < window.end_s
            for r in story.arrived
            if r.model == model
            for outcome, at in [story.answers.get(r.id, (None, 0.0))]
        )
        assert row.throughput_per_s == (served / length if length else 0.0)


@settings(deadline=None, max_examples=50)
@given(stories, windows, st.booleans())
def test_busy_time_is_what_overlaps_the_window(story: Story, window: Window, keep: bool) -> None:
    recorder = story.told_to(Recorder(window=window, keep_records=keep))
    run_counts = recorder.run_counts(story.now)
    intervals = [
        *story.intervals,
        *((e.processor, e.started_s, story.now) for e in story.running.values()),
    ]
    for name in NAMES:
        overlaps = [
            max(0.0, min(end, window.end_s) - max(start, window.start_s))
            for processor, start, end in intervals
            if processor == name
        ]
        counts = run_counts.processors.get(name)
        assert (counts.busy_s if counts else 0.0) == pytest.approx(sum(overlaps), abs=1e-9)
        assert (counts.executions if counts else 0) == sum(
            processor == name and window.start_s <= end < window.end_s
            for processor, _, end in story.intervals
        )
        assert summary_of(recorder, story.now).processors[name].busy_fraction <= 1 + 1e-9


@settings(deadline=None, max_examples=50)
@given(stories)
def test_records_tell_the_whole_story_also_outside_the_window(story: Story) -> None:
    recorder = story.told_to(Recorder(window=Window(start_s=1.0, end_s=2.0)))
    records = {record.id: record for record in recorder.requests()}
    executions = {record.id: record for record in recorder.executions()}
    assert sorted(records) == [r.id for r in story.arrived]
    assert len(executions) == len(story.intervals)
    for request in story.arrived:
        record = records[request.id]
        assert (record.outcome, record.finished_s) == story.answers.get(request.id, (None, None))
        assert record.due_s == request.arrival_s
        assert (record.started_s is None) == (not record.executions)
        for number in record.executions:
            if number in executions:
                assert request.id in executions[number].request_ids
    answered = [r.finished_s for r in recorder.requests() if r.finished_s is not None]
    assert answered == sorted(answered)


@settings(deadline=None, max_examples=50)
@given(stories, st.integers(0, 149))
def test_closing_the_window_early_keeps_the_sum_of_outcomes(story: Story, moment: int) -> None:
    recorder = Recorder(keep_records=False)
    for position, (event, commands, now) in enumerate(story.steps):
        if position == moment:
            recorder.end_window(now)
        recorder.observe(event, commands, now)
    summary = summary_of(recorder, story.now)
    totals = summary.totals
    others = totals.dropped + totals.rejected + totals.failed + totals.cancelled
    assert totals.submitted == totals.completed + others + totals.unfinished
    assert totals.unfinished >= 0
    assert summary.duration_s <= story.now


def test_closing_a_window_twice_keeps_the_first_end() -> None:
    recorder = Recorder(window=Window(start_s=0.0, end_s=5.0))
    recorder.end_window(3.0)
    recorder.end_window(4.0)
    assert recorder.window == Window(start_s=0.0, end_s=3.0)


def test_without_records_nothing_is_kept_of_what_is_over() -> None:
    story = Story(Random(3)).play(2000)
    recorder = story.told_to(Recorder(keep_records=False))
    assert not list(recorder.requests())
    assert not list(recorder.executions())
    in_flight = len(story.arrived) - len(story.answers)
    assert len(recorder._counted) + len(recorder._uncounted) == in_flight
    assert len(recorder._running) == len(story.running)


def test_what_began_before_the_recorder_is_ignored() -> None:
    recorder = Recorder()
    request = Request(id=1, model="a", arrival_s=0.0)
    recorder.observe(Finished(1, 0.5), [Reply(request, Outcome.COMPLETED)], 0.5)
    assert recorder.run_counts(1.0).models == {}
    assert recorder.run_counts(1.0).processors == {}


def test_an_execution_serves_a_batch_and_ends_once() -> None:
    recorder = Recorder()
    pair = tuple(Request(id=i, model="a", arrival_s=0.0, batch=2) for i in (1, 2))
    execution = Execution(5, "a", Span(), "p", pair, 0.0, 0.4)
    recorder.observe(Arrived(pair[0]), [], 0.0)
    recorder.observe(Arrived(pair[1]), [Run(execution)], 0.0)
    recorder.observe(Finished(5, 0.3), [Reply(r, Outcome.COMPLETED) for r in pair], 0.5)
    recorder.observe(Finished(5, 0.3), [], 0.7)
    (record,) = recorder.executions()
    assert (record.batch, record.request_ids, record.outcome) == (4, (1, 2), ExecutionOutcome.OK)
    assert (record.started_s, record.finished_s, record.service_s) == (0.0, 0.5, 0.3)
    assert recorder.run_counts(1.0).processors["p"].busy_s == 0.5


class Meddling(Execution):
    """Starts another one while it is looked at, as the thread of an engine may."""

    recorder: Recorder

    @property
    def processor(self) -> str:  # type: ignore[override]
        request = Request(id=2, model="a", arrival_s=0.0)
        other = Execution(6, "a", Span(), "q", (request,), 0.0, 0.4)
        self.recorder.observe(Arrived(request), [Run(other)], 0.1)
        return "p"


@only_plain
def test_counts_can_be_asked_for_while_the_engine_goes_on() -> None:
    recorder = Recorder(keep_records=False)
    request = Request(id=1, model="a", arrival_s=0.0)
    execution = Meddling(5, "a", Span(), "p", (request,), 0.0, 0.4)
    execution.recorder = recorder
    recorder.observe(Arrived(request), [Run(execution)], 0.0)
    assert recorder.run_counts(0.2).processors.keys() == {"p"}
    assert recorder.run_counts(0.2).processors.keys() == {"p", "q"}


def test_a_retry_counts_when_what_failed_runs_again() -> None:
    recorder = Recorder(window=Window(start_s=1.0, end_s=9.0))
    early, counted, lost = (Request(n, "a", at) for n, at in ((0, 0.5), (1, 1.5), (2, 1.5)))

    def run(number: int, processor: str, *requests: Request) -> Run:
        return Run(Execution(number, "a", Span(), processor, requests, 2.0, 1.0))

    for request in (early, counted, lost):
        recorder.observe(Arrived(request), (), request.arrival_s)
    recorder.observe(TimerFired(), (run(0, "p", early, counted), run(1, "q", lost)), 2.0)
    recorder.observe(Failed(0, "oops"), (run(2, "p", early), run(3, "r", counted)), 3.0)
    recorder.observe(Failed(1, "oops"), (Reply(lost, Outcome.FAILED, "oops"),), 3.0)
    recorder.observe(Finished(3, 1.0), (Reply(counted, Outcome.COMPLETED),), 4.0)
    recorder.observe(TimerFired(), (run(4, "q", counted),), 5.0)
    row = summary_of(recorder, 9.0).models["a"]
    assert (row.retried, row.failed, row.completed) == (1, 1, 1)
