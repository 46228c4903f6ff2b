"""OnnxRuntimeSession: a compiled model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coinfer.backends.base import Placement, Tensor, Tensors
from coinfer.backends.onnxruntime import arena
from coinfer.backends.onnxruntime.creation import Call, call_of
from coinfer.backends.onnxruntime.library import first_line
from coinfer.backends.pools import POOLS
from coinfer.errors import BackendError, ExecutionError

__all__ = ["OnnxRuntimeSession"]


class OnnxRuntimeSession:
    """A compiled model; made by `OnnxRuntimeBackend.load`."""

    def __init__(
        self,
        *,
        session: Any,
        outputs: tuple[str, ...],
        what: str,
        precision: str,
        pool: int,
        operators: Mapping[str, int],
        shares: bool = False,
        note: str = "",
    ) -> None:
        self._session = session
        self._call: Call | None = call_of(session)
        self._outputs = outputs
        self._what = what
        self._precision = precision
        self._pool = pool
        self._operators = operators
        self._shares = shares
        self._note = note

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
            values = call(self._outputs, feed, None)
        except Exception as error:
            # The library's exceptions have no other common base.
            raise self._failed(first_line(error)) from error
        return dict(zip(self._outputs, values, strict=True))

    @property
    def note(self) -> str:
        """What it does without, and why, in half a sentence; empty if nothing."""
        return self._note

    def placement(self) -> Placement:
        """Tell which provider got how many operators, before fusion, as was read back.

        Raises:
            BackendError: the session is closed.
        """
        if self._session is None:
            raise BackendError(f"{self._what}: the session is closed; load the model again")
        return Placement(
            operators=self._operators,
            precision=self._precision,
            threads=self._session.get_session_options().intra_op_num_threads,
        )

    def close(self) -> None:
        """Give memory and pool threads back; a run in progress ends first."""
        if self._session is not None:
            self._session = self._call = None
            POOLS.release(self._pool)
            if self._shares:
                arena.give_back()

    def _failed(self, why: str) -> ExecutionError:
        return ExecutionError(f"{self._what}: {why}")
