"""OnnxRuntimeDeviceSession: a model on an NVIDIA GPU, by CUDA's provider of onnxruntime.

One execution is in flight per session: it is launched kernel by kernel, or repeated as a CUDA graph
if that is faster. What the provider asks of graphs (onnxruntime, "Using CUDA Graphs"): every node
on the provider, no control flow, inputs and outputs of one size at fixed addresses, all of them on
the GPU, and one thread at a time; it records anew for each thread.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from coinfer.backends.base import Tensor, Tensors
from coinfer.backends.device_faults import Fault, fault_of, reason_of
from coinfer.backends.onnxruntime.binding import LAUNCHED, Binding, run_options
from coinfer.backends.onnxruntime.creation import call_of
from coinfer.backends.onnxruntime.gpu import Gpu
from coinfer.backends.onnxruntime.gpu_value import GpuValue, on_gpu
from coinfer.backends.onnxruntime.library import LIBRARY_ERRORS
from coinfer.backends.onnxruntime.session import OnnxRuntimeSession
from coinfer.backends.values import Value, Values, to_host
from coinfer.errors import first_line

__all__ = ["OnnxRuntimeDeviceSession"]

_Given: TypeAlias = Mapping[str, Tensor | GpuValue]
"""Inputs on the host and on this GPU."""

_MOST_SIZES = 16
"""Sizes for which buffers are kept; they take memory of the GPU."""

_MOST_GRAPHS = 64
"""Graphs that one session records in its life: the provider forgets none before it is closed."""

_TRIALS = 5
"""Runs of either kind when a graph is compared with plain launches."""


@dataclass(slots=True, kw_only=True)
class _Size:
    """What is kept for inputs of certain sizes.

    Attributes:
        binding: Where they are.
        runs: Executions so far.
        graph: The number of its graph, or `LAUNCHED`.
        recorded: The threads for which that is recorded.
    """

    binding: Binding
    runs: int = 0
    graph: int = LAUNCHED
    recorded: weakref.WeakSet[threading.Thread] = field(default_factory=weakref.WeakSet)


@dataclass(kw_only=True, eq=False)
class OnnxRuntimeDeviceSession(OnnxRuntimeSession):
    """A compiled model on a GPU; made by `OnnxRuntimeBackend.load`.

    Attributes:
        gpu: Where it runs.
        device_bytes: What its weights take there.
        without_graphs: Makes the library's session anew, so that it never records; None: this one
            never does.
        insists: Whether it must record, faster or not.
        borders: Outputs that other parts of the model read, and nobody else.
        clock: Seconds.
    """

    gpu: Gpu
    device_bytes: int = 0
    without_graphs: Callable[[], Any] | None = None
    insists: bool = False
    borders: Collection[str] = ()
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        super().__post_init__()
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Hashable, _Size] = OrderedDict()
        self._records = self.without_graphs is not None
        self._graphs = 0
        self._zeros: dict[str, Tensor] = {}
        # What only other parts of the model read stays on the GPU.
        self._borders = tuple(at for at, n in enumerate(self.outputs) if n in self.borders)
        self._keep: Collection[int] = ()
        self.gpu.enter(self)

    @property
    def recorded(self) -> int:
        """For how many sizes executions are repeated as graphs."""
        return sum(size.graph != LAUNCHED for size in self._sizes.values())

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs; the arrays belong to the caller.

        Out of memory, what this and other sessions of the GPU keep for later is given back, and the
        run is tried once more.

        Raises:
            ExecutionError: the GPU failed or is lost, or the session is closed.
        """
        return to_host(self._answer(inputs))

    def run_part(self, inputs: Values) -> dict[str, Value]:
        """Compute all outputs; those at borders stay on the GPU, if the library can copy there.

        Raises:
            ExecutionError: the GPU failed or is lost, or the session is closed.
        """
        given: dict[str, Tensor | GpuValue] = {}
        for name, value in inputs.items():
            if isinstance(value, GpuValue) and value.gpu is self.gpu:
                given[name] = value
            else:
                given[name] = to_host({name: value})[name]
        return {**self._answer(given, self._borders)}

    def owned(self, inputs: Values) -> dict[str, Value]:
        """Return inputs as they are on the GPU."""
        arrays = to_host(inputs)
        with self.gpu.running():
            return {
                name: GpuValue(on_gpu(array, self.gpu), self.gpu, array.shape, array.dtype)
                for name, array in arrays.items()
            }

    def _answer(self, inputs: _Given, keep: Collection[int] = ()) -> dict[str, Tensor | GpuValue]:
        if gone := self.gpu.lost.gone(self.gpu.name):
            raise self._failed(gone)
        with self._lock:
            if self.session is None:
                raise self._failed("the session is closed; load the model again")
            self._keep = keep
            values = self._tried(inputs)
            if values is None:
                self.gpu.relieve()
                values = self._tried(inputs, is_last=True)
            assert values is not None
        return dict(zip(self.outputs, values, strict=True))

    def give_back(self) -> None:
        """Give back memory that is kept for later, unless something runs.

        Graphs are forgotten too, for they use that memory.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            call = self._call
            self._sizes.clear()
            if call is not None and self._zeros:
                # The library gives memory back at the end of a run, and at no other time.
                with suppress(*LIBRARY_ERRORS), self.gpu.running():
                    call(self.outputs, self._zeros, run_options(shrinks=self.gpu.number))
        finally:
            self._lock.release()

    def close(self) -> None:
        """Give memory back; a run in progress ends first."""
        with self._lock, self.gpu.running():
            self._sizes.clear()
            self.without_graphs = None
            super().close()

    def _tried(self, inputs: _Given, *, is_last: bool = False) -> list[Tensor | GpuValue] | None:
        """Execute; None if memory is short and it is not the last time: buffers are free then."""
        try:
            return self._executed(inputs)
        except Exception as error:
            # The library's exceptions have no other common base.
            self._sizes.clear()  # a graph may be half recorded
            fault = fault_of(error)
            if fault is not Fault.MEMORY or is_last:
                reason = reason_of(fault, self.gpu.name, first_line(error), self.gpu.lost)
                raise self._failed(reason) from error
        return None

    def _executed(self, inputs: _Given) -> list[Tensor | GpuValue]:
        with self.gpu.running():
            size = self._filled(inputs)
            # One of a size that came once may never come again.
            is_due = size.runs == 2 and self._records and self._graphs < _MOST_GRAPHS
            if not is_due and _is_recorded(size):
                return self._ran(size)
        if not is_due:
            self._record(size)
        elif not self._choose(size):
            del size  # with it goes the session
            self._start_without_graphs()
        with self.gpu.running():
            return self._ran(self._filled(inputs))

    def _filled(self, inputs: _Given) -> _Size:
        """Copy inputs to the GPU, to where those of this size are read."""
        key = frozenset((name, value.shape, value.dtype) for name, value in inputs.items())
        size = self._sizes.get(key)
        if size is None:
            binding = Binding(self.session, self.outputs, inputs, self.gpu)
            size = self._sizes[key] = _Size(binding=binding)
            if len(self._sizes) > _MOST_SIZES:
                self._sizes.popitem(last=False)
            if not self._zeros:
                self._zeros = {n: np.zeros(v.shape, v.dtype) for n, v in inputs.items()}
        else:
            size.binding.fill(inputs)
        self._sizes.move_to_end(key)
        size.runs += 1
        return size

    def _ran(self, size: _Size) -> list[Tensor | GpuValue]:
        size.binding.run(run_options(size.graph))
        values = self._outputs_of(size)
        if size.runs == 1 and self._records:
            size.binding.fix_outputs()
        return values

    def _outputs_of(self, size: _Size) -> list[Tensor | GpuValue]:
        try:
            return size.binding.outputs(self._keep)
        except Exception as error:
            if not self._keep or fault_of(error) is not Fault.OTHER:
                raise
            self._borders = self._keep = ()
            self.note = f"values that its parts hand on pass the host: {first_line(error)}"
        return size.binding.outputs()

    def _record(self, size: _Size) -> None:
        """Record a graph for the calling thread: its first run with the graph's number does."""
        with self.gpu.recording():
            size.binding.run(run_options(size.graph))
        size.recorded.add(threading.current_thread())

    def _choose(self, size: _Size) -> bool:
        """Record the execution and keep that if it is faster; False if it cannot be recorded."""
        plain_s = self._seconds(size)
        self._graphs += 1
        size.graph = self._graphs
        try:
            self._record(size)
        except Exception as error:
            # What cannot be recorded says so in many ways.
            if self.insists or fault_of(error) is not Fault.OTHER:
                raise
            return False
        if not self.insists and self._seconds(size) > plain_s:
            size.graph = LAUNCHED
        self.without_graphs = None  # it holds the model
        return True

    def _seconds(self, size: _Size) -> float:
        """Return the least of some runs."""
        options, found = run_options(size.graph), []
        for _ in range(_TRIALS):
            with self.gpu.running():
                started = self.clock()
                size.binding.run(options)
                found.append(self.clock() - started)
        return min(found)

    def _start_without_graphs(self) -> None:
        """Take another session of the library: after a failed recording it may be of no use."""
        self._sizes.clear()
        self._records = False
        if self.without_graphs is None:
            return
        self.session = self._call = None  # its memory first
        self.session, self.without_graphs = self.without_graphs(), None
        self._call = call_of(self.session)


def _is_recorded(size: _Size) -> bool:
    """Tell whether the calling thread has nothing to record before it runs."""
    return size.graph == LAUNCHED or threading.current_thread() in size.recorded
