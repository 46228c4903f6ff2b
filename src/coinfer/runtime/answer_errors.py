"""Answer errors: which exception a request gets that has no outputs."""

from __future__ import annotations

from coinfer.core.request import Outcome, Request
from coinfer.errors import (
    ClosedError,
    CoinferError,
    DroppedError,
    ExecutionError,
    RejectedError,
)

__all__ = ["another", "answer_error"]


def answer_error(
    request: Request, outcome: Outcome, reason: str, *, is_leaving: bool
) -> CoinferError:
    """Return the error of a request that was not completed.

    Args:
        request: Whose answer it is.
        outcome: How it ended; not with a result.
        reason: Why, as the core says it.
        is_leaving: Whether its model is unloaded, or the engine stops.
    """
    text = f"request {request.id} of model {request.model!r}: {reason}"
    match outcome:
        case Outcome.DROPPED:
            return DroppedError(text)
        case Outcome.REJECTED:
            return ClosedError(text) if is_leaving else RejectedError(text)
        case Outcome.FAILED:
            return ExecutionError(text)
        case _:
            return ClosedError(text)  # cancelled: its future takes no error any more


def another(fault: CoinferError) -> CoinferError:
    """Copy an error: each future raises its own, or threads would write into one traceback."""
    copy = type(fault)(*fault.args)
    copy.__cause__ = fault.__cause__
    return copy
