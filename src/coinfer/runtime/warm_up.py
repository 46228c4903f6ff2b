"""Warm-up: the first run of each session of a model, which may take far longer than others.

Only then do libraries allocate memory for activations, and some prepare weights and kernels. The
scheduler is not told: it would believe that the model is that slow. Who touches memory first
decides on which NUMA node it lies, so a session of one processor runs on the cores of that
processor's worker; one that several share runs anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import NamedTuple

from coinfer.backends.base import Session, Tensors
from coinfer.backends.patience import HangError, begun
from coinfer.backends.values import Value
from coinfer.errors import CoinferError, ExecutionError
from coinfer.machine.span import Span
from coinfer.runtime.model_store import ModelStore
from coinfer.runtime.span_io import SpanIO
from coinfer.runtime.span_outputs import checked_part
from coinfer.runtime.span_run import run_span
from coinfer.runtime.worker import reason_of
from coinfer.threads.pinning import placed_on

__all__ = ["warm_up"]


def warm_up(
    model_store: ModelStore, name: str, inputs: Tensors, batch: int, check_open: Callable[[], None]
) -> None:
    """Run each session of a model once; returns when all have run.

    Those of one span run at the same time, each on processors of its own. Of a model that is cut
    each span reads what spans before it made.

    Args:
        model_store: Where the model is.
        name: Its name.
        inputs: Those of one request.
        batch: Its batch.
        check_open: Called before and after the runs of a span; raises what ends the warm-up.

    Raises:
        ExecutionError: a library failed.
        HangError: a library hangs; that session is never closed.
    """
    values: dict[str, Value] = dict(inputs)
    runs: dict[int, _FirstRun] = {}
    for span, processor, session in sorted(model_store.items(name), key=itemgetter(0)):
        run = runs.setdefault(id(session), _FirstRun(span, processor, session, set()))
        run.cores.add(model_store.caller_cores(processor))
    for span, group in groupby(runs.values(), key=attrgetter("span")):
        span_io = model_store.span_ios[name][span]
        if values.keys() >= set(span_io.reads):
            read = {value: values[value] for value in span_io.reads}
            values.update(_runs(model_store, name, list(group), read, batch, check_open))


class _FirstRun(NamedTuple):
    """The first run of a session.

    Attributes:
        span: The span that it runs.
        processor: One of its processors.
        session: The session.
        cores: Those of the workers of all of its processors.
    """

    span: Span
    processor: str
    session: Session
    cores: set[tuple[int, ...]]

    def run(
        self, span_io: SpanIO, read: Mapping[str, Value], batch: int
    ) -> Sequence[Mapping[str, Value]]:
        """Run it where its processor's worker will."""
        [cores, *others] = self.cores
        with placed_on(() if others else cores):
            return run_span(self.session, span_io, [read], [batch])


def _runs(
    model_store: ModelStore,
    name: str,
    group: Sequence[_FirstRun],
    read: Mapping[str, Value],
    batch: int,
    check_open: Callable[[], None],
) -> Mapping[str, Value]:
    """Run the sessions of one span at the same time; return what one of them made."""
    check_open()
    begins = []
    for first in group:
        what = f"model {name!r} on processor {first.processor!r}"
        span_io = model_store.span_ios[name][first.span]
        run = partial(first.run, span_io, read, batch)
        begins.append((first.session, span_io, what, begun(run, f"the first run of {what}")))
    made: Mapping[str, Value] = {}
    failures: list[CoinferError] = []
    for session, span_io, what, ended in begins:  # all of them: none may be closed while it runs
        try:
            [found] = ended()
            made = checked_part(found, span_io)
        except HangError as error:
            model_store.give_up(session)
            failures.insert(0, error)
        except Exception as error:  # noqa: BLE001 - a session is foreign code
            failures.append(ExecutionError.of(what, reason_of(error)))
            failures[-1].__cause__ = error
    check_open()
    if failures:
        raise failures[0]
    return made
