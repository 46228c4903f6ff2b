"""OnnxRuntimeSession: a compiled model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coinfer.artefacts import Lease
from coinfer.backends.base import Placement, Tensor, Tensors
from coinfer.backends.onnxruntime import arena
from coinfer.backends.onnxruntime.creation import Call, call_of
from coinfer.backends.pools import POOLS
from coinfer.backends.run_faults import is_of_inputs
from coinfer.errors import BackendError, ExecutionError, first_line

__all__ = ["OnnxRuntimeSession"]

_UNUSUAL = 4
"""Times the mean of the last requests, by bytes of inputs."""

_REMEMBERED = 16
"""Requests that the mean is over, about. A new usual size is one soon."""


@dataclass(kw_only=True, eq=False)
class OnnxRuntimeSession:
    """A compiled model; made by `OnnxRuntimeBackend.load`.

    Attributes:
        session: The library's session; None once this one is closed.
        outputs: Names of the outputs.
        what: What errors call it.
        precision: What it computes in.
        pool: Threads of its pool.
        operators: How many operators each provider got, before fusion.
        shares: Whether its activations are in the shared arena.
        note: What it does without, and why, in half a sentence; empty if nothing.
        varies: Whether its inputs have several sizes.
        is_cpu: Whether ONNX Runtime's own kernels for CPU cores run it.
        lease: The artefact that its weights are mapped from; None: it holds them itself.
    """

    session: Any
    outputs: tuple[str, ...]
    what: str
    precision: str
    pool: int
    operators: Mapping[str, int]
    shares: bool = False
    note: str = ""
    varies: bool = False
    is_cpu: bool = True
    lease: Lease | None = None

    def __post_init__(self) -> None:
        self._call: Call | None = call_of(self.session)
        self._usual_bytes = 0.0
        self._was_large = False

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs; the arrays belong to the caller.

        Raises:
            ExecutionError: ONNX Runtime failed, or the session is closed.
        """
        call = self._call
        if call is None:
            raise self._failed("the session is closed; load the model again")
        feed = inputs if type(inputs) is dict else dict(inputs)
        try:
            options = self._options_for(feed) if self.varies else None
            values = call(self.outputs, feed, options)
        except Exception as error:
            # The library's exceptions have no other common base.
            reason = first_line(error)
            is_inputs = self.is_cpu and is_of_inputs(reason)
            raise self._failed(reason, is_of_inputs=is_inputs) from error
        return dict(zip(self.outputs, values, strict=True))

    def placement(self) -> Placement:
        """Tell which provider got how many operators, before fusion, as was read back.

        Raises:
            BackendError: the session is closed.
        """
        if self.session is None:
            raise BackendError(f"{self.what}: the session is closed; load the model again")
        return Placement(
            operators=self.operators,
            precision=self.precision,
            threads=self.session.get_session_options().intra_op_num_threads,
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it maps."""
        return () if self.lease is None else self.lease.files

    def close(self) -> None:
        """Give memory and pool threads back; a run in progress ends first."""
        if self.session is not None:
            self.session = self._call = None
            POOLS.release(self.pool)
            if self.lease is not None:
                self.lease.close()
            if self.shares:
                arena.give_back()

    def _options_for(self, inputs: Tensors) -> Any:
        """Let the memory of an unusually large request go back after it, not stay for the next.

        Its outputs keep theirs until they are read; the run that comes next gives that back.
        """
        size = sum(value.nbytes for value in inputs.values())
        usual = self._usual_bytes or size
        self._usual_bytes = usual + (size - usual) / _REMEMBERED
        was_large, self._was_large = self._was_large, size > _UNUSUAL * usual
        return arena.shrinking() if was_large or self._was_large else None

    def _failed(self, why: str, *, is_of_inputs: bool = False) -> ExecutionError:
        return ExecutionError.of(self.what, why, is_of_inputs=is_of_inputs)
