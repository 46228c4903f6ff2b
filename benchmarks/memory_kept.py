"""Kept runs: plans and real runs within budgets, kept in a folder so that further calls go on.

A comparison of many networks takes longer than a machine is quiet. So each call makes what is not
there yet, for as long as it may, and prints the table of all that is there.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from coinfer.plan.plan import Plan
from coinfer.plan.plan_folder import load_plan, save_plan
from memory_real import Found

__all__ = ["KeptRuns", "each_s", "kept_number", "kept_plan", "middle"]


class KeptRuns:
    """The runs of one load.

    Args:
        path: A file that has them, if it is there; None: they are not kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rows: list[Found] = []
        if path is not None and path.exists():
            self.rows = [Found(**row) for row in json.loads(path.read_text())]

    def counts(self) -> Counter[tuple[float, str]]:
        """Return how often each contestant ran at each budget."""
        return Counter((row.budget, row.contestant) for row in self.rows)

    def add(self, row: Found) -> None:
        """Keep one more."""
        self.rows.append(row)
        if self._path is not None:
            text = json.dumps([each._asdict() for each in self.rows], indent=1)
            self._path.write_text(text + "\n")


def kept_plan(folder: Path, make: Callable[[], Plan]) -> Plan:
    """Return the plan in a folder; it is made, and put there, if there is none."""
    if not (folder / "plan.yaml").exists():
        save_plan(make(), folder)
    return load_plan(folder).plan


def kept_number(path: Path, measure: Callable[[], int]) -> int:
    """Return the number in a file; it is measured, and written there, if there is none."""
    if not path.exists():
        path.write_text(f"{measure()}\n")
    return int(path.read_text())


def middle(rows: list[Found]) -> list[Found]:
    """Return of each contestant at each budget the run in the middle, the largest budget first."""
    found: dict[tuple[float, str], list[Found]] = defaultdict(list)
    for row in rows:
        found[row.budget, row.contestant].append(row)
    ordered = (sorted(each, key=each_s) for each in found.values())
    return sorted((each[len(each) // 2] for each in ordered), key=lambda row: -row.budget)


def each_s(row: Found) -> float:
    """Return the seconds per request of a run; infinite if it served none."""
    answer = row.answer
    if answer["problem"] or not answer["served"]:
        return math.inf
    return float(answer["seconds"] / answer["served"])
