"""Side by side: time several models, or let two compete, on one processor. Chooses nothing."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

from coinfer.backends.base import Backend, Session, Tensors, caller_cores
from coinfer.backends.loading import load
from coinfer.machine.processor import Processor
from coinfer.metrics.paired import LEAST_ROUNDS, PairedRatio, in_turn, paired_ratio
from coinfer.model import Model
from coinfer.profiling.measure import Effort, Sampler, on_cores

__all__ = ["Contest", "contest", "least_run_s", "time_side_by_side"]

K = TypeVar("K", bound=Hashable)

_TURN_S = 0.02
_ROUND_S = 0.08
"""For so long, and for one run at least, each of two in a round."""

_EFFORT = Effort(warmup_runs=2, min_runs=5, max_runs=40, max_s=0.08, precision=0.01)


class Contest(NamedTuple):
    """What came of two models that took turns.

    Attributes:
        ratio: How many times as fast ours is as theirs.
        ours_s: Seconds per run, the median over the rounds.
        theirs_s: The same of theirs.
    """

    ratio: PairedRatio
    ours_s: float
    theirs_s: float


def time_side_by_side(
    models: Mapping[K, Model],
    feeds: Sequence[Tensors],
    processor: Processor,
    backend: Backend,
    *,
    effort: Effort = _EFFORT,
) -> dict[K, float]:
    """Return the seconds per run of models that take the same inputs, the median of each.

    They take turns, so that a machine whose speed drifts favours none.

    Raises:
        BackendError: one cannot be loaded or run there.
    """
    with ExitStack() as stack:
        samplers = {}
        for key, model in models.items():
            session = load(backend, model, processor)
            stack.callback(session.close)
            samplers[key] = Sampler(session, feeds, effort)

        def measure(stop: threading.Event) -> dict[K, float]:
            while waiting := [each for each in samplers.values() if not each.is_done]:
                for sampler in waiting:
                    sampler.turn(stop, turn_s=_TURN_S)
            return {key: statistics.median(each.seconds) for key, each in samplers.items()}

        return on_cores(caller_cores(backend, processor), measure)


def contest(
    ours: Model,
    theirs: Model,
    feeds: Sequence[Tensors],
    processor: Processor,
    backend: Backend,
    *,
    rounds: int = LEAST_ROUNDS,
) -> Contest:
    """Let two models of the same inputs compete on a processor, in turns.

    Raises:
        BackendError: one cannot be loaded or run there.
    """
    with ExitStack() as stack:
        sessions = {}
        for name, model in (("ours", ours), ("theirs", theirs)):
            sessions[name] = load(backend, model, processor)
            stack.callback(sessions[name].close)

        def measure(stop: threading.Event) -> dict[str, list[float]]:
            def runner(session: Session) -> Callable[[int], object]:
                return lambda at: session.run(feeds[at])

            sides = {name: runner(session) for name, session in sessions.items()}
            took: dict[str, list[float]] = {name: [] for name in sides}
            for run in sides.values():
                least_run_s(run, len(feeds), stop, round_s=_ROUND_S)
            for _, name in in_turn(sides, rounds):
                took[name].append(least_run_s(sides[name], len(feeds), stop, round_s=_ROUND_S))
            return took

        took = on_cores(caller_cores(backend, processor), measure)
    return Contest(
        ratio=paired_ratio(took["ours"], took["theirs"], larger_is_better=False),
        ours_s=statistics.median(took["ours"]),
        theirs_s=statistics.median(took["theirs"]),
    )


def least_run_s(
    run: Callable[[int], object], feeds: int, stop: threading.Event, *, round_s: float
) -> float:
    """Run for a while, once at least; return the least seconds of a run: others only ever disturb.

    Args:
        run: Makes a run with the inputs of a number.
        feeds: So many inputs are used in rotation.
        stop: Set by another thread to give up after the present run.
        round_s: For so long.

    Raises:
        KeyboardInterrupt: `stop` was set.
    """
    best, began = float("inf"), time.perf_counter()
    number = 0
    while True:
        started = time.perf_counter()
        run(number % feeds)
        ended = time.perf_counter()
        if stop.is_set():
            raise KeyboardInterrupt
        best = min(best, ended - started)
        number += 1
        if ended - began >= round_s:
            return best
