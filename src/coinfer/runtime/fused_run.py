"""Run a fused variant: inputs of several requests in, outputs of each back. Knows no engine.

A slot of which no request is there gets the inputs of the first request that is: these fit, and
what comes of them is thrown away. No output depends on another slot's inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coinfer.backends.base import Session
from coinfer.backends.values import Values
from coinfer.runtime.span_io import SpanIO
from coinfer.runtime.span_outputs import checked_arrays

__all__ = ["run_fused"]


def run_fused(
    session: Session, span_io: SpanIO, models: Sequence[str], values: Sequence[Values]
) -> Sequence[Values]:
    """Run a fused variant for one request of each of some of its members.

    Args:
        session: What runs it.
        span_io: It; `slots` says what is whose.
        models: Of which model each request is.
        values: The inputs of each request.

    Returns:
        The outputs of each request.

    Raises:
        ExecutionError: the session did not return what it must.
    """
    given = dict(zip(models, values, strict=True))
    # Members of one architecture call their inputs differently, but have them in one order.
    spare = [values[0][name] for name in span_io.slots[models[0]].inputs]
    joined: dict[str, Any] = {}  # arrays: whole models read these alone
    for model, member in span_io.slots.items():
        own = given.get(model)
        for at, (name, fused) in enumerate(member.inputs.items()):
            joined[fused] = spare[at] if own is None else own[name]
    made = checked_arrays(session.run(joined), span_io)
    return [
        {name: made[fused] for name, fused in span_io.slots[model].outputs.items()}
        for model in models
    ]
