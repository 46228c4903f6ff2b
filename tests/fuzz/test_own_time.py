"""What a process had of the time that went by: what it did, not what it waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.own_time import OwnTime

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks into /proc as Linux has it"
)

LOOP = "while True: pass"
SLEEP = "import time; time.sleep(60)"


def _watched(process: subprocess.Popen[bytes], seconds: float) -> float:
    own_time = OwnTime(process.pid)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        own_time.seconds()
        time.sleep(0.05)
    return own_time.seconds()


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("code", [LOOP, SLEEP])
def test_a_stopped_process_has_no_time_of_its_own(code: str, stops: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            time.sleep(0.3)
            if stops:
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(0.3)
            had_s = _watched(process, 1.5)
        finally:
            process.kill()
    assert had_s < 0.2 if stops else had_s > 0.2


def test_children_count_as_the_process_does() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LOOP!r}])"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        try:
            time.sleep(0.5)
            assert _watched(process, 1.0) > 0.1
            [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGSTOP)
            time.sleep(0.3)
            # The one that waits for it sleeps: that counts, as a deadlock of the two would.
            assert _watched(process, 1.0) > 0.1
        finally:
            os.killpg(process.pid, signal.SIGKILL)
