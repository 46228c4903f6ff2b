"""Child: what one case's process does with itself before and while it runs the case."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from fuzz.outcome import MEMORY_BYTES

__all__ = ["environment", "limit", "run_here"]

_LARGEST_FILE = 256 * 2**20
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
}
_NOT_FILES = ("/dev/null", "/dev/shm/", "/proc/")


def environment(folder: Path) -> dict[str, str]:
    """Return the variables that keep a case inside of its folder."""
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    kept = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": paths}
    inside = {name: str(folder) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    return kept | inside | {"COINFER_CACHE": str(folder / "cache"), "LANG": "C.UTF-8"}


def limit() -> None:
    """Limit memory and files of this process, and make it the leader of a group of its own."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Data, not address space: libraries reserve far more addresses than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (2 * MEMORY_BYTES, 2 * MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_here(folder: Path, arguments: tuple[str, ...], report: Path) -> None:
    """Run a case in this process, which ends with it."""
    limit()
    _redirect(report)
    os.environ.clear()
    os.environ.update(environment(folder))
    os.chdir(folder)
    tempfile.tempdir = None  # what the server found out
    _watch_files(folder, os.open(report / "outside", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    status = 70
    try:
        status = _status_of(arguments)
    finally:  # also of what should not come out here: this process must not go on as the server
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status_of(arguments: tuple[str, ...]) -> int:
    from coinfer.__main__ import main
    from fuzz.api_calls import API_CALLS

    try:
        if arguments[0] in API_CALLS:
            API_CALLS[arguments[0]](*arguments[1:])
        else:
            sys.argv = ["coinfer", *arguments]
            main()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:  # noqa: BLE001 - the verdict is on the traceback, as of a process
        traceback.print_exc()
        return 1
    return 0


def _redirect(report: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(report / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _watch_files(folder: Path, seen: int) -> None:
    """Note what Python, not what libraries, write outside of the folder."""
    allowed = (f"{folder}/", *_NOT_FILES)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & _WRITES) or isinstance(path, int):
                return
        elif event in _CHANGES:
            path = arguments[1] if event == "os.rename" else arguments[0]
        else:
            return
        with contextlib.suppress(TypeError, ValueError):
            whole = os.path.realpath(os.fsdecode(path))
            if not f"{whole}/".startswith(allowed):
                os.write(seen, f"{whole}\n".encode())

    sys.addaudithook(note)
