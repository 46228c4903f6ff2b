"""Submission: what is measured is kept, and is no time that a model runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.experiments import handover
from coinfer.machine.submission import Submission
from coinfer.profiling import ProfileCache


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_MOMENTS", 4), ("_GAP_S", 0.005), ("_RUNS", 8)):
        monkeypatch.setattr(handover, name, value)


def test_submission_is_measured_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ProfileCache(tmp_path)
    found = handover.submission(cache)
    assert min(found) >= 0.0
    monkeypatch.setattr(handover, "_begun_s", None)
    assert handover.submission(cache) == found


def test_what_comes_later_of_several_is_shared_among_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = {
        1: handover._Begun([0.25, 0.25, 9.0], [0.5, 0.5, 9.0]),
        handover._TOGETHER: handover._Begun([2.0, 2.0, 2.0], [5.0, 5.0, 5.0]),
    }
    monkeypatch.setattr(handover, "_begun_s", begun.__getitem__)
    monkeypatch.setattr(handover, "handover_s", lambda _cache: 0.125)
    found = handover.submission(ProfileCache(tmp_path))
    assert found == Submission(first_s=0.375, next_s=0.25)


@pytest.mark.parametrize("together", [1, 3])
def test_every_moment_counts_once(together: int) -> None:
    begun = handover._begun_s(together)
    assert len(begun.started_s) == 4
    assert min(begun.started_s) > 0.0
    assert all(a > s for s, a in zip(begun.started_s, begun.answered_s, strict=True))
