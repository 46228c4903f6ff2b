"""Own time: what a process and its children had of the time that went by. Linux only.

A case that waits for a core on a busy machine, or that was stopped, does not hang.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["OwnTime"]

_LOOK_S = 0.2
_TICKS_PER_S = 100.0
_STOPPED = "Tt"


class _Look(NamedTuple):
    """What can be seen of some processes at a moment.

    Attributes:
        at_s: The moment.
        used_s: Seconds that they computed so far.
        states: Of their threads, as in `/proc/PID/stat`.
    """

    at_s: float
    used_s: float
    states: str


class OwnTime:
    """Adds up the seconds in which a process slept or computed.

    Where a thread wants to compute, only what all of them did compute counts.
    """

    def __init__(self, process: int) -> None:
        self._process = process
        self._last = _look(process)
        self._seconds = 0.0

    def seconds(self) -> float:
        """Return them as of now, or of a moment ago."""
        if time.monotonic() - self._last.at_s > _LOOK_S:
            last, self._last = self._last, _look(self._process)
            # If it took this process much longer to look again, neither of them was let compute.
            passed_s = min(self._last.at_s - last.at_s, 2 * _LOOK_S)
            if "R" in last.states + self._last.states:
                passed_s = min(passed_s, max(0.0, self._last.used_s - last.used_s))
            elif self._last.states and all(state in _STOPPED for state in self._last.states):
                passed_s = 0.0
            self._seconds += passed_s
        return self._seconds


def _look(process: int) -> _Look:
    used, states = 0.0, ""
    for one in _family(process):
        try:
            fields = _fields(Path(f"/proc/{one}/stat"))
            used += float(fields[11]) + float(fields[12])
            states += "".join(
                _fields(task / "stat")[0] for task in Path(f"/proc/{one}/task").iterdir()
            )
        except (OSError, IndexError):
            continue  # it ended at this moment
    return _Look(time.monotonic(), used / _TICKS_PER_S, states)


def _fields(stat: Path) -> list[str]:
    """Return what follows the name, which may hold anything."""
    return stat.read_text(errors="replace").rpartition(")")[2].split()


def _family(process: int) -> Iterator[int]:
    yield process
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _family(int(child))
