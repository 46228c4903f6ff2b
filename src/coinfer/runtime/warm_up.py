"""Warm-up: the first run of each session of a model, which may take far longer than others.

Only then do libraries allocate memory for activations, and some prepare weights and kernels. The
scheduler is not told: it would believe that the model is that slow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from coinfer.backends.base import Tensors
from coinfer.backends.patience import HangError, patiently
from coinfer.backends.values import Value
from coinfer.errors import ExecutionError
from coinfer.runtime.model_store import ModelStore
from coinfer.runtime.span_outputs import checked_part
from coinfer.runtime.span_run import run_span
from coinfer.runtime.worker import reason_of

__all__ = ["warm_up"]


def warm_up(
    model_store: ModelStore, name: str, inputs: Tensors, batch: int, check_open: Callable[[], None]
) -> None:
    """Run each session of a model once; returns when all have run.

    Of a model that is cut each span reads what spans before it made.

    Args:
        model_store: Where the model is.
        name: Its name.
        inputs: Those of one request.
        batch: Its batch.
        check_open: Called before each run; raises what ends the warm-up.

    Raises:
        ExecutionError: a library failed.
        HangError: a library hangs; that session is never closed.
    """
    span_ios = model_store.span_ios[name]
    values: dict[str, Value] = dict(inputs)
    seen: set[int] = set()
    for span, processor, session in sorted(model_store.items(name), key=lambda item: item[0]):
        if id(session) in seen:
            continue
        check_open()
        seen.add(id(session))
        if values.keys() >= set(span_ios[span].reads):
            read = {value: values[value] for value in span_ios[span].reads}
            what = f"model {name!r} on processor {processor!r}"
            run = partial(run_span, session, span_ios[span], [read], [batch])
            try:
                [made] = patiently(run, f"the first run of {what}")
                made = checked_part(made, span_ios[span])
            except HangError:
                model_store.give_up(session)
                raise
            except Exception as error:  # a session is foreign code
                raise ExecutionError.of(what, reason_of(error)) from error
            values.update(made)
