"""Engine: runs several models on the processors of this machine, under one policy.

It performs the commands of the core (`core.dispatcher`) with real threads and real time; it decides
nothing itself. Life of a request: `submit` posts *Arrived*; the core answers with *Run*; a worker
runs the session and posts *Finished*; the core answers with *Reply*, which resolves the future.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, assert_never

from coinfer.backends.base import Backend, Placement, Tensor, Tensors
from coinfer.backends.pools import POOLS
from coinfer.backends.registry import get_backend
from coinfer.backends.sessions import SessionStore
from coinfer.core.commands import Abandon, Command, Evict, Execution, Reply, Run, SetTimer
from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.events import (
    Arrived,
    Cancelled,
    Closed,
    Event,
    Failed,
    Finished,
    ModelLoaded,
    ModelUnloaded,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.policy import Policy
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.errors import (
    ClosedError,
    CoinferError,
    ConfigurationError,
    DroppedError,
    ExecutionError,
    InvariantError,
    RejectedError,
    UnknownNameError,
)
from coinfer.hardware.catalogue import default_processors
from coinfer.model import Model
from coinfer.policies import make_policy
from coinfer.processor import Processor
from coinfer.profiles import Profile
from coinfer.profiling import (
    Skip,
    default_cache,
    profile_models,
    require_runnable,
    useful,
    within_pools,
)
from coinfer.runtime import clock
from coinfer.runtime.future import InferenceFuture
from coinfer.runtime.mailbox import Mailbox
from coinfer.runtime.timer import Timer
from coinfer.runtime.worker import Job, Worker
from coinfer.sources import resolve_model

__all__ = ["Engine", "Observer"]

_INF = float("inf")
_COMPLETED = Outcome.COMPLETED
_LOOK_S = 0.2
_HASTE_S = 5.0

_Answer = tuple[int, CoinferError | None]
"""A request's number and how it ends: well, or with an error."""


class Observer(Protocol):
    """Sees every step of the core, e.g. to record it. Called by the owner: must be quick."""

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """Note an event, the commands it led to and the moment."""
        ...


class Engine:
    """Runs models together. Threads may call any method at any time.

    Args:
        models: Models by name: what `load_model` returns, a path, or `zoo:NAME`.
        processors: What to run on, in the order of preference; None: all that are found.
        profile: Expected times. A model runs on the processors for which it has entries. None:
            take them from the user's cache or measure them now, and leave superfluous ones out.
        policy: A policy, or the name of one.
        limits: What the core enforces whatever the policy wants.
        backends: Backends by name, for those that are not to be looked up.
        pin: Pin workers to the cores of their processors, where the system can.
        observer: Sees every step of the core.

    Raises:
        ConfigurationError: no processors, or a model without an entry in the profile.
        BackendError: a model cannot be loaded on a processor of its profile.
        ModelError: a model's file cannot be used.

    Attributes:
        warnings: What was not done as asked, e.g. a processor that could not take a model.

    >>> from coinfer.testing.models import tiny_linear
    >>> model = tiny_linear().model
    >>> with Engine({"m": model}) as engine:
    ...     future = engine.submit("m", model.sample_inputs(), deadline_s=1.0)
    ...     sorted(future.result()) == [spec.name for spec in model.outputs]
    True
    """

    def __init__(
        self,
        models: Mapping[str, Model | str | Path],
        *,
        processors: Sequence[Processor] | None = None,
        profile: Profile | None = None,
        policy: str | Policy = "earliest_finish",
        limits: Limits = Limits(),
        backends: Mapping[str, Backend] | None = None,
        pin: bool = True,
        observer: Observer | None = None,
    ) -> None:
        processors = default_processors() if processors is None else processors
        if not processors:
            raise ConfigurationError("an engine needs at least one processor")
        if len({p.name for p in processors}) != len(processors):
            raise ConfigurationError("two processors have the same name; rename one")
        self._processors = {p.name: p for p in processors}
        self.warnings: list[str] = []
        self._pin = pin
        self._observer = observer
        chosen = make_policy(policy) if isinstance(policy, str) else policy
        self._core = Dispatcher(processors, chosen, limits=limits)
        self._mailbox: Mailbox[Event, _Answer] = Mailbox(self._step, self._settle)
        self._timer = Timer(lambda: self._mailbox.post(TimerFired()))
        self._ids = count()
        self._unanswered: dict[int, InferenceFuture] = {}
        self._models: dict[str, Model] = {}
        self._batched: dict[str, frozenset[str]] = {}
        self._loading = threading.RLock()
        self._evicted: dict[str, threading.Event] = {}
        self._closing = ""
        self._crashed: InvariantError | None = None
        self._idle = threading.Condition()
        self._drainers = 0
        self._stopped = False
        self._backends = _find_backends(processors, backends or {})
        self._store = SessionStore(self._backends)
        self._workers = {p.name: Worker(p, self, pin=pin) for p in processors}
        try:
            # Measured together: whether there is room for thread pools depends on all of them.
            found = {name: _resolved(name, model) for name, model in models.items()}
            profile = self._measured(found) if profile is None else profile
            for name, model in found.items():
                self.load(name, model, profile)
        except BaseException:
            self._store.close()
            self._end_workers(1.0)
            raise
        self._timer.start()

    # for callers

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the loaded models."""
        return tuple(self._models)

    @property
    def fault(self) -> CoinferError | None:
        """What ended the engine early: its policy failed, or a bug of ours; None: nothing did."""
        return self._crashed or self._core.fault

    @property
    def n_unanswered(self) -> int:
        """Requests submitted and not yet answered."""
        return len(self._unanswered)

    def submit(
        self,
        name: str,
        inputs: Tensors,
        *,
        deadline_s: float | None = None,
        priority: int = 0,
        on_late: OnLate | str = OnLate.RUN,
        due_s: float | None = None,
    ) -> InferenceFuture:
        """Ask for one inference; returns at once.

        Args:
            name: Name of a loaded model.
            inputs: Arrays by input name; a symbolic first dimension is the batch. They must not be
                changed until the answer is there.
            deadline_s: Seconds from `due_s` by which the answer is wanted; None: no deadline.
            priority: Larger is more urgent, for the policies that look at it.
            on_late: `run`, or `drop` to answer with `DroppedError` if the deadline passes, or
                cannot be met any more, before the start.
            due_s: Moment from which latency and deadline count, in `clock.now()` time; None: now.

        Returns:
            A future. It resolves to outputs by name, or raises `DroppedError`, `RejectedError`
            (admission limit), `ClosedError` or `ExecutionError` (names model and processor).
            Callbacks run on the engine's threads: they may submit, and must be short.

        Raises:
            UnknownNameError: no such model.
            InputError: an input's name, dtype or shape is wrong.
            ConfigurationError: the deadline or `on_late` makes no sense.
            ClosedError: the engine is stopping.
        """
        model = self._models.get(name)
        if model is None:
            raise UnknownNameError.of("model", name, self._models)
        if self._closing:
            raise ClosedError(self._closing)
        batch = model.check_inputs(inputs)
        arrival_s = clock.now() if due_s is None else due_s
        request = Request(
            next(self._ids),
            name,
            arrival_s,
            _INF if deadline_s is None else _absolute(arrival_s, deadline_s),
            priority,
            on_late if type(on_late) is OnLate else _on_late(on_late),
            batch,
        )
        future = InferenceFuture.of(request, inputs, self._cancel)
        self._unanswered[request.id] = future
        self._mailbox.post(Arrived(request))
        return future

    def infer(self, name: str, inputs: Tensors) -> dict[str, Tensor]:
        """Submit and wait."""
        self._check_may_wait("infer")
        return self.submit(name, inputs).result()

    def load(self, name: str, model: Model | str | Path, profile: Profile | None = None) -> None:
        """Add a model while others run; returns when it can be asked.

        Without a profile it is taken from the user's cache or measured now, beside what runs: pass
        one that was measured on the idle machine if the times matter.

        Raises:
            ConfigurationError: the name is taken, or the profile has no entry for it.
            BackendError: it cannot be loaded on a processor of its profile.
        """
        with self._loading:
            if self._closing:
                raise ClosedError(self._closing)
            if name in self._models or name in self._evicted:
                raise ConfigurationError(f"a model named {name!r} is loaded; choose another name")
            model = _resolved(name, model)
            if profile is None:
                profile = self._measured({name: model})
            wanted = [
                p for p in self._processors.values() if profile.expected_s(name, p.name) is not None
            ]
            if not wanted:
                raise ConfigurationError(
                    f"the profile has no entry for model {name!r} on any of the processors "
                    f"{', '.join(self._processors)}; measure it first"
                )
            left_out = self._store.load(name, model, wanted)
            self.warnings += [f"{name} does not run on {p}: {why}" for p, why in left_out.items()]
            usable = Profile({k: v for k, v in profile if k.processor not in left_out})
            for processor in usable.restricted([name]).processors():
                self._workers[processor].start()
            self._batched[name] = frozenset(
                spec.name
                for spec in model.inputs
                if model.batch_symbol is not None and spec.shape[:1] == (model.batch_symbol,)
            )
            self._mailbox.post(ModelLoaded(name, 1, usable.restricted([name])))
            self._models[name] = model

    def unload(self, name: str) -> None:
        """Remove a model: what waits gets `ClosedError`, what runs finishes, then it is freed.

        Raises:
            UnknownNameError: no such model.
        """
        self._check_may_wait("unload")
        with self._loading:
            if name not in self._models:
                raise UnknownNameError.of("model", name, self._models)
            gone = self._evicted[name] = threading.Event()
            del self._models[name]
            self._mailbox.post(ModelUnloaded(name))
            while not gone.wait(_LOOK_S) and self._crashed is None:
                pass
            # What was given up may still run on them; they go when it lets go of them.
            self._store.unload(name, close=not any(w.retired for w in self._workers.values()))
            del self._evicted[name]

    def placement(self, name: str) -> dict[str, Placement]:
        """Tell where a model really runs, by processor, as its backend reports it."""
        if name not in self._models:
            raise UnknownNameError.of("model", name, self._models)
        return {processor: s.placement() for processor, s in self._store.items(name)}

    def attach(self, observer: Observer | None) -> None:
        """Let an observer see every step of the core from now on; None: nobody."""
        self._observer = observer

    def drain(self, timeout_s: float | None = None) -> bool:
        """Wait until every request is answered; False if that took longer than `timeout_s`."""
        self._check_may_wait("drain")
        with self._idle:
            self._drainers += 1
            try:
                return self._idle.wait_for(lambda: not self._unanswered, timeout_s)
            finally:
                self._drainers -= 1

    def stop(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Take no more requests, answer those there are, end the threads. Again is fine.

        Args:
            drain: Run what waits; otherwise it is answered with `ClosedError`.
            timeout_s: What is not answered by then gets `ClosedError` too.
        """
        if self._stopped:
            return
        self._check_may_wait("stop")
        self._closing = self._closing or "the engine is stopping"
        self._mailbox.post(Closed(drop_waiting=not drain))
        in_time = self.drain(timeout_s)
        if not in_time:  # nothing that waits may start any more
            self._mailbox.post(Closed(drop_waiting=True))
        self._stopped = True
        self._timer.stop()
        for future in list(self._unanswered.values()):
            self._settle((future.request.id, ClosedError(self._closing)))
        # A session that still runs must not be closed under its thread.
        if self._end_workers(None if in_time else 1.0):
            self._store.close()

    def __enter__(self) -> Self:
        """Return the engine."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; after an exception, without running what waits or waiting long for what runs."""
        if kind is None:
            self.stop()
        else:
            self.stop(drain=False, timeout_s=_HASTE_S)

    # for workers

    def done(self, job: Job, event: Finished | Failed, parts: list[dict[str, Tensor]]) -> None:
        """Take a worker's result and post how the execution ended."""
        for request, outputs in zip(job.execution.requests, parts, strict=bool(parts)):
            future = self._unanswered.get(request.id)
            if future is not None:
                future.keep(outputs)
        self._mailbox.post(event)

    def returned(self, worker: Worker) -> None:
        """Use the processor again: its worker came back from a run that had been given up."""
        self._replace(worker)

    def died(self, worker: Worker, reason: str) -> None:
        """Give a dead worker's execution to others and put a fresh worker in its place."""
        self._mailbox.post(ProcessorLost(worker.processor.name, reason))
        self._replace(worker)

    def _measured(self, models: Mapping[str, Model]) -> Profile:
        everyone = tuple(self._processors.values())
        skips: list[Skip] = []
        measured = profile_models(
            models, everyone, cache=default_cache(), backends=self._backends, skipped=skips.append
        )
        require_runnable(models, measured, skips)
        room = POOLS.room(max(p.threads for p in everyone))
        return within_pools(useful(measured, everyone), everyone, threads=room)

    def _end_workers(self, timeout_s: float | None) -> bool:
        workers = self._workers.values()
        for worker in workers:
            worker.stop()
        # One that was given up may hang for ever; it is a daemon and does not keep the process.
        ended = [worker.join(0.0 if worker.retired else timeout_s) for worker in workers]
        return all(ended)

    def _replace(self, worker: Worker) -> None:
        if self._stopped:
            return
        fresh = Worker(worker.processor, self, pin=self._pin)
        self._workers[worker.processor.name] = fresh
        fresh.start()
        self._mailbox.post(ProcessorRestored(worker.processor.name))

    def _check_may_wait(self, what: str) -> None:
        """Refuse what would wait for the thread that calls it."""
        if self._mailbox.is_answering:
            raise ConfigurationError(
                f"{what}() in a callback of a future would wait for itself; call it in a thread "
                "of your own, or use submit()"
            )

    # the owner's step

    def _cancel(self, future: InferenceFuture) -> None:
        self._mailbox.post(Cancelled(future.request.id))

    def _step(self, event: Event, answers: deque[_Answer]) -> None:
        """Let the core handle one event and perform its commands; answers are given afterwards."""
        if self._crashed is not None:
            if type(event) is Arrived:
                answers.append((event.request.id, self._crashed))
            return
        now = clock.now()
        try:
            commands = self._core.handle(event, now)
            if self._observer is not None:
                self._observe(event, commands, now)
            for command in commands:
                # Nearly all commands are of these two kinds, and `match` costs more.
                if type(command) is Run:
                    self._run(command.execution)
                elif type(command) is Reply:
                    answers.append(self._answer(command))
                else:
                    self._perform(command)
        except BaseException as error:  # a bug of ours, or Ctrl-C: still everybody gets an answer
            self._crash(error, answers)
            if not isinstance(error, Exception):
                raise

    def _observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        observer = self._observer
        assert observer is not None
        try:
            observer.observe(event, commands, now)
        except Exception as error:  # noqa: BLE001 - foreign code that only looks on
            self._observer = None
            name = type(observer).__name__
            self.warnings.append(f"observer {name} failed and was detached: {error!r}")

    def _perform(self, command: Command) -> None:
        match command:
            case SetTimer():
                self._timer.arm(command.at_s)
            case Abandon():
                self._workers[command.execution.processor].retired = True
            case Evict():
                self._evicted[command.model].set()
            case Run() | Reply():
                raise AssertionError("performed by the step itself")
            case _:
                assert_never(command)

    def _answer(self, reply: Reply) -> _Answer:
        request, outcome, reason = reply
        error = None if outcome is _COMPLETED else self._error(request, outcome, reason)
        return (request.id, error)

    def _run(self, execution: Execution) -> None:
        session = self._store.get(execution.model, execution.processor)
        requests, unanswered = execution.requests, self._unanswered
        batched: frozenset[str] = frozenset()
        if self._stopped:
            return  # its futures are answered already
        if len(requests) == 1:
            feeds: tuple[Tensors, ...] = (unanswered[requests[0].id].begin(),)
        else:
            feeds = tuple([unanswered[request.id].begin() for request in requests])
            batched = self._batched[execution.model]
        self._workers[execution.processor].give(Job(execution, session, feeds, batched))

    def _settle(self, answer: _Answer) -> None:
        """Resolve a future; its callbacks run here, so the core must not be owned."""
        request_id, error = answer
        future = self._unanswered.get(request_id)
        if future is None:
            return
        try:
            future.answer(error)
        finally:  # a callback may raise what no future catches, e.g. SystemExit
            self._unanswered.pop(request_id, None)
            if self._drainers and not self._unanswered:
                with self._idle:
                    self._idle.notify_all()

    def _error(self, request: Request, outcome: Outcome, reason: str) -> CoinferError:
        if self._core.fault is not None and outcome is not Outcome.DROPPED:
            return self._core.fault
        text = f"request {request.id} of model {request.model!r}: {reason}"
        match outcome:
            case Outcome.DROPPED:
                return DroppedError(text)
            case Outcome.REJECTED:
                leaving = self._closing or request.model not in self._models
                return ClosedError(text) if leaving else RejectedError(text)
            case Outcome.FAILED:
                return ExecutionError(text)
            case _:
                return ClosedError(text)  # cancelled: its future takes no error any more

    def _crash(self, error: BaseException, answers: deque[_Answer]) -> None:
        """Answer everything and close: the core's state cannot be trusted any more."""
        self._closing = f"the engine failed: {type(error).__name__}: {error}"
        fault = self._crashed = InvariantError(self._closing)
        fault.__cause__ = error
        answers.extend((request_id, fault) for request_id in list(self._unanswered))
        for gone in self._evicted.values():
            gone.set()


def _find_backends(
    processors: Sequence[Processor], given: Mapping[str, Backend]
) -> dict[str, Backend]:
    names = {p.backend for p in processors}
    return {name: given[name] if name in given else get_backend(name) for name in names}


def _resolved(name: str, model: Model | str | Path) -> Model:
    return model if isinstance(model, Model) else resolve_model(str(model), name=name)


def _absolute(arrival_s: float, deadline_s: float) -> float:
    if not 0 < deadline_s < _INF:
        raise ConfigurationError(f"deadline_s must be positive seconds, got {deadline_s!r}")
    return arrival_s + deadline_s


def _on_late(text: OnLate | str) -> OnLate:
    try:
        return OnLate(text)
    except ValueError:
        raise ConfigurationError(f"on_late must be 'run' or 'drop', got {text!r}") from None
