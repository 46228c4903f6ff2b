"""Submission: what is measured is kept, and is no time that a model runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.experiments import handover, submission
from coinfer.machine.submission import Submission
from coinfer.profiling import ProfileCache


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_MOMENTS", 4), ("_GAP_S", 0.005)):
        monkeypatch.setattr(submission, name, value)
    monkeypatch.setattr(handover, "_RUNS", 8)


@pytest.mark.parametrize("preempts", [False, True])
def test_submission_is_measured_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, preempts: bool
) -> None:
    cache = ProfileCache(tmp_path)
    found = submission.submission(cache, preempts=preempts)
    assert min(found.first_s, found.next_s, *found.factors) >= 0.0
    monkeypatch.setattr(submission, "_answered_s", None)
    assert submission.submission(cache, preempts=preempts) == found


def test_what_comes_later_of_several_is_shared_among_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = {1: [0.25, 0.75, 9.0, 0.5], submission._TOGETHER: [2.25, 2.25, 2.25]}
    monkeypatch.setattr(submission, "_answered_s", lambda n, *, preempts: answered[n])
    monkeypatch.setattr(submission, "handover_s", lambda _cache: 0.125)
    found = submission.submission(ProfileCache(tmp_path))
    # Of those alone 9.0 is a pause; the mean of the others is 0.5.
    assert found == Submission(0.375, 0.25, (0.5, 1.5, 1.0, 1.0, 1.0, 1.0))


@pytest.mark.parametrize("preempts", [False, True])
@pytest.mark.parametrize("together", [1, 3])
def test_every_moment_counts_once(together: int, *, preempts: bool) -> None:
    answered = submission._answered_s(together, preempts=preempts)
    assert len(answered) == 4
    assert min(answered) > 0.0


def test_hand_overs_vary_as_they_were_measured(tmp_path: Path) -> None:
    cache = ProfileCache(tmp_path)
    found = handover.handover(cache)
    assert handover.handover_s(cache) == found.mean_s
    factors = handover.factors(found.seconds)
    assert [found.mean_s * each for each in factors] == pytest.approx(found.seconds)
