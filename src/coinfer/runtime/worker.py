"""Worker: the thread of one processor. Runs one execution at a time and says how it ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple, Protocol

import numpy as np

from coinfer.backends.base import Session
from coinfer.backends.values import Values
from coinfer.core.commands import Execution
from coinfer.core.events import Failed, Finished
from coinfer.core.preemption import stays_on_top
from coinfer.errors import ExecutionError
from coinfer.machine.processor import Processor
from coinfer.runtime.arguments import said
from coinfer.runtime.clock import now as _now
from coinfer.runtime.fused_run import run_fused
from coinfer.runtime.latch import Latch
from coinfer.runtime.span_io import SpanIO
from coinfer.runtime.span_outputs import checked_arrays, checked_part
from coinfer.runtime.span_run import run_span
from coinfer.runtime.yielding import Yielding
from coinfer.threads.pinning import pin_current_thread

__all__ = ["Job", "Owner", "Use", "Worker", "reason_of"]

_Array = np.ndarray


_REFUSED = 1024
"""Failed requests of which is known why, until they are answered."""

_LOOK = "look"
"""In place of a job: somebody posted something and may not handle it itself."""

_new = tuple.__new__
"""Makes what every request needs: half the price of calling the class of a named tuple."""


@dataclass(slots=True)
class Use:
    """What a processor's workers did so far.

    Attributes:
        busy_s: Seconds in which sessions ran.
        executions: Runs that ended.
        refused: The last requests that the library refused for what they brought.
    """

    busy_s: float = 0.0
    executions: int = 0
    refused: deque[int] = field(default_factory=partial(deque[int], maxlen=_REFUSED))


class Job(NamedTuple):
    """An execution with what it takes to perform it.

    Attributes:
        execution: What is run, for which requests.
        session: What runs it.
        span_io: What that takes, and what becomes of its outputs.
        values: What it reads, of each request.
    """

    execution: Execution
    session: Session
    span_io: SpanIO
    values: tuple[Values, ...]


class Owner(Protocol):
    """Whoever gave the work."""

    idle: Worker | None
    """The worker that was the last to wait for a job."""

    def look(self) -> None:
        """Handle what was posted by a thread that rang the worker."""

    def done(self, job: Job, event: Finished | Failed, parts: Sequence[Values]) -> None:
        """Take the result; `parts` holds the outputs per request, empty if it failed."""

    def left(self, worker: Worker) -> None:
        """Take note that a worker's thread has ended for another to take its place."""

    def returned(self, worker: Worker) -> None:
        """Note that the session of a retired worker has returned; the worker's thread ends."""

    def died(self, worker: Worker, reason: str) -> None:
        """Note that the worker's thread ended although nobody stopped it."""


class Worker:
    """One pinned thread that serves one processor.

    Attributes:
        processor: The processor served.
        cores: The cores to which it is pinned; none: it is not.
        give: Hands over an execution; returns at once.
        yielding: Those among which its thread is, if express processors overlay its cores; None:
            it gives way to none.
        is_spared: Whether its thread is not yet among those, for it has run nothing that would have
            to give way.
        has_no_job: Tells whether nothing was given that its thread has not taken.
        ring: Has the owner's `look` called by its thread; returns at once.
        waits: Whether its thread waits for a job, or has taken one at this moment.
        use: What it, and those before it, did.
        retired: True once its processor was set aside or its thread died; it ends after its present
            job.
    """

    def __init__(
        self,
        processor: Processor,
        owner: Owner,
        *,
        cores: Collection[int],
        yielding: Yielding | None = None,
        is_spared: bool = False,
        use: Use | None = None,
    ) -> None:
        self.processor = processor
        self.cores = cores
        self.yielding = yielding
        self.is_spared = is_spared
        self.use = use or Use()
        self.retired = False
        self._leaves = False
        self._owner = owner
        self.waits = False
        self._jobs: SimpleQueue[Job | str | None] = SimpleQueue()
        self.put: Callable[[Job], None] = self._jobs.put
        self.give: Callable[[Job], None] = self.put
        self.has_no_job: Callable[[], bool] = self._jobs.empty
        self.ring: Callable[[], None] = partial(self._jobs.put, _LOOK)
        self._ended = Latch()
        self._lent = threading.Lock()
        self._thread = self._new_thread()

    @property
    def thread_id(self) -> int | None:
        """What the system calls its thread; None: it is not started."""
        return self._thread.native_id

    def start(self) -> None:
        """Start the thread; again is fine."""
        if self._thread.ident is None:
            self._thread.start()

    def lend(self) -> None:
        """Note that another thread is about to perform a job in place of its own, which waits."""
        self._lent.acquire()

    def run_lent(self, job: Job) -> tuple[Finished | Failed, Sequence[Values]]:
        """Perform a job in the calling thread, after `lend`; return how it ended."""
        try:
            # The thread's own context, such as how numpy takes errors, is not the session's.
            return Context().run(_perform, job, self.use)
        except BaseException as error:  # noqa: BLE001 - the thread is not the session's to end
            return Failed(job.execution.id, said(error)), []
        finally:
            self._lent.release()

    def give_lent(self, job: Job) -> None:
        """Have its own thread perform a job after all."""
        self._lent.release()
        self.give(job)

    def leave(self) -> None:
        """End the thread after its present job, and tell the owner; the jobs given wait."""
        self._leaves = True
        self._jobs.put(_LOOK)

    def start_anew(self, *, is_spared: bool) -> None:
        """Let a fresh thread take the place of the one that left.

        Raises:
            RuntimeError: the system has no thread left.
        """
        self.is_spared = is_spared
        self._thread = self._new_thread()
        self._thread.start()

    def retire(self) -> None:
        """Give up the present execution; once its session returns, the thread ends."""
        self.retired = True
        self._jobs.put(None)

    def stop(self) -> None:
        """End the thread after the jobs given so far; returns at once."""
        self._jobs.put(None)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread's end; False if it still runs. Its own thread does not wait."""
        if self._thread.ident is None:
            return True
        # `Thread.join` is not made for several at once, nor for signal handlers that raise.
        return self._thread is not threading.current_thread() and self._ended.wait(timeout_s)

    def _new_thread(self) -> threading.Thread:
        name = f"coinfer-{self.processor.name}"
        return threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        has_left = False
        try:
            pin_current_thread(self.cores)
            if self.yielding is not None and not self.is_spared:
                self.yielding.join()
            has_left = self._serve()
        except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for answers
            self.retired = True
            self._owner.died(self, f"its worker died: {said(error)}")
        finally:
            if has_left:
                self._owner.left(self)
            else:
                self._ended.set()

    @property
    def gives_way(self) -> bool:
        """Whether its thread is among those that give way once an express processor is used."""
        return self.yielding is not None and not self.is_spared

    def _join_yielding(self) -> None:
        assert self.yielding is not None
        self.is_spared = False
        self.yielding.join()

    def _serve(self) -> bool:
        """Work until told to end; True if another thread is to go on."""
        get, owner, use = self._jobs.get, self._owner, self.use
        done = owner.done
        while not self._leaves:
            owner.idle = self
            self.waits = True
            job = get()
            self.waits = False
            if type(job) is Job:
                if self.is_spared and not stays_on_top(job.execution):
                    self._join_yielding()
                event, parts = _perform(job, use)
                done(job, event, parts)
                if self.retired:
                    break
                # While it waits for the next job, nothing must keep the arrays of this one.
                del job, event, parts
            elif job is None:
                break
            elif not self._leaves:  # else it gives way, and must neither decide nor start threads
                owner.look()
        else:
            self._leaves = False
            return True
        with self._lent:  # its session is in use as long as a job is lent
            pass
        # It may be retired after it was asked whether it is: then that has sent the None.
        if self.retired:
            self._owner.returned(self)
        return False


def _perform(job: Job, use: Use) -> tuple[Finished | Failed, Sequence[Values]]:
    execution, session, span_io, values = job
    started_s = _now()
    parts: Sequence[Values]
    try:
        # Most are whole, and arrays as they come; one alone in a fused variant is not.
        if len(values) == 1 and span_io.is_whole and not span_io.slots:
            made: object = session.run(values[0])  # type: ignore[arg-type]
            if type(made) is dict:
                for name in span_io.writes:
                    if type(made.get(name)) is not _Array:
                        made = checked_arrays(made, span_io)
                        break
                parts = [{**made}]  # the session may use its own again
            else:
                parts = [checked_arrays(made, span_io)]
        elif span_io.slots:
            models = [request.model for request in execution.requests]
            parts = run_fused(session, span_io, models, values)
        else:
            sizes = [request.batch for request in execution.requests]
            made_by_each = run_span(session, span_io, values, sizes)
            parts = [checked_part(made, span_io) for made in made_by_each]
        service_s = _now() - started_s
    except Exception as error:  # noqa: BLE001 - a session is foreign code; the engine goes on
        use.busy_s += _now() - started_s
        use.executions += 1
        if isinstance(error, ExecutionError) and error.is_of_inputs:
            requests = execution.requests
            if len(requests) == 1:  # of several nobody knows which; each is tried again alone
                use.refused.append(requests[0].id)
        return Failed(execution.id, reason_of(error)), []
    use.busy_s += service_s
    use.executions += 1
    return _new(Finished, (execution.id, service_s)), parts


def reason_of(error: Exception) -> str:
    """Say in a line why a run failed. Which model and processor it was, the core says.

    A session may be shared: it cannot know for whom it runs.
    """
    text = error.reason if isinstance(error, ExecutionError) else ""
    return " ".join((text or said(error)).split())
