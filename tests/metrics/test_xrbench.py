"""XRBench's score against an example computed by hand, and at the ends of the number range."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from coinfer.core.commands import Reply
from coinfer.core.events import Arrived, Finished
from coinfer.core.request import Outcome, Request
from coinfer.metrics.counts import RunCounts
from coinfer.metrics.recorder import Recorder
from coinfer.metrics.summary import Summary, summarise
from coinfer.metrics.table import score_lines
from coinfer.metrics.xrbench import ScoredCounts, qoe, realtime_score, xrbench_score

LATE = {"a": (-1.0, 0.0, math.log(3) / 15e3, None), "b": (-1.0, -1.0)}
"""By model, seconds after the deadline of each request; None was dropped."""


def recorded(counts: type[ScoredCounts] | None = ScoredCounts) -> RunCounts:
    """Requests with those answers; two more of b, and one of c, were withheld."""
    recorder = Recorder(counts=counts) if counts else Recorder()
    number = 0
    for model, answers in LATE.items():
        for late_s in answers:
            request = Request(id=number, model=model, arrival_s=0.0, deadline_s=10.0)
            recorder.observe(Arrived(request), (), 0.0)
            outcome = Outcome.DROPPED if late_s is None else Outcome.COMPLETED
            reply = Reply(request, outcome)
            recorder.observe(Finished(99, 0.1), (reply,), 10.0 + (late_s or 0.0))
            number += 1
    return recorder.run_counts(20.0, withheld={"b": 2, "c": 1})


def summary(run_counts: RunCounts) -> Summary:
    return summarise(
        run_counts,
        scenario="s",
        mode="run",
        policy="fcfs",
        seed=0,
        processors=[],
        models=["c", "b", "a", "d"],
    )


def test_the_score_is_the_one_computed_by_hand() -> None:
    found = xrbench_score(recorded())
    assert found is not None
    a, b, c = (found.models[name] for name in "abc")
    # 1, 1/2 and 1 / (1 + 3) of four frames, three of them completed.
    assert (a.frames, a.qoe) == (4, 0.75)
    assert a.realtime == pytest.approx((1 + 0.5 + 0.25) / 4, rel=1e-9)
    assert a.score == pytest.approx(0.4375 * 0.75, rel=1e-9)
    assert (b.frames, b.qoe, b.realtime, b.score) == (4, 0.5, 0.5, 0.25)
    assert (c.frames, c.qoe, c.realtime, c.score) == (1, 0.0, 0.0, 0.0)
    assert found.score == pytest.approx(100 * (0.328125 + 0.25 + 0.0) / 3, rel=1e-9)


def test_without_scored_counts_there_is_a_qoe_but_no_score() -> None:
    assert xrbench_score(recorded(None)) is None
    assert qoe(recorded(None)) == qoe(recorded()) == {"a": 0.75, "b": 0.5, "c": 0.0}
    assert summary(recorded(None)).score is None


def test_nothing_asked_for_has_no_score() -> None:
    assert xrbench_score(RunCounts(duration_s=1.0)) is None


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_the_realtime_score_falls_from_one_to_zero(one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert 1.0 >= realtime_score(early) >= realtime_score(late) >= 0.0


def test_the_realtime_score_survives_infinite_lateness() -> None:
    assert realtime_score(math.inf) == 0.0
    assert realtime_score(-math.inf) == 1.0
    assert realtime_score(0.1e-3) == pytest.approx(1 / (1 + math.exp(1.5)))


def test_the_summary_lists_models_in_order_and_writes_json() -> None:
    made = summary(recorded())
    assert made.score is not None
    assert list(made.score.models) == ["c", "b", "a", "d"]
    assert (made.score.models["d"].frames, made.score.models["d"].score) == (0, None)
    assert made.models["b"].withheld == 2
    assert made.models["b"].submitted == 2
    assert Summary.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_the_table_shows_each_model_and_the_whole() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        for line in score_lines(summary(recorded())):
            console.print(line)
    lines = capture.get().splitlines()
    assert lines[1] == " b: QoE 50.0% of 4 frames, realtime 50.0%, score 25.0%"
    assert lines[3] == " d: QoE - of 0 frames, realtime -, score -"
    assert lines[-1] == "XRBench score 19.27 of 100, energy left out"
