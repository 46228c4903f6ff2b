"""Engine: runs several models on the processors of this machine, under one policy.

It performs the commands of the core (`core.dispatcher`) with real threads and real time; it decides
nothing itself. Life of a request: `submit` posts *Arrived*; the core answers with *Run*; a worker
runs the session and posts *Finished*; the core answers with *Reply*, which resolves the future.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from coinfer.backends import heap
from coinfer.backends.base import Backend, Placement, Tensor, Tensors, caller_cores
from coinfer.backends.pools import POOLS
from coinfer.backends.registry import find_backends
from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.events import Arrived, Closed, ModelLoaded, ModelUnloaded
from coinfer.core.health import Outage
from coinfer.core.policy import Policy
from coinfer.core.request import OnLate, Request
from coinfer.core.view import View
from coinfer.errors import ClosedError, CoinferError, ConfigurationError, UnknownNameError
from coinfer.graph.cut_model import CutModel
from coinfer.graph.partition import PartitionOptions
from coinfer.hardware.awake import awake
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.policies import make_policy
from coinfer.profiling import (
    Profiler,
    Skip,
    default_cache,
    profile_models,
    require_runnable,
    useful,
    within_pools,
)
from coinfer.profiling.partition import prepare
from coinfer.runtime import clock
from coinfer.runtime.event_loop import EventLoop, Observer
from coinfer.runtime.exit import leave_at_exit
from coinfer.runtime.future import InferenceFuture
from coinfer.runtime.model_store import ModelStore
from coinfer.runtime.warm_up import warm_up
from coinfer.zoo.source import resolve_model

__all__ = ["Engine", "Observer"]

_INF = float("inf")
_LOOK_S = 0.2
_HASTE_S = 5.0
_LET_GO_S = 10.0


class Engine:
    """Runs models together. Threads may call any method at any time.

    Args:
        models: Models by name: what `load_model` returns, a path, `zoo:NAME`, or what
            `partitioning.prepare` made.
        processors: What to run on, in the order of preference; None: all that are found.
        profile: Expected times. A model runs on the processors for which it has entries. None:
            take them from the user's cache or measure them now, and leave superfluous ones out.
        policy: A policy, or the name of one.
        limits: What the core enforces whatever the policy wants.
        backends: Backends by name, for those that are not to be looked up.
        pin: Pin workers and thread pools to the cores of their processors, where the system can.
        observer: Sees every step of the core.
        partition: Cut models so, where that pays, and measure the spans now or take their times
            from the cache; None: run them whole.
        keep_awake: Let the processors' cores spin at the lowest scheduling class instead of going
            idle: see `coinfer.hardware.awake`.

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
        models: Mapping[str, Model | CutModel | str | Path],
        *,
        processors: Sequence[Processor] | None = None,
        profile: Profile | None = None,
        policy: str | Policy = "earliest_finish",
        limits: Limits = Limits(),
        backends: Mapping[str, Backend] | None = None,
        pin: bool = True,
        observer: Observer | None = None,
        partition: PartitionOptions | None = None,
        keep_awake: bool = False,
    ) -> None:
        processors = default_processors() if processors is None else processors
        if not processors:
            raise ConfigurationError("an engine needs at least one processor")
        if len({p.name for p in processors}) != len(processors):
            raise ConfigurationError("two processors have the same name; rename one")
        if partition is not None and profile is not None:
            raise ConfigurationError(
                "partitioning measures for itself; leave the profile out, or pass models that "
                "`coinfer.profiling.partition` made"
            )
        self._cores = sorted({core for processor in processors for core in processor.cores})
        if not pin:
            processors = [replace(processor, cores=()) for processor in processors]
        self._processors = {p.name: p for p in processors}
        self._partition = partition
        self._backends = find_backends(processors, backends or {})
        self._shelf = ModelStore(self._processors, self._backends)
        chosen = make_policy(policy) if isinstance(policy, str) else policy
        self._core = Dispatcher(processors, chosen, limits=limits)
        cores = {p.name: caller_cores(self._backends[p.backend], p) for p in processors}
        self._conductor = EventLoop(self._core, self._shelf, processors, cores)
        self._conductor.observer = observer
        leave_at_exit(self._conductor)
        self.warnings = self._conductor.warnings
        self._ids = count()
        # The same objects as the event_loop's and the model_store's: one look-up less per request.
        self._post, self._cancel = self._conductor.post, self._conductor.cancel
        self._unanswered, self._models = self._conductor.unanswered, self._shelf.models
        self._loading = threading.RLock()
        self._stopped = False
        self._spinning = ExitStack()
        try:
            self._load_all(models, profile)
            if keep_awake:
                self._keep_awake()
        except BaseException:
            self._spinning.close()
            self._shelf.store.close()
            self._conductor.worker_pool.end(1.0)
            raise
        heap.trim()  # the bytes of all files were there while their models were measured
        self._conductor.timer.start()

    # for callers

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the loaded models."""
        return tuple(self._models)

    @property
    def fault(self) -> CoinferError | None:
        """What ended the engine early: its policy failed, or a bug of ours; None: nothing did."""
        return self._conductor.crashed or self._core.fault

    @property
    def view(self) -> View:
        """The read-only sight of the core's state; only for observers, while they are called."""
        return self._core.view

    @property
    def outages(self) -> list[Outage]:
        """Which processors were ever set aside, because they failed, hung or died."""
        return self._core.outages

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
        check = self._models.get(name)
        if check is None:
            raise UnknownNameError.of("model", name, self._models)
        if self._conductor.closing:
            raise ClosedError(self._conductor.closing)
        batch = check(inputs)
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
        self._post(Arrived(request))
        return future

    def infer(self, name: str, inputs: Tensors) -> dict[str, Tensor]:
        """Submit and wait."""
        self._conductor.check_may_wait("infer")
        return self.submit(name, inputs).result()

    def load(
        self,
        name: str,
        model: Model | CutModel | str | Path,
        profile: Profile | None = None,
    ) -> None:
        """Add a model while others run; returns when it can be asked.

        Without a profile it is taken from the user's cache or measured now, beside what runs: pass
        one that was measured on the idle machine if the times matter.

        Raises:
            ConfigurationError: the name is taken, or the profile has no entry for it.
            BackendError: it cannot be loaded on a processor of its profile.
        """
        with self._loading:
            self._check_open()
            self._shelf.check_free(name)
            found = _resolved(name, model) if profile is not None else self._found(name, model)
            if profile is None:
                profile = self._measured({name: found})
            loaded_model = self._shelf.put(name, found, profile)
            for processor, why in loaded_model.left_out.items():
                self.warnings.append(f"{name} does not run on {processor}: {why}")
            self.warnings += [f"{name}: {note}" for note in loaded_model.notes]
            for processor in loaded_model.profile.processors():
                self._conductor.worker_pool.start(processor)
            forks = found.forks if isinstance(found, CutModel) else ()
            self._post(ModelLoaded(name, loaded_model.units, loaded_model.profile, forks))
            self._shelf.open(name, found if isinstance(found, Model) else found.model)

    def warm_up(self, name: str, inputs: Tensors) -> None:
        """Run each compiled session of a model once, in the calling thread.

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
            ClosedError: the engine is stopping.
        """
        self._conductor.check_may_wait("warm_up")
        with self._loading:
            self._check_open()
            check = self._models.get(name)
            if check is None:
                raise UnknownNameError.of("model", name, self._models)
            warm_up(self._shelf, name, inputs, check(inputs), self._check_open)

    def unload(self, name: str) -> None:
        """Remove a model: what waits gets `ClosedError`, what runs finishes, then it is freed.

        Raises:
            UnknownNameError: no such model.
        """
        self._conductor.check_may_wait("unload")
        with self._loading:
            if name not in self._models:
                raise UnknownNameError.of("model", name, self._models)
            gone = self._shelf.withdraw(name)
            self._post(ModelUnloaded(name))
            event_loop = self._conductor
            while not gone.wait(_LOOK_S) and event_loop.crashed is None:
                if event_loop.is_stopped:
                    break
            # What was given up may still run on them; they go when it lets go of them.
            self._shelf.remove(name, close=not self._conductor.worker_pool.has_retired)

    def placement(self, name: str) -> dict[str, Placement]:
        """Tell where a model really runs, by processor, as its backend reports it.

        Of a model that is cut, the longest span that each processor runs.
        """
        if name not in self._models:
            raise UnknownNameError.of("model", name, self._models)
        return self._shelf.placement(name)

    def attach(self, observer: Observer | None) -> None:
        """Let an observer see every step of the core from now on; None: nobody."""
        self._conductor.observer = observer

    def drain(self, timeout_s: float | None = None) -> bool:
        """Wait until every request is answered; False if that took longer than `timeout_s`."""
        self._conductor.check_may_wait("drain")
        return self._conductor.drain(timeout_s)

    def stop(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Take no more requests, answer those there are, end the threads. Again is fine.

        Args:
            drain: Run what waits; otherwise it is answered with `ClosedError`.
            timeout_s: What is not answered by then gets `ClosedError` too.
        """
        if self._stopped:
            return
        event_loop = self._conductor
        event_loop.check_may_wait("stop")
        event_loop.closing = event_loop.closing or "the engine is stopping"
        self._post(Closed(drop_waiting=not drain))
        try:
            in_time = self.drain(timeout_s)
        finally:  # also if the user does not wait any longer
            self._spinning.close()
        if not in_time:  # nothing that waits may start any more
            self._post(Closed(drop_waiting=True))
        self._stopped = True
        event_loop.stop()
        # A session that still runs must not be closed under its thread, and one that is loaded or
        # warmed up in another thread neither.
        ended = event_loop.worker_pool.end(None if in_time else 1.0)
        if ended and self._loading.acquire(timeout=_LET_GO_S):
            try:
                self._shelf.store.close()
            finally:
                self._loading.release()

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

    def _check_open(self) -> None:
        if self._conductor.closing:
            raise ClosedError(self._conductor.closing)

    def _load_all(
        self, models: Mapping[str, Model | CutModel | str | Path], profile: Profile | None
    ) -> None:
        if profile is None:
            # Together: whether there is room for thread pools depends on all of them.
            found = {name: self._found(name, model) for name, model in models.items()}
            models, profile = found, self._measured(found)
        for name, model in models.items():
            self.load(name, model, profile)

    def _keep_awake(self) -> None:
        if refusal := self._spinning.enter_context(awake(self._cores)):
            self.warnings.append(refusal)

    def _measured(self, models: Mapping[str, Model | CutModel]) -> Profile:
        """Measure what was not: models that are cut bring their times along."""
        cut = {name: each for name, each in models.items() if isinstance(each, CutModel)}
        whole = {name: each for name, each in models.items() if isinstance(each, Model)}
        everyone = tuple(self._processors.values())
        profile = Profile()
        for name, each in cut.items():
            profile = profile.merged(each.renamed(name).profile)
        if whole:
            skips: list[Skip] = []
            measured = profile_models(
                whole,
                everyone,
                cache=default_cache(),
                backends=self._backends,
                skipped=skips.append,
            )
            require_runnable(whole, measured, skips)
            profile = profile.merged(useful(measured, everyone))
        return within_pools(profile, everyone, threads=POOLS.room(max(p.threads for p in everyone)))

    def _found(self, name: str, model: Model | CutModel | str | Path) -> Model | CutModel:
        """Find a model, and partition it if the engine does so."""
        found = _resolved(name, model)
        if self._partition is None or isinstance(found, CutModel):
            return found
        cut = prepare(
            found,
            tuple(self._processors.values()),
            self._partition,
            Profiler(cache=default_cache(), backends=self._backends),
            spare=False,
        )
        self.warnings += cut.warnings
        return cut


def _resolved(name: str, model: Model | CutModel | str | Path) -> Model | CutModel:
    if isinstance(model, Model | CutModel):
        return model
    return resolve_model(str(model), name=name)


def _absolute(arrival_s: float, deadline_s: float) -> float:
    if not 0 < deadline_s < _INF:
        raise ConfigurationError(f"deadline_s must be positive seconds, got {deadline_s!r}")
    return arrival_s + deadline_s


def _on_late(text: OnLate | str) -> OnLate:
    try:
        return OnLate(text)
    except ValueError:
        raise ConfigurationError(f"on_late must be 'run' or 'drop', got {text!r}") from None
