"""Measure cold starts: how much longer a model takes after another one, and after a rest.

The other one leaves its own weights in the caches; in a rest, clocks and threads go to sleep. On
every processor all its models run in turn, each three times in a row: after another model, after
itself, after a rest. The three are neighbours in time, so drift of the machine hits all alike.
Where a processor runs one model only, the other one runs on a processor that shares its units.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from coinfer.backends.base import Tensors
from coinfer.machine.cold import IDLE_S, Cold
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement
from coinfer.metrics.paired import LEAST_ROUNDS, paired_ratio
from coinfer.profiling.deployment import Deployment, Progress, Rounds, announced
from coinfer.profiling.measure import on_cores
from coinfer.profiling.patient_sessions import Runner

__all__ = ["in_turn", "measure_cold"]

_KINDS = ("other", "same", "idle")
"""What came before a run, in the order in which they follow each other."""


def measure_cold(
    deployment: Deployment, progress: Progress | None = None
) -> dict[tuple[str, str], Cold]:
    """Measure what a change of model and a rest cost.

    Processors that differ only in which of the machine's equal cores they use are measured once.

    Args:
        deployment: What runs where.
        progress: Called before each processor and at the end.

    Returns:
        By (model, processor). Where no other model runs on the processor's units, what another
        one would cost is left at 1.
    """
    factors: dict[tuple[str, str], Cold] = {}
    for processor in announced(deployment.used, lambda p: f"cold starts on {p.name}", progress):
        neighbours = _neighbours(deployment, processor)
        runs, parts = deployment.runs(processor), deployment.parts(processor)
        before = [deployment.parts(p) for p in neighbours[:1]] if len(runs) == 1 else []
        measure = partial(_measured, deployment, processor, neighbours[:1])
        found = deployment.measured(_keys(parts, before), measure)
        for number, model in enumerate(runs):
            other, same, idle = (found[f"{number} {kind}"] for kind in _KINDS)
            after_other = _factor(other, same) if neighbours else 1.0
            factors[model, processor.name] = Cold(after_other, _factor(idle, same))
    return factors


def _factor(changed: Measurement, same: Measurement) -> float:
    """Return how many times longer it takes then; 1 if the rounds do not show that it does.

    Nothing that came before makes a model faster: a factor below 1 is noise. So as many above 1
    are, and a simulation would pay for these at each change.
    """
    if len(same.seconds) >= LEAST_ROUNDS:
        ratio = paired_ratio(changed.seconds, same.seconds, larger_is_better=True)
        if not ratio.is_better:
            return 1.0
    return max(1.0, changed.mean_s / same.mean_s)


def _keys(parts: Sequence[object], before: Sequence[object]) -> dict[str, dict[str, object]]:
    """Return the keys of what is measured on a processor, by number of the model and kind."""
    return {
        f"{number} {kind}": {"on": parts, "before": before, "cold": kind, "number": number}
        for number in range(len(parts))
        for kind in _KINDS
    }


def _neighbours(deployment: Deployment, processor: Processor) -> list[Processor]:
    """Return the processors on its units, itself first if it can, that run another model."""
    mine = deployment.runs(processor)
    return [
        other
        for other in sorted(deployment.processors, key=lambda p: p.name != processor.name)
        if processor.excludes(other) and set(deployment.runs(other)) - set(mine[:1])
    ]


def _measured(
    deployment: Deployment, processor: Processor, neighbours: Sequence[Processor]
) -> dict[str, Measurement]:
    with ExitStack() as stack:
        mine = deployment.loaded(processor, stack)
        work = list(mine.values())
        if len(work) == 1 and neighbours:
            theirs = deployment.loaded(neighbours[0], stack)
            work += [theirs[name] for name in theirs if name not in mine][:1]
        seconds = on_cores(
            deployment.caller_cores(processor),
            lambda stop: in_turn(work, deployment.effort, stop=stop),
            watched=[session for session, _ in work],
        )
    return {
        f"{number} {kind}": Measurement(seconds=tuple(seconds[kind][number]))
        for kind in _KINDS
        for number in range(len(mine))
    }


def in_turn(
    work: Sequence[tuple[Runner, Sequence[Tensors]]],
    effort: Rounds,
    *,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[float], None] = time.sleep,
) -> dict[str, list[list[float]]]:
    """Return per kind and session the seconds of its runs.

    Args:
        work: Sessions with their inputs; they run in turn, three times each, in the calling thread.
        effort: When to stop.
        stop: Set by another thread to give up after the present round.
        clock: Seconds; replaced in tests.
        rest: Waits so many seconds; replaced in tests.

    Raises:
        KeyboardInterrupt: `stop` was set.
    """
    found: dict[str, list[list[float]]] = {kind: [[] for _ in work] for kind in _KINDS}
    began, rounds = clock(), 0
    while rounds <= effort.min_rounds or clock() - began < effort.max_s:
        for number, (session, feeds) in enumerate(work):
            for kind in _KINDS:
                if kind == "idle":
                    rest(IDLE_S)
                started = clock()
                session.run(feeds[rounds % len(feeds)])
                found[kind][number].append(clock() - started)
        rounds += 1
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
    # The first round allocates.
    return {kind: [each[1:] for each in rows] for kind, rows in found.items()}
