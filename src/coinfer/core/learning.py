"""Learning: what ended runs say of later ones. Changes estimates, and the routes on them."""

from __future__ import annotations

from collections.abc import Sequence

from coinfer.core.commands import Execution
from coinfer.core.lane import Lane
from coinfer.core.state import State
from coinfer.machine.span import Span

__all__ = ["blame", "doubt", "learn_from"]

_MOST_HELD_UP = 0.5
"""An execution that was held up for a larger share of its time teaches nothing."""


def learn_from(state: State, execution: Execution, service_s: float) -> None:
    """Correct the estimate of an execution that ends now, but not for what held it up."""
    number, variant, span, processor, *_ = execution
    batch, shape = execution.batch, execution.requests[0].shape
    estimates = state.estimates
    if state.express is not None:
        held_up_s = state.express.held_up_s(number, state.now)
        if held_up_s > _MOST_HELD_UP * service_s:
            return
        service_s -= held_up_s
        if processor in state.express.processors:
            estimates = state.express.estimates
    changed = estimates.observe(variant, processor, span, batch, service_s, shape)
    _tell_routes(state, variant, span, processor, batch, shape)
    for other_span, other in changed:
        _tell_routes(state, variant, other_span, other, batch, shape)


def blame(state: State, runs: Sequence[Execution]) -> None:
    """Let a request's failed runs make their processors look slower: it ended well after all.

    So it was not the request's fault.
    """
    for run in runs:
        express, estimates = state.express, state.estimates
        if express is not None and run.processor in express.processors:
            estimates = express.estimates
        shape = run.requests[0].shape
        estimates.blame(run.variant, run.processor, run.span, run.batch, shape)
        _tell_routes(state, run.variant, run.span, run.processor, run.batch, shape)


def doubt(state: State, lane: Lane) -> None:
    """Trust the estimates of a lane's variant less: it is not run because of them."""
    variant, batch, shape = lane.variant, lane.key.batch, lane.key.shape
    for span, processor in state.estimates.doubt(variant, batch, shape, state.now):
        _tell_routes(state, variant, span, processor, batch, shape)


def _tell_routes(
    state: State, variant: str, span: Span, processor: str, batch: int, shape: int
) -> None:
    """Let the routes of a variant follow its estimate of an execution."""
    is_curve = variant in state.batchings
    for (model, samples, of_shape, _), routes in state.routes.items():
        if model == variant and of_shape == shape and (is_curve or samples == batch):
            seconds = state.estimates.expected_s(variant, processor, span, samples, shape)
            if seconds is not None:
                routes.observed(span, processor, seconds)
