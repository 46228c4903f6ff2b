"""Fused trial: one run of a fused model against a run of each of its members, in turns.

Each member has a session and inputs of its own: one session run again and again would keep its
weights in the caches. Decides nothing.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from coinfer.backends.artefact_making import prepare
from coinfer.backends.base import (
    Backend,
    Session,
    Tensors,
    caller_cores,
    device_bytes,
    reload_s,
)
from coinfer.backends.loading import load
from coinfer.graph.fusing.member import Member
from coinfer.machine.processor import Processor
from coinfer.metrics.paired import LEAST_ROUNDS, PairedRatio, in_turn, paired_ratio
from coinfer.model import Model
from coinfer.profiling import memory
from coinfer.profiling.error import gap
from coinfer.profiling.measure import on_cores
from coinfer.profiling.side_by_side import least_run_s

__all__ = ["FusedTrial", "fused_trial"]

_ROUND_S = 0.03
"""For so long, and for one run of all at least, each side in a round."""


class FusedTrial(NamedTuple):
    """What came of it.

    Attributes:
        fused_s: Seconds of a fused run, by round.
        apart_s: Seconds of a run of each member, one after the other, by round.
        load_s: Seconds to load the fused model.
        resident_bytes: Memory that it took for good.
        error: How far its outputs are from those of the members, at most.
    """

    fused_s: tuple[float, ...]
    apart_s: tuple[float, ...]
    load_s: float
    resident_bytes: int
    error: float

    @property
    def ratio(self) -> PairedRatio:
        """How many times as fast the fused run is."""
        return paired_ratio(self.fused_s, self.apart_s, larger_is_better=False)

    @property
    def median_s(self) -> float:
        """Seconds of a fused run."""
        return statistics.median(self.fused_s)


def fused_trial(
    fused: Model,
    members: Sequence[tuple[Member, Model, Sequence[Tensors]]],
    ours: tuple[Processor, Backend],
    theirs: tuple[Processor, Backend],
    *,
    rounds: int = LEAST_ROUNDS,
) -> FusedTrial:
    """Let a fused model compete with its members.

    Args:
        fused: It.
        members: Each with its model and its inputs: as many of each, used in rotation.
        ours: Where the fused model runs, which says where the calling thread is pinned.
        theirs: Where the members run.
        rounds: How often both are timed; 0: only their outputs are compared.

    Raises:
        BackendError: something cannot be loaded or run there.
    """
    with ExitStack() as stack:
        memory.settle()
        before, began = memory.resident_bytes(), time.perf_counter()
        session = _loaded(fused, ours, stack)
        load_s = reload_s(session) or time.perf_counter() - began
        memory.settle()
        resident_bytes = device_bytes(session) or max(0, memory.resident_bytes() - before)
        apart = [(_loaded(model, theirs, stack), feeds) for _, model, feeds in members]
        together = _joined(members)

        def measure(stop: threading.Event) -> tuple[float, dict[str, list[float]]]:
            pairs = zip(members, apart, strict=True)
            error = _error(session, together, [(m, *each) for (m, *_), each in pairs])
            sides: Mapping[str, Callable[[int], object]] = {
                "fused": lambda at: session.run(together[at]),
                "apart": lambda at: [each.run(feeds[at]) for each, feeds in apart],
            }
            took: dict[str, list[float]] = {name: [] for name in sides}
            for _, name in in_turn(sides, rounds):
                took[name].append(least_run_s(sides[name], len(together), stop, round_s=_ROUND_S))
            return error, took

        processor, backend = ours
        error, took = on_cores(caller_cores(backend, processor), measure)
    return FusedTrial(tuple(took["fused"]), tuple(took["apart"]), load_s, resident_bytes, error)


def _loaded(model: Model, place: tuple[Processor, Backend], stack: ExitStack) -> Session:
    processor, backend = place
    prepare(backend, model, processor)
    session = load(backend, model, processor)
    stack.callback(session.close)
    return session


def _joined(
    members: Sequence[tuple[Member, Model, Sequence[Tensors]]],
) -> list[dict[str, np.ndarray]]:
    count = min(len(feeds) for *_, feeds in members)
    return [
        {
            member.inputs[name]: array
            for member, _, feeds in members
            for name, array in feeds[at].items()
        }
        for at in range(count)
    ]


def _error(
    session: Session,
    together: Sequence[Tensors],
    apart: Sequence[tuple[Member, Session, Sequence[Tensors]]],
) -> float:
    """Compare all outputs; integers must be equal."""
    worst = 0.0
    for at, joined in enumerate(together):
        made = session.run(joined)
        for member, own, feeds in apart:
            for name, expected in own.run(feeds[at]).items():
                worst = max(worst, gap(made[member.outputs[name]], expected))
    return worst
