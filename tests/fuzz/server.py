"""Server: runs cases, each in a process of its own. It has imported coinfer, and forks.

A fork costs milliseconds where a start of Python with all imports costs a second. The libraries are
imported here and not used: what starts threads happens in the children only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from fuzz.case import Case
from fuzz.child import environment, limit, run_here
from fuzz.outcome import Outcome
from fuzz.own_time import OwnTime

__all__ = ["Server"]

_HEAVY = (
    "coinfer.cli", "coinfer.api.engine", "coinfer.backends.onnxruntime.library",
    "coinfer.planner.make_plan", "coinfer.planner.prepare", "coinfer.planner.opened_plan",
    "coinfer.profiling", "coinfer.runtime.play", "coinfer.sim", "coinfer.report.writing",
    "coinfer.replay", "coinfer.bound", "coinfer.experiments.saturation",
    "coinfer.report.comparison", "coinfer.graph.partition", "coinfer.testing.models", "coinfer.zoo",
    "scipy.optimize", "onnx.shape_inference", "fuzz.api_calls",
)  # fmt: skip
_POLL_S = 0.002
_START_S = 6.0
"""What a program of its own may take to import everything, on a busy machine."""
_MOST_KEPT = 1_000_000


class Server:
    """Runs cases one after the other.

    Args:
        report: A folder for what the processes print.
        limit_s: Seconds of its own, computing or asleep, after which a case hangs.
        long_s: Seconds after which a case that may take long is interrupted; it then has `limit_s`
            to end.
    """

    def __init__(self, report: Path, *, limit_s: float = 20.0, long_s: float = 4.0) -> None:
        self._report = report
        self._limit_s = limit_s
        self._long_s = long_s

    def prepare(self) -> None:
        """Import what cases need, once."""
        for name in _HEAVY:
            import_module(name)

    def run(self, case: Case, *, forked: bool = True) -> Outcome:
        """Run a case to its end.

        Args:
            case: What to run.
            forked: In a copy of this process; else as a program of its own, as users start it.
        """
        shutil.rmtree(self._report, ignore_errors=True)
        self._report.mkdir(parents=True)
        process = self._fork(case) if forked else self._start(case)
        start_s = 0.0 if forked else _START_S
        try:
            return self._follow(process, case, start_s)
        finally:
            # Whatever the case left running.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process, signal.SIGKILL)

    def _fork(self, case: Case) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            run_here(case.folder, case.arguments, self._report)
        return process

    def _start(self, case: Case) -> int:
        module = "coinfer" if case.arguments[0] != "api" else "fuzz.api_calls"
        with (self._report / "out").open("wb") as out, (self._report / "err").open("wb") as err:
            started = subprocess.Popen(
                [sys.executable, "-m", module, *case.arguments],
                cwd=case.folder,
                env=environment(case.folder),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=limit,  # this process has one thread
            )
        started.returncode = 0  # waited for here, not by subprocess
        return started.pid

    def _follow(self, process: int, case: Case, start_s: float) -> Outcome:
        interrupted = hung = False
        limit_s = start_s + (self._long_s if case.may_take_long else self._limit_s)
        own_time = OwnTime(process)
        while True:
            done, status, usage = os.wait4(process, os.WNOHANG)
            if done:
                break
            if own_time.seconds() > limit_s:
                if case.may_take_long and not interrupted:
                    interrupted, limit_s = True, limit_s + self._limit_s
                    os.kill(process, signal.SIGINT)
                else:
                    hung = True
                    os.killpg(process, signal.SIGKILL)
                    _, status, usage = os.wait4(process, 0)
                    break
            time.sleep(_POLL_S)
        outside = self._read("outside").splitlines()
        return Outcome(
            status=os.waitstatus_to_exitcode(status),
            out=self._read("out"),
            err=self._read("err"),
            details="".join(p.read_text() for p in case.folder.glob("cache/failures/*.txt")),
            peak_bytes=usage.ru_maxrss * 1024,
            outside=tuple(dict.fromkeys(outside)),
            interrupted=interrupted,
            hung=hung,
        )

    def _read(self, name: str) -> str:
        path = self._report / name
        if not path.exists():
            return ""
        with path.open("rb") as file:
            return file.read(_MOST_KEPT).decode(errors="replace")
