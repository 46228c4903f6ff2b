"""Engine: performs a plan with real threads and real time; it decides nothing itself.

Life of a request: `submit` posts *Arrived*; the core answers with *Run*; a worker runs the session
and posts *Finished*; the core answers with *Reply*, which resolves the future. How plans are made
is unknown here: `coinfer.api` adds that for users. Longer than other files, because all that
callers may ask is here with what it promises; how it is done is elsewhere.
"""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Self

from coinfer.backends import heap
from coinfer.backends.base import Backend, Placement, Tensor, Tensors, caller_cores
from coinfer.backends.patience import patience_s
from coinfer.backends.registry import find_backends
from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.events import Closed, MemoryGiven, PolicyChanged
from coinfer.core.health import Outage
from coinfer.core.policy import Policy, check_policy
from coinfer.core.request import OnLate, Request
from coinfer.core.view import View
from coinfer.errors import BackendError, ClosedError, CoinferError, ConfigurationError
from coinfer.fork_locks import free_after_fork
from coinfer.graph.cut_model import CutModel
from coinfer.machine.profile import Profile
from coinfer.metrics.observers import Timekeeper
from coinfer.model import Model
from coinfer.opening import (
    check_memory,
    fits,
    memory_given,
    nothing_given,
)
from coinfer.plan.choice import Choice
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.policies import make_policy
from coinfer.runtime import clock
from coinfer.runtime.arguments import patience, said
from coinfer.runtime.attention import Soon
from coinfer.runtime.engine_memory import EngineMemory
from coinfer.runtime.engine_stats import EngineStats, engine_stats, submitted
from coinfer.runtime.event_loop import EventLoop, Observer, Posted
from coinfer.runtime.exit import leave_at_exit
from coinfer.runtime.future import InferenceFuture
from coinfer.runtime.model_loader import ModelLoader
from coinfer.runtime.model_store import ModelStore
from coinfer.runtime.rate_watch import RateWatch
from coinfer.runtime.request_maker import RequestMaker
from coinfer.runtime.starvation_watch import StarvationWatch
from coinfer.runtime.warm_up import warm_up

__all__ = ["Engine", "Observer"]

_log = logging.getLogger(__name__)

_INF = float("inf")
_STOP_AFTER_ERROR_S = 5.0
_RELEASE_PATIENCE_S = 10.0
_MOMENT_S = 0.1


class Engine:
    """Runs the models of a plan together. Threads may call any method at any time.

    Args:
        plan: What is loaded where.
        models: The plan's models by name; those that the plan cuts with their spans. Its fused
            variants are among them.
        policy: A fresh policy; None: the plan's.
        limits: What the core enforces whatever the policy wants.
        backends: Backends by name, for those that are not to be looked up.
        observer: Sees every step of the core.
        spinning: Entered while the engine runs, to keep its cores awake; what it returns is why
            that cannot be done, or an empty text.
        memory: What is said of memories in place of what the plan says, for comparisons.
        memory_limit: Says how many bytes this process may use now; a budget follows it when it is
            lowered. None: nobody limits it.

    Raises:
        ConfigurationError: a model of which nothing is loaded.
        BackendError: a model cannot be loaded on a processor of the plan.

    Attributes:
        plan: What it performs: what is loaded now.
        warnings: What was not done as asked, e.g. a processor that could not take a model, and what
            failed and was tried again, with its count. Each is logged once.
    """

    def __init__(
        self,
        plan: Plan,
        models: Mapping[str, Model | CutModel],
        *,
        policy: Policy | None = None,
        limits: Limits = Limits(),
        backends: Mapping[str, Backend] | None = None,
        observer: Observer | None = None,
        spinning: AbstractContextManager[str] | None = None,
        memory: MemoryGiven | None = None,
        memory_limit: Callable[[], int | None] | None = None,
    ) -> None:
        processors = plan.processors
        self.plan = plan
        self._backends = find_backends(processors, backends or {})
        self._model_store = ModelStore({p.name: p for p in processors}, self._backends)
        policy = policy or make_policy(plan.policy.name, **plan.policy.options)
        self._core = Dispatcher(processors, policy, limits=limits)
        cores = {p.name: caller_cores(self._backends[p.backend], p) for p in processors}
        self._event_loop = EventLoop(self._core, self._model_store, processors, cores)
        self._event_loop.watchers.observer = observer
        leave_at_exit(self._event_loop)
        self.warnings = self._event_loop.warnings
        self._request_maker = maker = RequestMaker(self._model_store.models)
        self._model_loader = ModelLoader(self._event_loop, self._model_store, maker.classes)
        # The same objects as the event loop's and the store's: one look-up less per request.
        self._cancel = self._event_loop.cancel
        self._post = self._event_loop.post
        self.note_requests(None)
        self._models = self._model_store.models
        self._loading = free_after_fork(threading.RLock())
        self._stopped = self._is_left_open = False
        self._policy_changes = 0
        self._spinning = ExitStack()
        self._started_s, self._ended_s = clock.now(), _INF
        limit_watch = None
        mine = weakref.ref(self)
        self._watch_requests(mine)
        self._memory_watches = EngineMemory(
            self._core,
            self._event_loop,
            self._model_store,
            self._model_loader,
            self._loading,
            lambda: None if (engine := mine()) is None else engine.plan,
            memory_limit,
            models.values(),
        )
        if memory is None and not plan.memory and memory_limit is not None:
            limit_watch = self._memory_watches.limit_watch(memory_limit)
        self._event_loop.begin()
        try:
            self._load_all(plan, models, memory or memory_given(plan))
            if limit_watch is not None:
                self._event_loop.timer.watches.append(limit_watch)
                self._event_loop.timer.ring()
            if spinning is not None and (refusal := self._spinning.enter_context(spinning)):
                self.warnings.append(refusal)
        except BaseException:
            self.stop(drain=False, timeout_s=1.0)
            raise
        heap.trim()  # the bytes of all files were there while their models were measured
        self._started_s = clock.now()
        self._finalizer = weakref.finalize(self, _forsaken, self._event_loop, self._model_store)
        self._finalizer.atexit = False  # see `leave_at_exit`
        _log.info("engine started: %s on %s", ", ".join(plan.models), ", ".join(cores))

    # for callers

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the loaded models."""
        return tuple(self._models)

    @property
    def fault(self) -> CoinferError | None:
        """What ended the engine early: its policy failed, or a bug of ours; None: nothing did."""
        return self._event_loop.crashed or self._core.fault

    @property
    def view(self) -> View:
        """The read-only sight of the core's state; only for observers, while they are called."""
        return self._core.view

    @property
    def memories(self) -> dict[str, tuple[float, float]]:
        """By memory that has a budget: its bytes, and those believed to be taken."""
        return self._core.memories

    @property
    def outages(self) -> list[Outage]:
        """Which processors were ever set aside, because they failed, hung or died."""
        return self._core.outages

    def stats(self) -> EngineStats:
        """Return what it has done so far, per model and per processor; also after `stop`."""
        self._event_loop.catch_up()
        up_s = min(clock.now(), self._ended_s) - self._started_s
        return engine_stats(
            self._core, self._event_loop, self._model_store, self.plan, up_s, self._policy_changes
        )

    @property
    def n_unanswered(self) -> int:
        """Requests submitted and not yet answered."""
        return len(self._event_loop.pending)

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
            inputs: Arrays by input name; a symbolic first dimension is the batch. Those with a
                default may be left out. They must not be changed until the answer is there.
            deadline_s: Seconds from `due_s` by which the answer is wanted; None: no deadline.
            priority: Larger is more urgent: by the policy, and by preemption on CPU cores.
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
            ConfigurationError: another argument makes no sense.
            ClosedError: the engine is stopping.
        """
        maker = self._request_maker
        check = maker.check_of(name)
        if self._event_loop.closing:
            raise ClosedError(self._event_loop.closing)
        inputs, batch = maker.checked(check, inputs)
        request = maker.request(check.model, inputs, batch, deadline_s, priority, on_late, due_s)
        future = InferenceFuture(request, inputs, self._cancel)
        self._ask(future)
        return future

    def infer(
        self,
        name: str,
        inputs: Tensors,
        *,
        deadline_s: float | None = None,
        priority: int = 0,
        on_late: OnLate | str = OnLate.RUN,
        due_s: float | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Tensor]:
        """Submit and wait.

        Args:
            name: As in `submit`, and so are all but the last.
            inputs: See there.
            deadline_s: See there.
            priority: See there.
            on_late: See there.
            due_s: See there.
            timeout_s: Seconds to wait for the answer; None: as long as it takes.

        Returns:
            Outputs by name.

        Raises:
            CoinferError: what `submit` and its future raise.
            TimeoutError: there is no answer yet. The request is cancelled if it has not started;
                else its answer is thrown away.
        """
        self._event_loop.check_may_wait("infer")
        timeout_s = patience("timeout_s", timeout_s)
        attention = self._event_loop.attention
        # Whoever waits for so long only must not be kept by a library that hangs.
        is_held = timeout_s is None and attention.hold()
        try:
            future = self.submit(
                name, inputs, deadline_s=deadline_s, priority=priority, on_late=on_late, due_s=due_s
            )
        finally:
            if is_held:
                attention.release()
        try:
            if is_held:
                attention.attend(future.done)
            elif attention.is_kept:
                self._event_loop.look()
            return future.result(timeout_s)
        except TimeoutError:
            if future.done():  # the error is the answer's, or the answer came meanwhile
                return future.result()
            future.cancel()
            raise TimeoutError(f"model {name!r} gave no answer within {timeout_s:g} s") from None
        except BaseException:  # e.g. Ctrl-C, or the request's own error: then this does nothing
            future.cancel()
            raise

    def warm_up(self, name: str, inputs: Tensors) -> None:
        """Run each compiled session of a model once; returns when all have run.

        With some libraries the first run takes several times as long as later ones, because they
        allocate memory and prepare weights only then. Do this after loading, before the requests
        come that must be in time: a request on the same session may have to wait for a whole run.
        It is no request: nothing is answered, counted or learnt. Loading and unloading wait
        meanwhile.

        Args:
            name: Name of a loaded model.
            inputs: As in `submit`, of the sizes that are to come: where they vary, a library may
                prepare for each.

        Raises:
            UnknownNameError: no such model.
            InputError: an input's name, dtype or shape is wrong.
            ExecutionError: a processor cannot run it on these inputs.
            BackendError: a library hangs in it: see `coinfer.backends.patience`.
            ClosedError: the engine is stopping.
        """
        self._event_loop.check_may_wait("warm_up")
        with self._changing():
            self._check_open()
            check = self._request_maker.check_of(name)
            filled, batch = self._request_maker.checked(check, inputs)
            for each in self._model_store.variants(check.model):
                if each in self._model_store.span_ios:
                    warm_up(self._model_store, each, filled, batch, self._check_open)

    def unload(self, name: str, *, drain: bool = False, timeout_s: float | None = None) -> None:
        """Remove a model: from now on nobody can ask it, what runs finishes, then it is freed.

        What another thread submits at the same moment is turned away, one way or the other. Loading
        and unloading wait meanwhile. If an exception ends it early, e.g. Ctrl-C, call it again, or
        load another model, which drains nothing.

        Args:
            name: Name of a loaded model.
            drain: Run what waits first; otherwise it is answered with `ClosedError`.
            timeout_s: What still waits by then gets `ClosedError` too; None: as long as it takes.

        Raises:
            UnknownNameError: no such model.
            ConfigurationError: the timeout is no number of seconds, or the calling thread is in a
                callback of a future.
            ClosedError: this process is a fork of that of the engine.
        """
        self._event_loop.check_may_wait("unload")
        timeout_s = patience("timeout_s", timeout_s)
        with self._changing():
            self._check_process()
            if name not in self._model_store.leaving:
                name = self._request_maker.check_of(name).model
            self._finish_changes(but=name)
            if drain:
                self._model_store.withdraw(name)
                self._event_loop.drain_model(name, timeout_s)
            self._unload(name)

    def move(self, name: str, processors: Sequence[str], *why: Choice) -> None:
        """Load a model on other processors while it is asked; nothing is lost.

        What is new is loaded beside what runs, from files where the weights are there. Then
        requests start there; what is not named is freed when nothing of the model runs on it. What
        was learnt of its times stays.

        If an exception ends it early, e.g. Ctrl-C, the plan says where the model is; call it again,
        or load or unload a model, to free what it left.

        Args:
            name: Name of a loaded model that is not cut.
            processors: Where it shall be loaded, in the order of preference. One that cannot take
                it is left out, with a warning.
            why: For readers of the plan.

        Raises:
            UnknownNameError: no such model or processor.
            ConfigurationError: the processors are no list, the plan has no time of it on one, it is
                cut or made in memory only, or memory has a budget, which decides what is loaded.
            BackendError: none of those where it is not loaded can take it, or all named are out of
                service. It stays where it is.
            ClosedError: the engine is stopping.
        """
        self._event_loop.check_may_wait("move")
        if isinstance(processors, str):
            raise ConfigurationError(
                f"processors must be a list of names, got {processors!r}; give [{processors!r}]"
            )
        with self._changing():
            self._check_open()
            self._finish_changes()
            self._check_open()
            name = self._request_maker.check_of(name).model
            if self._has_budget:
                raise ConfigurationError(
                    f"model {name!r} cannot be moved: memory has a budget, which decides what is "
                    "loaded"
                )

            def check(left: Collection[str]) -> None:
                self._check_open()
                if left and self._lost().issuperset(left):
                    raise BackendError(
                        f"model {name!r} stays where it is: out of service: {', '.join(left)}"
                    )

            loader = self._model_loader
            self.plan = loader.extend(name, self.plan, processors, check, *why)
            loader.finish_moves(self.plan)

    @property
    def _has_budget(self) -> bool:
        """Whether memory has a budget, or is about to get one."""
        return bool(self._core.memories) or self._model_loader.places is not None

    def _lost(self) -> set[str]:
        """Return the ordinary processors that are out of service."""
        view = self._core.view
        return {*view.all_processors} - {*view.processors}

    def _watched_rates(self) -> Mapping[str, float]:
        """Return the rates with which those that come are compared; empty: none are."""
        return self.plan.rates

    def placement(self, name: str) -> dict[str, Placement]:
        """Tell where a model really runs, by processor, as its backend reports it.

        Of a model that is cut, the longest span that each processor runs.

        Raises:
            UnknownNameError: no such model.
            BackendError: its backend cannot tell.
        """
        name = self._request_maker.check_of(name).model
        try:
            return self._model_store.placement(name)
        except CoinferError:
            raise
        except Exception as error:
            raise BackendError(
                f"model {name!r}: its placement is unknown: {said(error)}"
            ) from error

    def change_policy(self, policy: str | Policy, **options: object) -> None:
        """Let another policy decide from now on; nothing is lost.

        It waits for nothing but a model that another thread loads. What waits gets its queue and
        its rank from the new policy, in the order in which it began to wait; what runs goes on. A
        log replays the change, if the policy has a name.

        Args:
            policy: The name of one (`coinfer policies`), or a fresh object.
            options: Of the policy that is named.

        Raises:
            UnknownNameError: no such policy.
            ConfigurationError: an option does not fit, it is no policy, or the calling thread is in
                a callback of a future.
            ClosedError: the engine has stopped, or this process is a fork of that of the engine.

        >>> from coinfer.api import Engine
        >>> from coinfer.testing.models import tiny_linear
        >>> model = tiny_linear().model
        >>> with Engine({"net": model}, policy="fcfs") as engine:
        ...     engine.change_policy("edf")
        ...     answers = engine.infer("net", model.sample_inputs())
        ...     engine.plan.policy.text
        'edf'
        """
        self._event_loop.check_may_wait("change_policy")
        self._check_process()
        self._check_open()
        if isinstance(policy, str):
            fresh = make_policy(policy, **options)
        elif options:
            raise ConfigurationError(
                "options belong to a policy that is named; give the object its own"
            )
        else:
            fresh = check_policy(policy)
        choice = PolicyChoice.of(policy, options)
        with self._loading:  # which also changes the plan
            self.plan = self.plan.with_policy(choice)
            self._post(PolicyChanged(fresh, choice.name, choice.options))
            self._policy_changes += 1
        _log.info("policy %s decides from now on", choice.text)

    def note_requests(self, note: Callable[[Request], None] | None) -> None:
        """Have each request that is submitted from now on noted, too; None: no more.

        The thread that submits it does that, and must not be kept by it.
        """
        ask = self._event_loop.ask

        def noted(future: Posted) -> None:
            if note is not None and type(future) is InferenceFuture:
                note(future.request)
            ask(future)

        self._ask = ask if note is None else noted

    def attend(self, thread: int, soon: Soon | None, *, only_urgent: bool = False) -> None:
        """Have a thread that submits requests for many perform brief runs itself.

        For servers: what such a thread submits is handled once it has submitted all that there is,
        so that requests share runs; and where a run takes less than waking a worker, on a CPU core,
        the thread performs it. Callbacks are called there then.

        Args:
            thread: Its `threading.get_ident()`; not that of the main thread.
            soon: Has something called by that thread, in a moment, such as `call_soon` of an
                `asyncio` loop. The thread must not wait for what it submits. None: it submits as
                any other from now on; call that before it ends.
            only_urgent: Whether it performs nothing but what preempts on a CPU core: for a thread
                that has to be in time for what it submits next.

        Raises:
            ConfigurationError: it is the main thread.
        """
        if soon is None:
            self._event_loop.attention.end(thread)
        else:
            self._event_loop.attention.begin(thread, soon, only_urgent=only_urgent)

    def attach(self, observer: Observer | None, timekeeper: Timekeeper | None = None) -> None:
        """Let an observer see every step of the core from now on; None: nobody.

        A timekeeper is told the moments between the steps, too.
        """
        self._event_loop.watchers.observer = observer
        self._event_loop.watchers.timekeeper = timekeeper

    def drain(self, timeout_s: float | None = None) -> bool:
        """Wait until every request is answered; False if that took longer than `timeout_s`."""
        self._event_loop.check_may_wait("drain")
        self._check_process()
        return self._event_loop.drain(patience("timeout_s", timeout_s))

    def stop(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Take no more requests, answer those there are, end the threads. Again is fine.

        If an exception ends it early, e.g. Ctrl-C, call it again.

        Args:
            drain: Run what waits; otherwise it is answered with `ClosedError`.
            timeout_s: What is not answered by then gets `ClosedError` too.
        """
        timeout_s = patience("timeout_s", timeout_s)
        if self._stopped or self._event_loop.is_forsaken:
            return
        event_loop = self._event_loop
        event_loop.check_may_wait("stop")
        event_loop.closing = event_loop.closing or "the engine is stopping"
        in_time = True
        if not event_loop.is_stopped:
            self._post(Closed(drop_waiting=not drain))
            try:
                in_time = self.drain(timeout_s)
            finally:  # also if the user does not wait any longer
                self._spinning.close()
            if not in_time:  # nothing that waits may start any more
                self._post(Closed(drop_waiting=True))
        event_loop.stop()
        self._ended_s = min(self._ended_s, clock.now())
        _log.info("engine stopped")
        # A session that still runs must not be closed under its thread, and one that is loaded or
        # warmed up in another thread neither.
        ended = event_loop.worker_pool.join(None if in_time else 1.0)
        ended = event_loop.loader.join(None if in_time else 1.0) and ended
        if ended:
            self._close_sessions()
        self._stopped = True

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Be the only one who changes or uses what is loaded; close it if `stop` did not wait."""
        with self._loading:
            try:
                yield
            finally:
                if self._is_left_open:
                    self._model_store.close()

    def _close_sessions(self) -> None:
        for wait_s in (_RELEASE_PATIENCE_S, _MOMENT_S):
            try:
                if self._loading.acquire(timeout=wait_s):
                    self._model_store.close()
                    return
            finally:  # also if a signal handler raised as soon as the lock was taken
                with suppress(RuntimeError):  # it was not
                    self._loading.release()
            # Whoever has it closes all at the end, unless this moment is the end.
            self._is_left_open = True

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
            self.stop(drain=False, timeout_s=_STOP_AFTER_ERROR_S)

    def _check_open(self) -> None:
        if self._event_loop.closing:
            raise ClosedError(self._event_loop.closing)

    def _check_process(self) -> None:
        if self._event_loop.is_forsaken:
            raise ClosedError(self._event_loop.closing)

    def _unload(self, name: str) -> None:
        """Unload a model, or go on where an exception ended that."""
        self._model_loader.withdraw(name)
        if name in self.plan.models:
            self.plan = self.plan.without(name)
        self._model_loader.remove(name)
        self._memory_watches.note_change(self.plan)

    def _finish_changes(self, but: object = None) -> None:
        """Go on with unloads and moves that an exception ended early."""
        for name in self._model_store.leaving:
            if name != but:
                self._unload(name)
        self._model_loader.finish_moves(self.plan)

    def _watch_requests(self, mine: weakref.ref[Engine]) -> None:
        """Let the timer's thread look whether what gives way gets on, and whether rates drift."""
        loop = self._event_loop
        if loop.worker_pool.lowering:
            pool, switch = loop.worker_pool, loop.preemption
            watch = StarvationWatch(pool, self._core.running, switch.set, self.warnings)
            loop.timer.watches += [switch, watch]
        loop.timer.watches.append(
            RateWatch(
                lambda: {} if (engine := mine()) is None else engine._watched_rates(),
                partial(submitted, self._core, loop),
                self.warnings,
                self.plan.name,
            )
        )

    def _load_all(
        self, plan: Plan, models: Mapping[str, Model | CutModel], given: MemoryGiven | None
    ) -> None:
        """Load what a plan says, within the memory that is given, if that is limited."""
        check_memory(plan)
        is_tight = given is not None and not fits(plan, plan.models)
        watch = None if given is None else self._memory_watches.watch(given, plan)
        if given is not None:  # nothing is loaded before it is known what there is
            self._event_loop.tell(nothing_given(given) if is_tight else given)
        profile = plan.profile
        for name in plan.models:
            self.plan = self._load_planned(name, models, self.plan, profile)
        for name in plan.fused:
            self.plan = self._load_fused(name, models, self.plan, profile)
        if watch is not None:
            if is_tight:
                self._event_loop.tell(watch.given)
            self._event_loop.wait_for_loads(patience_s())

    def _load_planned(
        self, name: str, models: Mapping[str, Model | CutModel], plan: Plan, profile: Profile
    ) -> Plan:
        """Load a model with its variants as a plan says; returns when it can be asked.

        Returns:
            The plan, without those processors of the model that could not take it.

        Raises:
            ConfigurationError: the name is taken, or nothing of it is to be loaded.
            BackendError: it cannot be loaded on a processor of the plan.
        """
        with self._changing():
            self._check_open()
            renamed = {each: models[each].renamed(each) for each in (name, *plan.serving(name))}
            whole = self.plan if name in self.plan.models else self.plan.joined(plan)
            later = not fits(whole, whole.models)
            return self._model_loader.load(name, renamed, plan, profile, later=later)

    def _load_fused(
        self, name: str, models: Mapping[str, Model | CutModel], plan: Plan, profile: Profile
    ) -> Plan:
        """Load a fused variant as a plan says; return the plan, without it where that fails."""
        with self._changing():
            self._check_open()
            later = not fits(plan, plan.models)
            return self._model_loader.load_fused(name, models, plan, profile, later=later)


def _forsaken(event_loop: EventLoop, model_store: ModelStore) -> None:
    """End the threads of an engine that is collected; whoever collects it does not wait."""
    if not event_loop.is_stopped:
        event_loop.end_later(model_store.close)
        warnings.warn(
            "an engine was dropped without stop(); use it in a `with` block, or call stop()",
            ResourceWarning,
            stacklevel=2,
        )
