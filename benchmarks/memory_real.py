"""Real runs within a budget: engines with one rule of eviction each, in a memory group.

The group has the budget and what a process takes that holds two tiny networks. Page cache counts,
so a model that is read again comes from the disk unless the group has room for its pages.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from coinfer.artefacts import default_store
from coinfer.metrics.paired import in_turn
from coinfer.opening import loadables
from coinfer.plan.plan import Plan
from coinfer.plan.plan_folder import save_plan
from memory_group import MemoryGroup, memory_group

__all__ = ["CONTESTANTS", "Found", "real_runs", "rest_bytes"]

CONTESTANTS = ("coinfer", "LRU by bytes", "LRU by count", "one at a time", "load everything")

_WITH_ROOM = ("load everything", "coinfer")
"""Those that run with all the memory that is needed: rules of eviction have nothing to do there."""

_PATIENCE_S = 60.0

_WARMUP_S = 2.0
"""Some of the artefacts are read from the disk meanwhile."""


class Found(NamedTuple):
    """What came of one contestant at one budget.

    Attributes:
        budget: Share of the working set.
        contestant: Which one.
        answer: What it said of itself; `problem` is empty if all went well.
        peak: The most bytes that the group held; 0 without a group.
        limit: Those that it might hold.
        reads: Pages that were taken away and read again.
    """

    budget: float
    contestant: str
    answer: dict[str, Any]
    peak: int
    limit: int
    reads: int


class _Child:
    """A process with a plan, in a group if there is one."""

    def __init__(self, folder: Path, group: MemoryGroup | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("memory_child.py")), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=None if group is None else group.join,
        )
        self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for its next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            return {"problem": f"it ended with status {self.process.wait()}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def order(self, **fields: object) -> dict[str, Any]:
        """Let it run one contestant."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(fields) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"problem": f"it ended with status {self.process.wait()}"}
        return self.answer()


@contextmanager
def _child(folder: Path, group: MemoryGroup | None) -> Iterator[_Child]:
    child = _Child(folder, group)
    try:
        yield child
    finally:
        assert child.process.stdin is not None
        with suppress(BrokenPipeError):
            child.process.stdin.close()
        try:
            child.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def rest_bytes(tiny: Plan, folder: Path) -> int:
    """Return what a process takes in a group beside the models: one that holds tiny networks."""
    save_plan(tiny, folder)
    weights = dict.fromkeys(tiny.models, 1.0)
    with memory_group() as group, _child(folder, group) as child:
        answer = child.order(
            budget=None, counts={}, weights=weights, in_flight=2, warmup_s=0.2, duration_s=0.5
        )
        if answer["problem"]:
            raise RuntimeError(answer["problem"])
        return int(answer["anonymous"] + answer["mapped"])


def real_runs(
    plan: Plan,
    folder: Path,
    shares: Sequence[float],
    rest: int,
    *,
    counts: dict[str, int],
    weights: dict[str, float],
    in_flight: int,
    duration_s: float,
    contestants: Sequence[str] = CONTESTANTS,
    others: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    rounds: int = 1,
    known: Mapping[tuple[float, str], int] = MappingProxyType({}),
    limit_s: float = math.inf,
) -> Iterator[Found]:
    """Let all contestants run at each budget, one after the other in one process.

    Args:
        plan: What is loaded where, without a budget.
        folder: Where it is, or is to be saved.
        shares: Budgets as shares of the working set.
        rest: What the process takes beside the models.
        counts: Requests by model, all due at once; empty: there is no end.
        weights: By model, how often it is asked for, if there is no end.
        in_flight: How many requests are unanswered then.
        duration_s: For how long then.
        contestants: Which ones.
        others: More of them, by name: what is ordered of `memory_child.py` beside the budget.
        rounds: How often they take turns at each budget.
        known: How often they did before, by budget and contestant.
        limit_s: After so many seconds no further run begins.
    """
    began_s, left = time.monotonic(), Counter(known)
    if limit_s <= 0:
        return
    if not (folder / "plan.yaml").exists():
        save_plan(plan, folder)
    sizes = _sizes(plan)
    whole = sum(sizes)
    _read_artefacts()
    with memory_group() as group, _child(folder, group) as child:
        for share in shares:
            budget = int(share * whole)
            most = next((n for n in range(len(sizes), 0, -1) if sum(sizes[:n]) <= budget), 1)
            rules: dict[str, dict[str, object]] = {
                "coinfer": {"budget": budget, "eviction": "cost", "most_models": 0},
                "LRU by bytes": {"budget": budget, "eviction": "lru", "most_models": 0},
                "LRU by count": {"budget": budget, "eviction": "lru", "most_models": most},
                "one at a time": {"budget": budget, "eviction": "lru", "most_models": 1},
                "load everything": {"budget": None},
            }
            rules |= {name: {"budget": budget, **fields} for name, fields in others.items()}
            limit = budget + rest
            apart = [name for name in contestants if share < 1 or name in _WITH_ROOM]
            for _, name in in_turn([*apart, *others], rounds):
                if left[share, name] > 0:
                    left[share, name] -= 1
                    continue
                if time.monotonic() > began_s + limit_s:
                    return
                before = 0
                if group is not None:
                    try:
                        group.limit(limit)
                    except OSError as error:
                        problem = f"the group holds more than {limit} bytes: {error.strerror}"
                        yield Found(share, name, {"problem": problem}, group.used, limit, 0)
                        break
                    _forget_artefacts()
                    before = group.file_reads
                answer = child.order(
                    **rules[name],
                    counts=counts,
                    weights=weights,
                    in_flight=in_flight,
                    warmup_s=_WARMUP_S,
                    duration_s=duration_s,
                )
                if group is None:
                    yield Found(share, name, answer, 0, 0, 0)
                else:
                    reads = group.file_reads - before
                    yield Found(share, name, answer, group.peak, limit, reads)


def _read_artefacts() -> None:
    """Read artefacts once: what a disk has not read for long may take longer, for who is first."""
    for path in default_store().folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(2**24):
                    pass


def _forget_artefacts() -> None:
    """Take artefacts out of the page cache: what others have read there is not counted."""
    for path in default_store().folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sizes(plan: Plan) -> list[int]:
    """Return the bytes of each model, the largest first."""
    profile = plan.profile
    return sorted(
        (sum(p.size_bytes for p in loadables(plan, model, profile)) for model in plan.models),
        reverse=True,
    )
