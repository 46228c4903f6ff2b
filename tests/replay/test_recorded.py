"""Logs of an earlier version lead to identical commands; how they were made is in `record`."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.replay import replay
from replay.record import FOLDER, KINDS, record, recordable

LOGS = sorted(FOLDER.glob("*.jsonl.gz"))


def test_there_is_a_log_of_each_kind_for_each_policy() -> None:
    names = {path.name.partition(".")[0] for path in LOGS}
    assert {f"{kind}-{policy}" for kind in KINDS for policy in recordable()} <= names


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name.partition(".")[0])
def test_a_recorded_log_leads_to_the_same_commands(path: Path) -> None:
    done = replay(path)
    assert done.difference is None
    assert done.commands > 20


def test_a_log_recorded_now_replays_too(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    record(path, "fork", "heft_reserved")
    assert replay(path).difference is None
