import gzip
import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from coinfer.core.commands import Execution, Reply, Run
from coinfer.core.events import Arrived, Finished
from coinfer.core.request import Outcome, Request
from coinfer.machine.span import Span
from coinfer.metrics.recorder import Recorder
from coinfer.metrics.trace import trace_events, write_trace
from metrics.story import PROCESSORS, Story, stories


def events_of(story: Story) -> list[dict[str, Any]]:
    recorder = story.told_to(Recorder())
    return list(trace_events(recorder.requests(), recorder.executions(), PROCESSORS))


def ns(us: float) -> int:
    return round(us * 1000)


@settings(deadline=None, max_examples=50)
@given(stories)
def test_slices_of_a_processor_do_not_overlap_and_come_in_order(story: Story) -> None:
    events = events_of(story)
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["tid"]].append(event)
    assert sum(map(len, tracks.values())) == len(story.intervals)
    for slices in tracks.values():
        for first, second in pairwise(slices):
            assert first["dur"] >= 0
            assert ns(first["ts"]) + ns(first["dur"]) <= ns(second["ts"])


@settings(deadline=None, max_examples=50)
@given(stories)
def test_each_request_begins_once_and_ends_once_not_before(story: Story) -> None:
    events = events_of(story)
    begun: dict[str, float] = {}
    ended: set[str] = set()
    last: dict[str, float] = {}
    for event in events:
        if event["ph"] not in "be":
            continue
        assert event["ts"] >= last.get(event["cat"], 0.0)
        last[event["cat"]] = event["ts"]
        if event["ph"] == "b":
            assert event["id"] not in begun
            begun[event["id"]] = event["ts"]
        else:
            assert event["ts"] >= begun[event["id"]]
            assert event["id"] not in ended
            ended.add(event["id"])
    assert len(begun) == len(ended) == len(story.arrived)


@settings(deadline=None, max_examples=50)
@given(stories)
def test_waiting_counters_end_at_what_still_waits_and_never_fall_below_zero(story: Story) -> None:
    events = events_of(story)
    last: dict[str, tuple[float, int]] = {}
    for event in events:
        if event["ph"] == "C":
            at, waiting = event["ts"], event["args"]["requests"]
            assert waiting >= 0
            assert event["name"] not in last or at > last[event["name"]][0]
            last[event["name"]] = (at, waiting)
    started = {r.id for _, commands, _ in story.steps for c in commands if isinstance(c, Run)
               for r in c.execution.requests}  # fmt: skip
    left = Counter(
        f"waiting: {r.model}"
        for r in story.arrived
        if r.id not in story.answers and r.id not in started
    )
    assert {name: waiting for name, (_, waiting) in last.items() if waiting} == left


def test_tracks_are_named_after_the_processors() -> None:
    names = {
        event["args"]["name"]: event["tid"]
        for event in trace_events([], [], PROCESSORS)
        if event["name"] == "thread_name"
    }
    assert names == {"p (null fp32)": 1, "q (null fp32)": 2}


def one_request() -> Recorder:
    recorder = Recorder()
    request = Request(id=26, model="a", arrival_s=10.0)
    execution = Execution(3, "a", Span(0, 1), "q", (request,), 10.25, 0.5)
    recorder.observe(Arrived(request), [], 10.0)
    recorder.observe(Finished(99, 0.0), [Run(execution)], 10.25)
    recorder.observe(Finished(3, 0.5), [Reply(request, Outcome.COMPLETED)], 11.0)
    return recorder


def test_a_slice_says_what_ran_and_how_long_it_was_expected_to(tmp_path: Path) -> None:
    recorder, path = one_request(), tmp_path / "trace.json"
    write_trace(
        path,
        requests=recorder.requests(),
        executions=recorder.executions(),
        processors=PROCESSORS,
        metadata={"policy": "fcfs"},
        origin_s=10.0,
    )
    data = json.loads(path.read_text())
    assert data["otherData"] == {"policy": "fcfs"}
    (found,) = [event for event in data["traceEvents"] if event["ph"] == "X"]
    assert (found["name"], found["tid"]) == ("a[0..1]", 2)
    assert (found["ts"], found["dur"]) == (250_000.0, 750_000.0)
    assert found["args"] == {
        "execution": 3, "model": "a", "batch": 1, "requests": [26], "expected_ms": 500.0,
        "outcome": "ok",
    }  # fmt: skip
    begin, end = [event for event in data["traceEvents"] if event["ph"] in "be"]
    assert (begin["id"], begin["ts"], begin["args"]["waited_ms"]) == ("0x1a", 0.0, 250.0)
    assert (end["id"], end["ts"]) == ("0x1a", 1_000_000.0)
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json"]


def test_equal_runs_give_equal_compressed_files(tmp_path: Path) -> None:
    files = []
    for name in ("one.json.gz", "two.json.gz"):
        recorder = one_request()
        write_trace(
            tmp_path / name,
            requests=recorder.requests(),
            executions=recorder.executions(),
            processors=PROCESSORS,
        )
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert json.loads(gzip.decompress(files[0]))["displayTimeUnit"] == "ms"
