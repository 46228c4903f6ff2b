"""OpenVinoSession: a compiled model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from coinfer.artefacts import Lease
from coinfer.backends.base import Placement, Tensor, Tensors
from coinfer.backends.mapped_file import MappedFile
from coinfer.backends.openvino.messages import reason_of
from coinfer.backends.openvino.placing import placement_of
from coinfer.backends.pools import POOLS
from coinfer.backends.run_faults import is_of_inputs
from coinfer.errors import BackendError, ExecutionError
from coinfer.model import Model, TensorSpec

__all__ = ["OpenVinoSession"]

_FIRST_RUNS = 4
"""Runs during which weights are packed, in whichever thread they are."""


class OpenVinoSession:
    """A compiled model; made by `OpenVinoBackend.load`."""

    def __init__(
        self,
        compiled: Any,
        model: Model,
        *,
        what: str,
        pool: int,
        is_cpu: bool = True,
        mapped: MappedFile | None = None,
        lease: Lease | None = None,
    ) -> None:
        self._compiled = compiled
        self._mapped = mapped
        self._lease = lease
        self._first_runs = 0 if mapped is None else _FIRST_RUNS
        self._inputs = _in_order(compiled.inputs, model.inputs, what)
        self._outputs = _in_order(compiled.outputs, model.outputs, what)
        dtypes = {spec.name: spec.dtype for spec in model.inputs if spec.dtype.kind in "iu"}
        self._integers = [(at, dtypes[name]) for name, at in self._inputs if name in dtypes]
        self._what = what
        self._is_cpu = is_cpu
        self._pool = pool
        # A request holds the buffers of one run. `deque` is safe to use from several threads.
        self._idle: deque[Any] = deque([compiled.create_infer_request()])

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs; the arrays belong to the caller.

        Raises:
            ExecutionError: OpenVINO failed, or the session is closed.
        """
        compiled = self._compiled
        if compiled is None:
            raise ExecutionError.of(self._what, "the session is closed; load the model again")
        try:
            request = self._idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            feed = {index: inputs[name] for name, index in self._inputs}
            for index, dtype in self._integers:
                if feed[index].dtype.char != dtype.char:  # equal for numpy, unknown to OpenVINO
                    feed[index] = feed[index].view(dtype)
            # Inputs are read during the call only; outputs are copied out of the request.
            results = request.infer(feed, share_inputs=True).to_tuple()
        except Exception as error:
            # The library raises RuntimeError, ValueError, TypeError and its own kinds.
            reason = reason_of(error)
            is_inputs = self._is_cpu and is_of_inputs(reason)
            raise ExecutionError.of(self._what, reason, is_of_inputs=is_inputs) from error
        if self._compiled is not None:
            self._idle.append(request)
        if self._first_runs > 0:
            self._forget_mapped()
        return {name: results[index] for name, index in self._outputs}

    def placement(self) -> Placement:
        """Read the executable graph back: operators, the arithmetic's precision, threads.

        Raises:
            BackendError: the session is closed.
        """
        compiled = self._compiled
        if compiled is None:
            raise BackendError(f"{self._what}: the session is closed; load the model again")
        return placement_of(compiled)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it maps."""
        return () if self._lease is None else self._lease.files

    def exported(self) -> Any:
        """Return what was compiled as a stream that can be imported."""
        return self._compiled.export_model()

    def close(self) -> None:
        """Give memory back and free the pool for another session; a run in progress ends first."""
        if self._compiled is not None:
            self._compiled = None
            self._idle.clear()
            POOLS.release(self._pool)
            if self._lease is not None:
                self._lease.close()

    def _forget_mapped(self) -> None:
        """Let go of the file's pages after the first runs: what these packed is what is used."""
        self._first_runs -= 1
        if self._mapped is not None:
            self._mapped.forget()


def _in_order(
    ports: Iterable[Any], specs: Sequence[TensorSpec], what: str
) -> tuple[tuple[str, int], ...]:
    """Index of each name among the ports; a name that was folded away keeps its position."""
    names = [spec.name for spec in specs]
    known = [port.get_names() for port in ports]
    if len(known) != len(names):
        raise BackendError(
            f"{what}: openvino sees {len(known)} tensors where the model has {len(names)}: "
            f"{', '.join(names)}; remove those that nothing uses"
        )
    at = {name: index for index, tensor_names in enumerate(known) for name in tensor_names}
    return tuple((name, at.get(name, position)) for position, name in enumerate(names))
