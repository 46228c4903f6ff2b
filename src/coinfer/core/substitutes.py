"""Substitutes: what serves a request whose own variant is not loaded, though it could be.

- A cheaper variant that is loaded, if the request would be late by waiting for its own
  (`coinfer.core.variants`).
- A fused variant that is loaded and has a slot for its model: the fastest one, alone if nobody
  rides along; not if the request would be late by that and in time by waiting.
"""

from __future__ import annotations

from coinfer.core.fusing import Fused
from coinfer.core.lane import Lane
from coinfer.core.request import Request
from coinfer.core.request_schedule import EQUAL_S
from coinfer.core.routes import Step
from coinfer.core.state import State
from coinfer.core.variants import best_way, until_answer_s
from coinfer.machine.span import Span

__all__ = ["fused_substitute", "substitute_of"]


def fused_substitute(
    state: State, lane: Lane, step: Step, request: Request
) -> tuple[Fused, float] | None:
    """Return the fused variant that serves a request in place of its own, and the seconds.

    Args:
        state: The state.
        lane: Where it waits.
        step: The step of its own variant, which is not loaded.
        request: The request.
    """
    found: tuple[Fused, float] | None = None
    processor, key = step.processor, lane.key
    for fused in lane.fused:
        if not state.residency.may_start(fused.name, Span(), processor):
            continue
        row = state.estimates.row(fused.name, Span(), key.batch, key.shape)
        seconds = row.get(processor)
        if seconds is not None and (found is None or seconds < found[1]):
            found = fused, seconds
    if found is None:
        return None
    left_s = request.deadline_s - state.now + EQUAL_S
    if found[1] > left_s and until_answer_s(state, lane, step) <= left_s:
        return None
    return found


def substitute_of(
    state: State, lane: Lane, processor: str, request: Request
) -> tuple[str, Step] | None:
    """Return which variant a processor may run now for a request of a lane, and its step.

    None if it must wait for its own, which is not loaded there.
    """
    step = state.step(lane, processor)
    way = best_way(state, lane, step, request)
    if way.lane is not lane:
        return way.lane.variant, way.step
    fused = fused_substitute(state, lane, step, request)
    return None if fused is None else (fused[0].name, Step(Span(), processor, fused[1]))
