"""The lines about the machine that stand above and below the tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import psutil
from rich.console import Console

from coinfer.hardware.environment import describe

__all__ = ["OtherWork", "machine_lines", "print_environment"]


def machine_lines() -> tuple[str, str]:
    """Return what is measured on, and with which versions.

    The load average is that of the last minute: above about 0.3 something else was running.
    """
    facts = describe()
    cores = len(facts["cores"]["used"])
    load = psutil.getloadavg()[0]
    versions = {name: v for each in facts["backends"].values() for name, v in each.items()}
    versions = {"coinfer": facts["coinfer"]} | versions | {"Python": facts["python"]}
    compiled = ", core compiled" if facts["compiled"] else ""
    # OpenVINO's version ends with the build and the branch.
    listed = ", ".join(f"{name} {v.partition('-')[0]}" for name, v in versions.items())
    variables = "".join(f", {name}={value}" for name, value in facts["variables"].items())
    return (
        f"{facts['cpu']}, {cores} core{'s' if cores > 1 else ''}, "
        f"{facts['memory_bytes'] / 2**30:.1f} GiB, {facts['os'].partition('-with-')[0]}",
        f"{listed}{compiled}; load before {load:.2f}{variables}",
    )


def print_environment(console: Console, lines: Iterable[str] | None = None) -> None:
    """Print processor, cores, memory, system and versions in two lines."""
    for line in machine_lines() if lines is None else lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


class OtherWork:
    """Finds how much of the machine other programs took, so that a disturbed run is seen as one.

    Child processes are this program's own work; `note` is empty where the system does not count
    their time.

    Attributes:
        note: What to print.
        stolen_s: Seconds of a virtual core for which the host did not let it run, of all cores.
    """

    note = ""
    stolen_s = 0.0

    def __enter__(self) -> OtherWork:
        self._before = self._seconds()
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "win32":
            return
        total, other, stolen = (
            after - before for after, before in zip(self._seconds(), self._before, strict=True)
        )
        self.stolen_s = stolen
        self.note = (
            f"meanwhile other programs used {max(0.0, other / total):.1%} of the processor time, "
            f"the host stole {stolen / total:.1%}; above 2%, trust nothing"
        )

    @staticmethod
    def _seconds() -> tuple[float, float, float]:
        """Processor seconds: of all cores, used by others, stolen by the host of a virtual one."""
        machine, mine = psutil.cpu_times(), os.times()
        stolen = getattr(machine, "steal", 0.0)
        total = sum(machine) - getattr(machine, "guest", 0.0) - getattr(machine, "guest_nice", 0.0)
        waiting = machine.idle + getattr(machine, "iowait", 0.0)
        return total, total - waiting - stolen - sum(mine[:4]), stolen
