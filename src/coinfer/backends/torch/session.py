"""TorchSession: a program that runs on the CPU, in the thread that calls it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from coinfer.backends.base import Placement, Tensor, Tensors
from coinfer.backends.pools import POOLS
from coinfer.backends.run_faults import is_of_inputs
from coinfer.backends.torch.library import torch
from coinfer.backends.torch.program import Program
from coinfer.errors import BackendError, ExecutionError, first_line
from coinfer.model import Model

__all__ = ["TorchSession", "host_tensor"]


class TorchSession:
    """A program on the CPU; made by `TorchBackend.load`."""

    def __init__(
        self, program: Program, model: Model, *, what: str, precision: str, threads: int
    ) -> None:
        self._program: Program | None = program
        self._inputs = tuple(spec.name for spec in model.inputs)
        self._outputs = tuple(spec.name for spec in model.outputs)
        self._what = what
        self._precision = precision
        self._threads = threads

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs; the arrays belong to the caller.

        Raises:
            ExecutionError: torch failed, or the session is closed.
        """
        program = self._program
        if program is None:
            raise ExecutionError.of(self._what, "the session is closed; load the model again")
        try:
            given = [host_tensor(inputs[name]) for name in self._inputs]
            # A thread of the caller's may run it, and torch keeps by thread whether to use bf16.
            with (
                torch.inference_mode(),
                torch.autocast("cpu", enabled=False),
                _threads(self._threads),
            ):
                made = _unshared(program.run(given), given, program.constants)
        except Exception as error:
            # The library raises RuntimeError, ValueError, TypeError and its own kinds.
            reason = first_line(error)
            raise ExecutionError.of(
                self._what, reason, is_of_inputs=is_of_inputs(reason)
            ) from error
        return {name: each.numpy() for name, each in zip(self._outputs, made, strict=True)}

    def placement(self) -> Placement:
        """Tell how many functions are called.

        Raises:
            BackendError: the session is closed.
        """
        if self._program is None:
            raise BackendError(f"{self._what}: the session is closed; load the model again")
        operators = {"CPU": max(1, len(self._program.steps))}
        return Placement(operators=operators, precision=self._precision, threads=self._threads)

    def close(self) -> None:
        """Give memory and pool threads back; a run in progress ends first."""
        if self._program is not None:
            self._program = None
            POOLS.release(self._threads - 1)


def host_tensor(array: Tensor) -> Any:
    """Return an array as a tensor, without a copy where torch takes it as it is."""
    if not array.flags.writeable or any(step < 0 for step in array.strides):
        array = np.array(array)
    return torch.from_numpy(array)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let the calling thread compute with so many threads. torch keeps the number by thread."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _unshared(made: Sequence[Any], given: Sequence[Any], constants: frozenset[int]) -> list[Any]:
    """Copy outputs that share memory with inputs, constants or each other."""
    taken = {each.untyped_storage().data_ptr() for each in given} | constants
    found = []
    for each in made:
        each = each.contiguous()
        place = each.untyped_storage().data_ptr()
        if place in taken:
            each = each.clone()
        else:
            taken.add(place)
        found.append(each)
    return found
