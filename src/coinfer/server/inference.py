"""Inference: one request that the engine has, and its answer in the protocol's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

from coinfer.errors import ExecutionError, InputError
from coinfer.model.datatypes import BYTES, datatype_of
from coinfer.runtime.future import InferenceFuture
from coinfer.server.checked import Checked
from coinfer.server.classification import classified
from coinfer.server.held_future import HeldFuture
from coinfer.server.request import (
    NO_PARAMETERS,
    InferRequest,
    InferResponse,
    OutputTensor,
    Parameters,
    Wanted,
)
from coinfer.server.served_model import PLATFORM, ServedModel
from coinfer.server.shared_memory import SharedMemory

__all__ = ["EXPLAIN", "Inference", "check_wanted"]

EXPLAIN = "coinfer_explain"
"""The parameter that asks why a request goes where it goes, and that tells it with the answer."""

_MOST_SHAPES = 300
"""Characters of the shapes in a message."""


class Inference:
    """A request under way.

    Attributes:
        future: The engine's, or an ensemble's; its callbacks run on their threads.
        request: What was asked.
        checked: What was found out about requests of its form.
        served: The version of the model that answers.
        explain: Says why it went where it went, once it is answered; None: nobody asked.
    """

    __slots__ = ("_memory", "checked", "explain", "future", "request", "served")

    def __init__(
        self,
        future: Future[dict[str, Any]],
        request: InferRequest,
        checked: Checked,
        memory: SharedMemory,
        explain: Callable[[], str] | None = None,
    ) -> None:
        self.future = future
        self.request = request
        self.checked = checked
        self.served = checked.served
        self.explain = explain
        self._memory = memory

    @property
    def number(self) -> int:
        """The engine's number of it; -1: an ensemble answers, and the engine knows its stages."""
        return self.future.request.id if isinstance(self.future, InferenceFuture) else -1

    def note_number(self, note: Callable[[int], None]) -> None:
        """Have the engine's number of it noted: now, or when the engine gets it."""
        if isinstance(self.future, HeldFuture):
            self.future.note_number(note)
        else:
            note(self.number)

    def on_done(self, callback: Callable[[Future[dict[str, Any]]], object]) -> None:
        """Have something called once it is answered: on an engine's thread, so be quick."""
        self.future.add_done_callback(callback)

    def cancel(self) -> None:
        """Say that nobody wants the answer any more."""
        self.future.cancel()

    def arrays(self, timeout_s: float | None = 0.0) -> Mapping[str, np.ndarray[Any, Any]]:
        """Return all outputs as the engine has them.

        Args:
            timeout_s: How long to wait if they are not there yet; None: as long as it takes.

        Raises:
            InputError: no library runs the model with such sizes or values.
            CoinferError: the request failed, was dropped or refused.
            CancelledError: it was cancelled.
            TimeoutError: they are not there yet.
        """
        try:
            return self.future.result(timeout_s)
        except ExecutionError as error:
            raise (self._refusal(error) or error) from error.__cause__

    def response(self, timeout_s: float | None = 0.0) -> InferResponse:
        """Return the answer; outputs that are wanted there are written into shared memory.

        Args:
            timeout_s: How long to wait if it is not there yet; None: as long as it takes.

        Raises:
            CoinferError: as of `arrays`.
            CancelledError: it was cancelled.
            TimeoutError: it is not there yet.
        """
        request, served = self.request, self.served
        arrays = self.arrays(timeout_s)
        if not request.outputs:
            outputs = [_plain(name, array) for name, array in arrays.items()]
        else:
            outputs = [self._output(each, arrays[each.name]) for each in request.outputs]
        said: Parameters = NO_PARAMETERS
        if self.explain is not None:
            said = {EXPLAIN: self.explain()}
        return InferResponse(served.name, served.version, request.id, outputs, said)

    def _refusal(self, error: ExecutionError) -> InputError | None:
        """Return what is wrong with the request, if a run failed for what it brought."""
        if not error.is_of_inputs or self.served.platform != PLATFORM:
            return None  # the inputs of an ensemble's stage are not the client's
        shapes = ", ".join(f"{name} {list(each.shape)}" for name, _, each in self.request.inputs)
        return InputError(
            f"model {self.served.name!r} does not run with these inputs ({shapes[:_MOST_SHAPES]}); "
            f"give other sizes or values: {error}"
        )

    def _output(self, wanted: Wanted, array: np.ndarray[Any, Any]) -> OutputTensor:
        name, parameters = wanted
        if not parameters:
            return _plain(name, array)
        if parameters.get("classification"):
            labels = self.served.labels.get(name, ())
            is_batched = self.served.most_batch > 0
            count = parameters["classification"]
            array = classified(name, array, count, is_batched=is_batched, labels=labels)
        if "shared_memory_region" not in parameters:
            return _plain(name, array)
        placed = self._memory.write(name, array, parameters)
        return OutputTensor(name, datatype_of(array.dtype), array.shape, None, placed)


def check_wanted(wanted: Wanted, served: ServedModel, memory: SharedMemory, seen: set[str]) -> None:
    """See that an output can be given as it is wanted, before anything is computed.

    Raises:
        InputError: the model has no such output, or it is asked for twice.
        CoinferError: its place in shared memory is not there.
    """
    name, parameters = wanted
    if not any(spec.name == name for spec in served.outputs):
        known = ", ".join(spec.name for spec in served.outputs)
        raise InputError(f"model {served.name!r} has no output {name!r}; it has {known}")
    if name in seen:
        raise InputError(f"output {name!r} is asked for twice")
    seen.add(name)
    _check_parameters(name, parameters, memory)


def _check_parameters(name: str, parameters: Mapping[str, Any], memory: SharedMemory) -> None:
    if "shared_memory_region" in parameters:
        memory.check(name, parameters)
    count = parameters.get("classification", 0)
    if type(count) is not int or count < 0:
        raise InputError(f"output {name!r}: 'classification' must be a whole number from 1")


def _plain(name: str, array: np.ndarray[Any, Any]) -> OutputTensor:
    datatype = BYTES if array.dtype.kind in "OUS" else datatype_of(array.dtype)
    return OutputTensor(name, datatype, array.shape, array)
