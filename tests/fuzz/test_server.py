"""The server notices what a case does wrong, and goes on with the next one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.case import Case
from fuzz.server import Server

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits memory as Linux does"
)


def _crash() -> None:
    os.abort()


def _hang() -> None:
    while True:
        try:
            sys.stdin.fileno()
        except KeyboardInterrupt:  # as a program that does not stop when told to
            continue


def _touch_memory() -> None:
    held = bytearray(b"x") * (2200 * 2**20)
    sys.exit(len(held) == 0)


def _write_elsewhere() -> None:
    Path("..", "elsewhere").write_text("x")


def _raise() -> None:
    raise ValueError("too large")


def _leave() -> None:
    sys.exit(0)


CALLS = {
    "abort": _crash,
    "hang": _hang,
    "memory": _touch_memory,
    "elsewhere": _write_elsewhere,
    "raise": _raise,
    "leave": _leave,
}


def _run_all(work: Path) -> dict[str, str | None]:
    import fuzz.api_calls

    fuzz.api_calls.API_CALLS = CALLS
    import coinfer.cli  # noqa: F401 - once, for all forks

    folder = work / "case"
    folder.mkdir()
    found = {}
    for name in CALLS:
        server = Server(work / "report", limit_s=1.0 if name == "hang" else 60.0)
        case = Case(kind="x", seed="0", folder=folder, arguments=(name,))
        found[name] = server.run(case).fault
    return found


def test_the_server_notices_what_a_case_does_wrong(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *(path for path in sys.path if path)])
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.test_server", str(tmp_path.resolve())],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "abort": "crash SIGABRT",
        "hang": "hang",
        "memory": "memory",
        "elsewhere": f"wrote {tmp_path.resolve() / 'elsewhere'}",
        "raise": "ValueError at ?",
        "leave": None,
    }


if __name__ == "__main__":
    print(json.dumps(_run_all(Path(sys.argv[1]))))  # noqa: T201 - for the test above
