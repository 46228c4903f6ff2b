"""Cores that are kept awake spin below everybody else, and only as long as they are asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from coinfer.hardware.awake import awake
from coinfer.hardware.cgroup import cpu_quota
from coinfer.hardware.cores import available_cores

pytestmark = pytest.mark.alone

linux = pytest.mark.skipif(
    sys.platform != "linux" or cpu_quota() is not None,
    reason="needs a scheduling class of Linux, and all of the processor time",
)
CORE = available_cores()[0]


def spinning() -> list[psutil.Process]:
    return psutil.Process().children()


@linux
def test_a_core_spins_at_the_lowest_class_while_it_is_asked_to() -> None:
    with awake([CORE]) as refusal:
        assert not refusal
        (process,) = spinning()
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        assert os.sched_getaffinity(process.pid) == {CORE}
    assert not spinning()


@linux
def test_it_ends_after_an_error_too() -> None:
    with pytest.raises(RuntimeError, match="trial"), awake([CORE]):
        raise RuntimeError("trial")
    assert not spinning()


@linux
def test_a_core_that_is_not_there_is_said() -> None:
    with awake([CORE, 10_000]) as refusal:
        assert refusal == "cores are not kept awake: [Errno 22] Invalid argument"
    assert not spinning()


def test_a_system_without_the_class_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    with awake([CORE]) as refusal:
        assert refusal == "cores are not kept awake: plan9 has no such scheduling class"


def test_a_program_without_an_interpreter_does_not_start_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with awake([CORE]) as refusal:
        assert "a frozen program" in refusal
        assert not spinning()


def test_where_processor_time_is_limited_nothing_is_spent_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coinfer.hardware.awake.cpu_quota", lambda: 1.5)
    with awake([CORE]) as refusal:
        assert "processor time is limited here" in refusal
        assert not spinning()


@linux
def test_it_outlives_the_ctrl_c_that_a_terminal_sends_to_all() -> None:
    with awake([CORE]):
        (process,) = spinning()
        process.send_signal(signal.SIGINT)
        with pytest.raises(psutil.TimeoutExpired):
            process.wait(0.2)


@linux
def test_where_no_process_can_be_started_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with awake([CORE]) as refusal:
        assert refusal.startswith("cores are not kept awake: no process can be started: ")


@linux
def test_nothing_spins_on_once_the_program_has_died(tmp_path: Path) -> None:
    """Killed, it cannot end what it has started."""
    told = tmp_path / "pid"
    program = f"""
import os, psutil
from pathlib import Path
from coinfer.hardware.awake import awake
with awake([{CORE}]):
    (child,) = psutil.Process().children()
    Path({str(told)!r}).write_text(str(child.pid))
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    orphan = int(told.read_text())
    until_s = time.monotonic() + 30
    while psutil.pid_exists(orphan) and psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until_s, "it spins on"
        time.sleep(0.05)
