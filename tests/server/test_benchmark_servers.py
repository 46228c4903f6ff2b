"""The servers of the benchmarks come to an end, whatever they make of being asked to."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("serving")


def child(text: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="nobody can ignore SIGTERM there")
def test_one_that_does_not_end_is_killed_and_named(
    serving: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    with child(f"{deaf}; print('ready', flush=True); time.sleep(600)") as process:
        serving.end(process, "ray", process.send_signal, 0.1)
        assert process.returncode == -9
    assert capsys.readouterr().err == (
        "ray did not end within 0.1 s of being asked to, and was killed\n"
    )


def test_one_that_ends_is_not_spoken_of(serving: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with child("import time; print('ready', flush=True); time.sleep(600)") as process:
        serving.end(process, "ray", process.send_signal)
        assert process.returncode is not None
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals to threads there")
def test_ours_ends_though_another_thread_got_the_signal() -> None:
    """As happens to one that was stopped and goes on just then."""
    text = f"""
import signal, sys, threading
sys.path.insert(0, {str(BENCHMARKS)!r})
from serving_ours import wait_for
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGTERM)).start()
wait_for(ended)
"""
    with child(text) as process:
        assert process.wait(30) == 0
