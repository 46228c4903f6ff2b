"""Pipeline: one request on its way through an ensemble.

Stages begin as soon as what they read is there. Models are asked from the callbacks of what came
before, on the engine's threads; functions are called on threads of the ensemble. Of what ends a
request - all stages done, one failed, cancelled - the first counts, and the others find it over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from coinfer.ensembles.call import called, of_all_items
from coinfer.ensembles.future import EnsembleFuture
from coinfer.ensembles.items import items_of, no_items, stacked
from coinfer.ensembles.naming import named
from coinfer.ensembles.terms import Terms
from coinfer.ensembles.wiring import WiredStage
from coinfer.errors import ClosedError, DroppedError, ExecutionError, InputError
from coinfer.runtime.load_generator import Submits
from coinfer.workload.ensemble import Source, source_of

__all__ = ["Pipeline", "Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all requests to an ensemble share.

    Attributes:
        name: Of the ensemble.
        stages: By name.
        outputs: By name of an output, where it comes from.
        read: What anybody reads.
        engine: Answers the requests to models.
        threads: Where functions are called.
    """

    name: str
    stages: Mapping[str, WiredStage]
    outputs: Mapping[str, Source]
    read: frozenset[Source]
    engine: Submits
    threads: Executor

    def wanted(self, stage: str) -> list[str]:
        """Return the outputs of a stage that anybody reads."""
        return [source.name for source in self.read if source.stage == stage]


class _Answers:
    """The answers to the requests of one stage, as they come."""

    __slots__ = ("left", "results")

    def __init__(self, count: int) -> None:
        self.results: list[Mapping[str, Any]] = [{}] * count
        self.left = count


class Pipeline:
    """One request on its way.

    Args:
        plan: What is done.
        inputs: What comes in, checked.
        terms: What was promised.

    """

    def __init__(self, plan: Plan, inputs: Mapping[str, Any], terms: Terms) -> None:
        self._future: EnsembleFuture | None = EnsembleFuture(lambda: self._end() is not None)
        self._plan = plan
        self._terms = terms
        self._values = {Source("", name): value for name, value in inputs.items()}
        self._missing = {name: len(each.stage.after) for name, each in plan.stages.items()}
        self._left = len(plan.stages)
        self._asked: list[Future[Any]] = []
        self._lock = threading.Lock()

    @property
    def future(self) -> EnsembleFuture:
        """The answer to come; it is there to take before `begin`."""
        assert self._future is not None
        return self._future

    @property
    def _is_over(self) -> bool:
        return self._future is None

    def begin(self) -> None:
        """Begin the stages that wait for nothing."""
        self._begin([name for name, count in self._missing.items() if not count])

    def _begin(self, names: Iterable[str]) -> None:
        for name in names:
            wired = self._plan.stages[name]
            try:
                if wired.function is None:
                    self._ask(wired)
                else:
                    self._post(wired)
            except Exception as error:  # noqa: BLE001 - whatever it is, the request ends with it
                self._fail(wired, error)

    # stages that ask a model

    def _ask(self, wired: WiredStage) -> None:
        """Submit the requests of a stage, one for each item."""
        stage, terms = wired.stage, self._terms
        requests = self._requests(wired)
        if not requests:
            self._give(wired, {n: self._nothing(wired, n) for n in self._plan.wanted(stage.name)})
            return
        answers = _Answers(len(requests))
        for at, inputs in enumerate(requests):
            if self._is_over:
                return
            try:
                future = self._plan.engine.submit(
                    stage.model,
                    inputs,
                    deadline_s=terms.deadline_s,
                    priority=terms.priority,
                    on_late=terms.on_late,
                    due_s=terms.due_s,
                )
            except InputError as error:
                raise self._blamed(wired, error) from error
            self._keep(future)
            future.add_done_callback(partial(self._answered, wired, answers, at))

    def _requests(self, wired: WiredStage) -> list[dict[str, Any]]:
        stage = wired.stage
        whole = {
            name: self._values[source]
            for name, source in stage.sources.items()
            if str(source) != stage.each
        }
        if not stage.each:
            return [whole]
        of_items = [name for name, text in stage.inputs.items() if text == stage.each]
        return [
            {**whole, **{name: _sample(wired, name, item) for name in of_items}}
            for item in items_of(self._values[source_of(stage.each)], stage.each)
        ]

    @staticmethod
    def _nothing(wired: WiredStage, name: str) -> Any:
        spec = wired.outputs[name]
        assert spec is not None  # of models it is known
        return no_items(spec)

    def _blamed(self, wired: WiredStage, error: InputError) -> InputError | ExecutionError:
        """Return the error of wrong inputs: the caller's fault only if they are the caller's."""
        if not wired.stage.after:
            return error
        return ExecutionError(str(error))

    def _answered(self, wired: WiredStage, answers: _Answers, at: int, future: Future[Any]) -> None:
        if self._is_over:
            return
        error = CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            self._fail(wired, error, f", item {at + 1}" if wired.stage.each else "")
            return
        answers.results[at] = future.result()
        with self._lock:
            answers.left -= 1
            is_last = not answers.left
        if not is_last:
            return
        try:
            self._give(wired, self._outputs(wired, answers.results))
        except Exception as found:  # noqa: BLE001 - whatever it is, the request ends with it
            self._fail(wired, found)

    def _outputs(self, wired: WiredStage, results: list[Mapping[str, Any]]) -> dict[str, Any]:
        wanted = self._plan.wanted(wired.stage.name)
        if not wired.stage.each:
            return {name: results[0][name] for name in wanted}
        return {
            name: stacked(
                name,
                [each[name][0] if name in wired.drops_axis else each[name] for each in results],
            )
            for name in wanted
        }

    # stages that call a function

    def _post(self, wired: WiredStage) -> None:
        try:
            self._plan.threads.submit(self._call, wired)
        except RuntimeError as error:  # the threads were ended
            raise ClosedError("the ensemble is closed") from error

    def _call(self, wired: WiredStage) -> None:
        stage = wired.stage
        try:
            if stage.each:
                items = self._requests(wired)
                results = [self._one(wired, each) for each in items if not self._is_over]
                if not self._is_over:
                    self._give(wired, of_all_items(wired, results))
            elif not self._is_over:
                [arguments] = self._requests(wired)
                self._give(wired, self._one(wired, arguments))
        except Exception as error:  # noqa: BLE001 - whatever it is, the request ends with it
            self._fail(wired, error)

    def _one(self, wired: WiredStage, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self._terms.is_too_late:
            raise DroppedError("the deadline passed before it began")
        return called(wired, arguments)

    # the end

    def _give(self, wired: WiredStage, outputs: Mapping[str, Any]) -> None:
        """Hand on what a stage gives, and begin what waited for it alone."""
        done = wired.stage.name
        ready = []
        with self._lock:
            for name, value in outputs.items():
                self._values[Source(done, name)] = value
            self._left -= 1
            is_last = not self._left
            for name, each in self._plan.stages.items():
                if done in each.stage.after:
                    self._missing[name] -= 1
                    if not self._missing[name]:
                        ready.append(name)
        if not is_last:
            self._begin(ready)
            return
        values = self._values
        future = self._end()
        if future is not None:
            future.set_result({name: values[of] for name, of in self._plan.outputs.items()})

    def _fail(self, wired: WiredStage, error: BaseException, which: str = "") -> None:
        future = self._end()
        if future is not None:
            where = f"ensemble {self._plan.name!r}, stage {wired.stage.name!r}{which}"
            future.set_exception(named(where, error))

    def _keep(self, future: Future[Any]) -> None:
        """Remember a request, which is cancelled if this ends before it."""
        with self._lock:
            if not self._is_over:
                self._asked.append(future)
                return
        future.cancel()

    def _end(self) -> EnsembleFuture | None:
        """End it, cancel what is left, and forget what was computed: the future may be kept long.

        Returns:
            The future, for the first who ends it to resolve; None: somebody did.
        """
        with self._lock:
            future, self._future = self._future, None
            if future is None:
                return None
            asked, self._asked = self._asked, []
            self._values = {}
        for each in asked:
            each.cancel()
        return future


def _sample(wired: WiredStage, name: str, item: Any) -> Any:
    """Return an item as the model takes it: one sample is a batch of one."""
    if name in wired.needs_axis and isinstance(item, np.ndarray):
        return item[np.newaxis]
    return item
