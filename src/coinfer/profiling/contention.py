"""Measure contention: how much longer models take on one processor while another one is busy.

For every ordered pair of kinds of processors that may run at the same time, and each way in which
they are near (in one cache, in one NUMA node, neither), each model that both can use runs in turn
on the first, in rounds that alternate between an idle and a busy second one, so that
drift of the machine hits both alike. The busy one runs its models in turn, too. One factor per
pair of kinds: time of the rounds beside it over time of the rounds alone. Processors that are alike
are so measured once, however many cores there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import cycle, permutations
from typing import Self

from coinfer.backends.base import Tensors
from coinfer.backends.patience import HangError, leave_behind, start
from coinfer.errors import BackendError
from coinfer.machine.contention import Contention
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement
from coinfer.machine.topology import Topology
from coinfer.profiling.deployment import Deployment, Progress, Rounds, announced
from coinfer.profiling.measure import on_cores
from coinfer.profiling.patient_sessions import Runner, WatchedSession
from coinfer.threads.pinning import pin_current_thread

__all__ = ["compare", "measure_contention"]

_LOOK_S = 0.2


def measure_contention(
    deployment: Deployment, progress: Progress | None = None, topology: Topology | None = None
) -> Contention:
    """Measure how processors slow each other down.

    Of pairs of alike processors that are as near to each other, one is measured.

    Args:
        deployment: What runs where.
        progress: Called before each pair that is measured, and once at the end.
        topology: What the cores share; None: not known.
    """
    classes: dict[tuple[object, ...], list[tuple[Processor, Processor]]] = {}
    for a, b in permutations(deployment.used, 2):
        if not a.excludes(b):
            near = topology.between(a.cores, b.cores) if topology is not None else ""
            classes.setdefault((a.likeness, b.likeness, near), []).append((a, b))
    factors: dict[str, dict[str, float]] = {}
    groups = list(classes.values())
    for group in announced(groups, lambda g: f"{g[0][0].name} beside {g[0][1].name}", progress):
        one, other = group[0]
        parts = {"on": deployment.parts(one), "beside": deployment.parts(other)}
        keys = {kind: {**parts, "contention": kind} for kind in ("alone", "beside")}
        found = deployment.measured(keys, partial(_measured, deployment, one, other))
        # Company does not make anything faster: less than 1 is noise.
        factor = max(1.0, found["beside"].mean_s / found["alone"].mean_s)
        for a, b in group:
            factors.setdefault(a.name, {})[b.name] = factor
    known = [found["beside"] for found in deployment.known.values() if "beside" in found]
    return Contention(factors=factors, samples=sum(len(each.seconds) for each in known))


def _measured(deployment: Deployment, one: Processor, other: Processor) -> dict[str, Measurement]:
    with ExitStack() as stack:
        mine, theirs = deployment.loaded(one, stack), deployment.loaded(other, stack)
        neighbour = stack.enter_context(
            Neighbour(deployment.caller_cores(other), list(theirs.values()))
        )
        alone, beside = on_cores(
            deployment.caller_cores(one),
            lambda stop: compare(list(mine.values()), neighbour, deployment.effort, stop=stop),
            watched=[session for session, _ in (*mine.values(), *theirs.values())],
        )
    return {
        "alone": Measurement(seconds=tuple(alone)),
        "beside": Measurement(seconds=tuple(beside)),
    }


def compare(
    work: Sequence[tuple[Runner, Sequence[Tensors]]],
    neighbour: Neighbour,
    effort: Rounds,
    *,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Return the seconds of the rounds alone and of those beside the neighbour.

    Args:
        work: Sessions with their inputs; a round runs each once, in the calling thread.
        neighbour: Rests in every other round.
        effort: When to stop.
        stop: Set by another thread to give up after the present round.
        clock: Seconds; replaced in tests.

    Raises:
        KeyboardInterrupt: `stop` was set.
    """
    alone: list[float] = []
    beside: list[float] = []
    began = clock()
    while len(beside) <= effort.min_rounds or clock() - began < effort.max_s:
        neighbour.rest()
        alone.append(_round_s(work, len(alone), clock))
        neighbour.go()
        beside.append(_round_s(work, len(beside), clock))
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
    return alone[1:], beside[1:]  # the first round allocates


def _round_s(
    work: Sequence[tuple[Runner, Sequence[Tensors]]], number: int, clock: Callable[[], float]
) -> float:
    began = clock()
    for session, feeds in work:
        session.run(feeds[number % len(feeds)])
    return clock() - began


class Neighbour:
    """A thread that runs sessions in turn, or rests.

    Raises:
        HangError: at the end of the block: a session hangs.
    """

    def __init__(
        self, cores: Sequence[int], work: Sequence[tuple[WatchedSession, Sequence[Tensors]]]
    ) -> None:
        self._cores = cores
        self._work = work
        self._wanted = threading.Event()
        self._resting = threading.Event()
        self._ended = False
        self._failure: Exception | None = None
        # A daemon, because one that hangs must not keep the process.
        self._thread = threading.Thread(target=self._run, name="coinfer-neighbour", daemon=True)

    def __enter__(self) -> Self:
        start(self._thread)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._ended = True
        self._wanted.set()
        if isinstance(error, HangError):
            leave_behind(self._thread)  # it may be the one that hangs
            return
        while self._thread.is_alive():
            try:
                for session, _ in self._work:
                    session.check()
            except HangError:
                leave_behind(self._thread)
                raise
            self._thread.join(_LOOK_S)

    def rest(self) -> None:
        """Stop; returns when what runs is over.

        Raises:
            BackendError: a session has failed.
        """
        self._wanted.clear()
        while not self._resting.wait(_LOOK_S) and self._thread.is_alive() and not self._ended:
            pass
        self._check()

    def go(self) -> None:
        """Start to run.

        Raises:
            BackendError: a session has failed.
        """
        self._check()
        self._resting.clear()
        self._wanted.set()

    def _check(self) -> None:
        if self._failure is not None:
            reason = " ".join(str(self._failure).split())
            raise BackendError(
                f"a model failed while processors were measured side by side: {reason}"
            ) from self._failure

    def _run(self) -> None:
        try:
            pin_current_thread(self._cores)
            for session, feed in self._turns():
                if not self._wanted.is_set():
                    self._resting.set()
                    while not self._wanted.wait(_LOOK_S) and not self._ended:
                        pass
                if self._ended:
                    return
                session.run(feed)
        except Exception as error:  # noqa: BLE001 - a session is foreign code; raised by `_check`
            self._failure = error
        finally:
            self._resting.set()

    def _turns(self) -> Iterator[tuple[Runner, Tensors]]:
        for number, (session, feeds) in enumerate(cycle(self._work)):
            yield session, feeds[number // len(self._work) % len(feeds)]
