"""Child: a process that is given one order, writes files, and answers in one line of JSON."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from coinfer.artefacts.store import MakeError

__all__ = ["answer_of", "answering"]

_START = """
import importlib, json, os, sys
try:
    os.nice(int(sys.argv[3]))
except (AttributeError, OSError):  # not on Windows
    pass
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2]).main()
"""

_NICENESS = 10
"""What runs already comes first."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def answer_of(
    module: str,
    order: object,
    limit_s: float,
    *,
    niceness: int = _NICENESS,
    has_one_thread: bool = False,
    started: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
) -> Mapping[str, Any]:
    """Run the `main` of a module in a child process; return what it answers.

    Args:
        module: Its name.
        order: What its standard input gets, pickled.
        limit_s: Seconds that it may take; it is ended then.
        niceness: That of the child, where the system has one.
        has_one_thread: Whether numerical libraries shall start no further threads.
        started: Gets the child as soon as it is there: whoever kills it ends the wait.

    Raises:
        MakeError: it could not be started or told, failed or took too long.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise MakeError("this program is no Python interpreter that could be started again")
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _START, json.dumps(sys.path), module, str(niceness)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which ends the child
        env={**os.environ, **_ONE_THREAD} if has_one_thread else None,
    ) as child:
        started(child)
        writer = _Order(child, order)
        try:
            # None: the system's longest wait.
            answer, errors = child.communicate(timeout=limit_s if limit_s < 1e6 else None)
        except subprocess.TimeoutExpired:
            raise MakeError(f"it was not made within {limit_s:g} s") from None
        finally:
            child.kill()
            writer.join()
    if writer.error is not None:
        raise MakeError(f"{type(writer.error).__name__}: {writer.error}") from writer.error
    return _read(answer, errors, child.returncode)


class _Order(threading.Thread):
    """Writes what is to be made to a child as it is pickled: the weights are not copied for that.

    Attributes:
        error: Why it could not be written; None if it was, or the child ended before.
    """

    def __init__(self, child: subprocess.Popen[bytes], what: object) -> None:
        super().__init__(name="coinfer-order", daemon=True)
        assert child.stdin is not None
        self._file, child.stdin = child.stdin, None
        self._what = what
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Write it."""
        try:
            with self._file as file:
                pickle.dump(self._what, file, protocol=pickle.HIGHEST_PROTOCOL)
        except OSError:  # the child says why
            pass
        except Exception as error:  # noqa: BLE001 - of whatever cannot be pickled
            self.error = error


def answering() -> TextIO:
    """Return where the child writes its answer; what libraries print goes elsewhere."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answer


def _read(answer: bytes, errors: bytes, status: int) -> Mapping[str, Any]:
    try:
        data: Mapping[str, Any] = json.loads(answer)
    except ValueError:
        lines = errors.decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"status {status}")
        raise MakeError(f"the process that prepares it failed: {last}") from None
    return data
