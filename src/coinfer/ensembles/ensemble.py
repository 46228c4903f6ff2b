"""Ensemble: a pipeline of models and small steps that is asked like one model."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coinfer.backends.base import Tensors
from coinfer.core.request import OnLate
from coinfer.ensembles.future import EnsembleFuture
from coinfer.ensembles.pipeline import Pipeline, Plan
from coinfer.ensembles.signature import Signature
from coinfer.ensembles.terms import Terms
from coinfer.ensembles.wiring import wired
from coinfer.errors import ClosedError
from coinfer.model import Model
from coinfer.model.inputs import InputCheck
from coinfer.model.specs import TensorSpec
from coinfer.planner.model_source import resolve_model
from coinfer.runtime.arguments import patience, wrong_inputs
from coinfer.runtime.load_generator import Submits
from coinfer.workload.ensemble import EnsembleDescription

__all__ = ["Ensemble"]

_THREADS = 2


class Ensemble:
    """A pipeline that is asked like one model. Threads may call any method at any time.

    Each stage that asks a model is a request of the engine: it waits, batches and runs with those
    of other pipelines and of other callers. All of them share the moment from which the deadline
    counts, the deadline and the priority of the request from outside. Whatever goes wrong in one
    stage ends the whole, and cancels what is left.

    Args:
        description: What is done; see `load_ensemble`.
        engine: What answers the requests to models; it stays the caller's to stop, after this.
        models: Those that the description names, at least: as `Engine` takes them, but for cut
            ones; or their signatures.
        threads: How many functions may be called at a time.

    Raises:
        UnknownNameError: the description names something that is not there.
        ModelError: the file of a model cannot be used.
        ConfigurationError: stages do not fit to each other or to the models, or a function cannot
            be imported.

    Attributes:
        description: What is done.
        inputs: Specs of what a request gives.
        outputs: Specs of what an answer has; open axes are None or symbols.

    >>> import coinfer
    >>> from coinfer.ensembles import Ensemble, parse_ensemble
    >>> from coinfer.testing.models import tiny_linear
    >>> description = parse_ensemble('''
    ... ensemble: rows
    ... inputs: {rows: {datatype: FP32, shape: [COUNT, 4]}}
    ... stages: [{name: each_row, model: net, each: rows, inputs: {x: rows}}]
    ... outputs: {y: each_row.y}
    ... ''')
    >>> models = {"net": tiny_linear().model}
    >>> rows = models["net"].sample_inputs(batch=5)["x"]
    >>> with coinfer.Engine(models) as engine, Ensemble(description, engine, models) as ensemble:
    ...     future = ensemble.submit({"rows": rows}, deadline_s=60)
    ...     future.result()["y"].shape
    (5, 3)
    """

    def __init__(
        self,
        description: EnsembleDescription,
        engine: Submits,
        models: Mapping[str, Model | Signature | str | Path],
        *,
        threads: int = _THREADS,
    ) -> None:
        signatures = {name: _signature(name, model) for name, model in models.items()}
        stages, outputs = wired(description, signatures)
        self.description = description
        self.inputs = description.input_specs
        self.outputs: tuple[TensorSpec, ...] = tuple(outputs.values())
        sources = description.output_sources
        has_functions = any(each.function is not None for each in stages.values())
        self._threads = _started(threads if has_functions else 0, description.name)
        self._plan = Plan(
            name=description.name,
            stages=stages,
            outputs=sources,
            read=frozenset(sources.values()).union(
                *(each.stage.sources.values() for each in stages.values())
            ),
            engine=engine,
            threads=self._threads,
        )
        self._check = InputCheck(description.name, self.inputs, has_batch=False)
        self._under_way: set[EnsembleFuture] = set()
        self._taking = threading.Lock()
        self._closing = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.description.name

    @property
    def n_under_way(self) -> int:
        """Requests that are submitted and not yet answered."""
        return len(self._under_way)

    def submit(
        self,
        inputs: Tensors,
        *,
        deadline_s: float | None = None,
        priority: int = 0,
        on_late: OnLate | str = OnLate.RUN,
        due_s: float | None = None,
    ) -> EnsembleFuture:
        """Ask for one inference; returns at once.

        Args:
            inputs: Arrays by name. They must not be changed until the answer is there.
            deadline_s: Seconds from `due_s` by which the whole answer is wanted; None: no deadline.
            priority: Of all stages; larger is more urgent.
            on_late: `run`, or `drop` to end with `DroppedError` if the deadline passes, or cannot
                be met any more, before a stage begins.
            due_s: Moment from which latency and deadline count, in `clock.now()` time; None: now.

        Returns:
            A future. It resolves to outputs by name, or raises what the stages of it raise, with
            the name of the stage. Callbacks run on threads of the engine or of the ensemble: they
            may submit, and must be short.

        Raises:
            InputError: an input's name, dtype or shape is wrong.
            ConfigurationError: another argument makes no sense.
            ClosedError: the ensemble is closed.
        """
        terms = Terms.checked(deadline_s, priority, on_late, due_s)
        pipeline = Pipeline(self._plan, self._checked(inputs), terms)
        future = pipeline.future
        with self._taking:
            if self._closing:
                raise ClosedError(self._closing)
            self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        try:
            pipeline.begin()
        except BaseException:  # e.g. Ctrl-C
            future.cancel()
            raise
        return future

    def infer(
        self,
        inputs: Tensors,
        *,
        deadline_s: float | None = None,
        priority: int = 0,
        on_late: OnLate | str = OnLate.RUN,
        due_s: float | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Submit and wait; not from a callback of a future.

        Args:
            inputs: As in `submit`, and so are all but the last.
            deadline_s: See there.
            priority: See there.
            on_late: See there.
            due_s: See there.
            timeout_s: Seconds to wait for the answer; None: as long as it takes.

        Returns:
            Outputs by name.

        Raises:
            CoinferError: what `submit` and its future raise.
            TimeoutError: there is no answer yet; what is left is cancelled.
        """
        timeout_s = patience("timeout_s", timeout_s)
        future = self.submit(
            inputs, deadline_s=deadline_s, priority=priority, on_late=on_late, due_s=due_s
        )
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if not future.cancel() and future.done():
                return future.result()  # it came meanwhile
            raise TimeoutError(
                f"ensemble {self.name!r} gave no answer within {timeout_s:g} s"
            ) from None
        except BaseException:  # e.g. Ctrl-C, or the request's own error: then this does nothing
            future.cancel()
            raise

    def least_s(self, cost_s: Callable[[str], float]) -> float:
        """Return how long a request takes at least: the longest way through its stages.

        Stages with `each` may have no items, so they count nothing.

        Args:
            cost_s: How long a request to a model takes.
        """
        ends: dict[str, float] = {}
        for name, each in self._plan.stages.items():
            stage = each.stage
            takes_s = cost_s(stage.model) if stage.model and not stage.each else 0.0
            ends[name] = takes_s + max((ends[before] for before in stage.after), default=0.0)
        return max(ends.values())

    def close(self, *, drain: bool = True) -> None:
        """Take no more requests, answer those there are, end the threads. Again is fine.

        Args:
            drain: Go on with what is under way; otherwise it is cancelled.
        """
        with self._taking:
            self._closing = self._closing or f"ensemble {self.name!r} is closed"
        under_way = list(self._under_way)
        if not drain:
            for future in under_way:
                future.cancel()
        wait(under_way)
        self._threads.shutdown(wait=drain, cancel_futures=not drain)

    def __enter__(self) -> Self:
        """Return the ensemble."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; after an exception, without going on with what is under way."""
        self.close(drain=kind is None)

    def _checked(self, inputs: Tensors) -> dict[str, Any]:
        try:
            found = dict(inputs)
        except Exception as error:
            raise wrong_inputs(self.name, inputs, error) from error
        self._check(found)
        return found


def _signature(name: str, model: Model | Signature | str | Path) -> Signature:
    if isinstance(model, Signature):
        return model
    if not isinstance(model, Model):
        model = resolve_model(os.fspath(model), name=name)
    return Signature.of(model)


def _started(count: int, name: str) -> ThreadPoolExecutor:
    """Return threads that run already.

    Begun later, they would be begun by threads of an engine, and keep to the cores and the priority
    of these.
    """
    threads = ThreadPoolExecutor(max(count, 1), thread_name_prefix=f"coinfer-{name}")
    gate = threading.Event()
    for _ in range(count):
        threads.submit(gate.wait)
    gate.set()
    return threads
