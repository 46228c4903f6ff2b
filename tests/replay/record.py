"""Record the logs that `test_recorded` replays: only where decisions are meant to change.

    PYTHONPATH=src:tests python -m replay.record [FOLDER]

A dispatcher gets a stream of events drawn at random: requests with and without deadlines, batches,
cancellations, failures, hangs, processors that are lost and come back, models that leave and are
loaded again. Those in `recorded` were made by the version before offers came into the core, but for
30 in which a failed run decides something, since failures raise estimates, and those in which the
rule of preemption or priorities under `earliest_finish` decide, and forks under `heft_reserved`,
which plans exactly only what starts, what is late or may be dropped under `earliest_finish`, and
estimates of what is not run, and what was learnt of a model that is loaded again: they are recorded
anew.
"""

from __future__ import annotations

import gzip
import heapq
import math
import random
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from coinfer.core.commands import Abandon, Run, SetTimer
from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.events import (
    Arrived,
    Cancelled,
    Closed,
    Event,
    Failed,
    Finished,
    ModelLoaded,
    ModelUnloaded,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.request import OnLate, Request
from coinfer.machine.processor import Processor
from coinfer.machine.span import Fork
from coinfer.policies import make_policy, policy_names
from coinfer.replay import EventLog, LogHeader, recording
from coinfer.testing.machine import processors, profile

__all__ = ["KINDS", "recordable"]

FOLDER = Path(__file__).parent / "recorded"
KINDS = {
    "plain": ["small", "large", "cpu_only"],
    "cut": ["small", "cut", "gappy"],
    "fork": ["small", "forky", "cut"],
    "express": ["small", "large", "cut"],
    "swap": ["small", "large", "cut"],
}


class _Net(NamedTuple):
    seconds: Mapping[str, float]
    units: int = 1
    gaps: Mapping[str, set[int]] = {}
    forks: tuple[Fork, ...] = ()


_NETS = {
    "small": _Net({"cpu0": 0.010, "cpu1": 0.012, "all": 0.007, "npu": 0.005}),
    "large": _Net({"cpu0": 0.300, "cpu1": 0.300, "all": 0.170, "npu": 0.020}),
    "cpu_only": _Net({"cpu0": 0.040, "cpu1": 0.040, "all": 0.025}),
    "cut": _Net({"cpu0": 0.060, "cpu1": 0.060, "all": 0.040, "npu": 0.006}, 3, {"npu": {1}}),
    "gappy": _Net({"cpu0": 0.080, "npu": 0.020}, 5, {"cpu0": {1, 2}, "npu": {0, 4}}),
    "forky": _Net(
        {"cpu0": 0.080, "cpu1": 0.080, "all": 0.060, "npu": 0.050},
        4,
        {},
        (Fork(0, 1, 1), Fork(1, 2, 3)),
    ),
}
_ASSIGNMENT = {**dict.fromkeys(_NETS, "npu"), "cpu_only": "cpu0", "gappy": "cpu0"}


def recordable() -> list[str]:
    """Policies whose decisions follow from coinfer alone, and not from a solver's version."""
    return [name for name in policy_names() if name != "comparative_advantage"]


class _Stream:
    """Drives a dispatcher and logs what happens."""

    def __init__(self, core: Dispatcher, log: EventLog, kind: str, draw: random.Random) -> None:
        self._core, self._log, self._kind, self._draw = core, log, kind, draw
        self._order = count()
        self._agenda: list[tuple[float, int, Event]] = []
        self._running: dict[int, str] = {}
        self._timer_s = math.inf
        self._now = 0.0

    def run(self, requests: int) -> None:
        for model in KINDS[self._kind]:
            self._handle(self._loaded(model))
        self._plan(requests)
        while self._agenda or self._core.n_unanswered:
            if self._agenda and self._agenda[0][0] <= self._timer_s:
                self._now, _, event = heapq.heappop(self._agenda)
                self._happen(event)
            else:
                self._now, self._timer_s = max(self._now, self._timer_s), math.inf
                self._handle(TimerFired())
        self._handle(Closed(drop_waiting=True))

    def _plan(self, requests: int) -> None:
        draw, models, at = self._draw, KINDS[self._kind], 0.0
        per_s = 60 * draw.choice([0.6, 1.0, 1.6])
        for number in range(requests):
            at += draw.expovariate(per_s) if draw.random() < 0.8 else 0.0
            due_s = at + draw.choice([math.inf, 0.05, 0.2, 1.0])
            priority, on_late = draw.choice([0, 0, 0, 2, -1]), draw.choice(list(OnLate))
            fields = (number, draw.choice(models), at, due_s, priority, on_late)
            self._at(at, Arrived(Request(*fields, batch=draw.choice([1, 1, 1, 2]))))
            if draw.random() < 0.05:
                self._at(at + draw.expovariate(20), Cancelled(number))
        for _ in range(4):
            lost_s, name = draw.uniform(0, at), draw.choice(["cpu0", "cpu1", "npu", "all"])
            self._at(lost_s, ProcessorLost(name, "told to die"))
            self._at(lost_s + draw.uniform(0.05, 0.5), ProcessorRestored(name))
        for _ in range(2):
            left_s, model = draw.uniform(0, at), draw.choice(models)
            self._at(left_s, ModelUnloaded(model))
            self._at(left_s + draw.uniform(0.05, 0.3), self._loaded(model))

    def _at(self, at_s: float, event: Event) -> None:
        heapq.heappush(self._agenda, (at_s, next(self._order), event))

    def _loaded(self, model: str) -> ModelLoaded:
        net = _NETS[model]
        known = profile(model, net.seconds, units=net.units, gaps=net.gaps)
        swap_s = {"npu": self._draw.choice([0.0, 0.03]), "all": 0.01}
        return ModelLoaded(
            model, net.units, known, net.forks, swap_s if self._kind == "swap" else {}
        )

    def _happen(self, event: Event) -> None:
        if isinstance(event, Finished | Failed) and event.execution_id not in self._running:
            return
        if isinstance(event, Finished | Failed):
            del self._running[event.execution_id]
        if isinstance(event, ProcessorLost):
            kept = {n: name for n, name in self._running.items() if name != event.processor}
            self._running = kept
        self._handle(event)

    def _handle(self, event: Event) -> None:
        commands = self._core.handle(event, self._now)
        self._log.observe(event, commands, self._now)
        for command in commands:
            match command:
                case Run(execution):
                    self._running[execution.id] = execution.processor
                    self._end(execution.id, execution.expected_s)
                case SetTimer(at_s):
                    self._timer_s = at_s
                case Abandon(execution):
                    self._running.pop(execution.id, None)
                case _:
                    pass

    def _end(self, number: int, expected_s: float) -> None:
        draw = self._draw
        usual = draw.random() > 0.02
        factor = draw.lognormvariate(0, 0.15) if usual else draw.choice([3.0, 1000.0])
        took_s = max(1e-4, expected_s * factor)
        fails = draw.random() < (0.03 if self._kind == "plain" else 0.06)
        self._at(
            self._now + took_s,
            Failed(number, "told to fail") if fails else Finished(number, took_s),
        )


def _processors(kind: str) -> list[Processor]:
    ordinary = processors("cpu0", "cpu1", "npu", all=("cpu0", "cpu1"))
    over = Processor(
        name="x0", backend="null", units=frozenset({"x0"}), overlays=frozenset({"cpu0"})
    )
    return [*ordinary, over] if kind == "express" else ordinary


def record(path: Path, kind: str, policy: str, requests: int = 30) -> None:
    """Record one log; the same arguments and the same decisions give the same log."""
    draw = random.Random(f"{kind} {policy}")
    limits = Limits(
        max_waiting=draw.choice([None, 200]),
        retries=draw.choice([1, 2, 5]),
        hang_min_s=draw.choice([10.0, 0.5]),
        set_aside_after=draw.choice([3, 2, math.inf]),
        probe_s=2.0,
    )
    assignment = {model: _ASSIGNMENT[model] for model in KINDS[kind]}
    options: dict[str, Any] = {"assignment": assignment} if policy == "fixed" else {}
    machine = _processors(kind)
    core = Dispatcher(machine, make_policy(policy, **options), limits=limits)
    header = LogHeader(policy=policy, options=options, processors=tuple(machine), limits=limits)
    with recording(path, header) as log:
        _Stream(core, log, kind, draw).run(requests)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 9, mtime=0))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for each in KINDS:
        for name in recordable():
            record(folder / f"{each}-{name}.jsonl.gz", each, name)
