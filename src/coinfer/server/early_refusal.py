"""Early refusal: a request that would only wait for its deadline to pass is refused at once."""

from __future__ import annotations

from coinfer.errors import RejectedError
from coinfer.units import format_seconds

__all__ = ["check_in_time"]


def check_in_time(model: str, deadline_s: float, needed_s: float, n_waiting: int) -> None:
    """See that a request can be answered in time, as far as one can tell.

    Args:
        model: What clients call the model.
        deadline_s: Seconds until its deadline.
        needed_s: Seconds until its answer, as expected.
        n_waiting: Requests that wait before it.

    Raises:
        RejectedError: it cannot; says how long it would take.

    >>> check_in_time("m", 0.01, 0.03, 2)
    Traceback (most recent call last):
    coinfer.errors.RejectedError: model 'm': an answer within 10 ms cannot be promised: \
2 requests wait; 30 ms could be kept
    """
    if needed_s <= deadline_s:
        return
    waits = "1 request waits" if n_waiting == 1 else f"{n_waiting} requests wait"
    error = RejectedError(
        f"model {model!r}: an answer within {format_seconds(deadline_s)} cannot be "
        f"promised: {waits}; {format_seconds(needed_s)} could be kept"
    )
    error.retry_after_s = needed_s - deadline_s
    raise error
