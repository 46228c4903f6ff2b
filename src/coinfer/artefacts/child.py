"""Child: a process that is given one order, writes files, and answers in one line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

from coinfer.artefacts.store import MakeError

__all__ = ["answer_of", "answering"]

_NICENESS = 10
"""What runs already comes first."""


def answer_of(module: str, order: bytes, limit_s: float) -> Mapping[str, Any]:
    """Run the `main` of a module in a child process; return what it answers.

    Args:
        module: Its name.
        order: What its standard input gets.
        limit_s: Seconds that it may take; it is ended then.

    Raises:
        MakeError: it could not be started, failed or took too long.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise MakeError("this program is no Python interpreter that could be started again")
    start = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        f"from {module} import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which ends the child
    ) as child:
        try:
            # None: the system's longest wait.
            answer, errors = child.communicate(order, timeout=limit_s if limit_s < 1e6 else None)
        except subprocess.TimeoutExpired:
            raise MakeError(f"it was not made within {limit_s:g} s") from None
        finally:
            child.kill()
    return _read(answer, errors, child.returncode)


def answering() -> TextIO:
    """Return where the child writes its answer; what libraries print goes elsewhere.

    It comes after all others from now on.
    """
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with suppress(OSError, AttributeError):  # not on Windows
        os.nice(_NICENESS)
    return answer


def _read(answer: bytes, errors: bytes, status: int) -> Mapping[str, Any]:
    try:
        data: Mapping[str, Any] = json.loads(answer)
    except ValueError:
        lines = errors.decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"status {status}")
        raise MakeError(f"the process that prepares it failed: {last}") from None
    return data
