"""FakeCuda: a fake of onnxruntime with CUDA's provider. It computes with the real one on the CPU.

It holds what CUDA holds against its users: what was freed has other contents, a graph repeats what
it was recorded with whatever is bound by then, per thread, and uses memory that was given back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from coinfer.backends.onnxruntime import (
    binding,
    creation,
    gpu_compiling,
    gpu_value,
    providers,
)

__all__ = ["CUDA", "FakeCuda"]

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class FakeCuda:
    """Stands for the library, in the place of the module `onnxruntime`.

    Attributes:
        log: What ran, in order: `launch`, `record`, `repeat`, `shrink`.
        made: Options of CUDA's provider, of each session that was made.
        untaken: Types of operators that the provider does not take.
        can_record: Whether a run can be recorded.
        can_copy: Whether values can be copied inside of the GPU.
        errors: Raised by the next runs.
        load_error: Raised when a session is made.
        graph_s: What a repetition takes on the clock.
        plain_s: What a launch takes on the clock.
    """

    def __init__(self, gpus: Sequence[str] = ("H200",)) -> None:
        self.gpus = gpus
        self.log: list[str] = []
        self.made: list[Mapping[str, str]] = []
        self.untaken: Collection[str] = ()
        self.can_record = self.can_copy = True
        self.errors: list[Exception] = []
        self.load_error: Exception | None = None
        self.graph_s, self.plain_s = 1.0, 2.0
        self.time_s = 0.0
        self.OrtValue = _Buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(ort, name)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (binding, creation, gpu_compiling, gpu_value, providers):
            monkeypatch.setattr(module, "ort", self)
        monkeypatch.setattr(providers, "gpu_names", lambda: tuple(self.gpus))

    def clock(self) -> float:
        return self.time_s

    @property
    def buffers(self) -> int:
        return _Buffer.alive

    def preload_dlls(self) -> None:
        raise RuntimeError("there are none")

    def copy_tensors(self, sources: Sequence[_Buffer], targets: Sequence[_Buffer]) -> None:
        if not self.can_copy:
            raise RuntimeError("there is no data transfer for this device")
        for source, target in zip(sources, targets, strict=True):
            target.update_inplace(source.memory)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def InferenceSession(self, source: Any, options: Any, chosen: Any, **_: Any) -> Any:  # noqa: N802
        ((name, told),) = chosen
        if self.load_error is not None:
            raise self.load_error
        if name != CUDA:
            return ort.InferenceSession(source, options, [CPU])
        return _Session(self, source, options, told)


class _Buffer:
    """A value in the memory of the GPU."""

    alive = 0

    def __init__(self, array: np.ndarray) -> None:
        _Buffer.alive += 1
        self.memory = np.array(array)

    @classmethod
    def ortvalue_from_numpy(cls, array: np.ndarray, device: str, _number: int) -> _Buffer:
        assert device == "cuda"
        return cls(array)

    def shape(self) -> list[int]:
        return [*self.memory.shape]

    def data_type(self) -> str:
        return f"tensor({'float' if self.memory.dtype == np.float32 else self.memory.dtype})"

    def numpy(self) -> np.ndarray:
        return np.array(self.memory)

    def update_inplace(self, array: np.ndarray) -> None:
        if isinstance(array, _Buffer):
            raise TypeError("data must be a numpy.ndarray")  # as an older onnxruntime says
        assert (array.shape, array.dtype) == (self.memory.shape, self.memory.dtype)
        self.memory[...] = array

    def __del__(self) -> None:
        _Buffer.alive -= 1
        self.memory.fill(np.nan if self.memory.dtype.kind == "f" else 77)


class _Binding:
    def __init__(self, session: _Session) -> None:
        self.session = session
        self.inputs: dict[str, _Buffer] = {}
        self.outputs: dict[str, _Buffer | None] = {}
        self.made: list[_Buffer] = []

    def bind_ortvalue_input(self, name: str, value: _Buffer) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: _Buffer) -> None:
        self.outputs[name] = value

    def bind_output(self, name: str, device: str, _number: int) -> None:
        assert device == "cuda"
        self.outputs[name] = None

    def get_outputs(self) -> list[_Buffer]:
        return self.made

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        return [np.array(value.memory) for value in self.made]


class _Session:
    def __init__(self, cuda: FakeCuda, source: Any, options: Any, told: Mapping[str, str]) -> None:
        self.cuda = cuda
        self.real = ort.InferenceSession(source, options, [CPU])
        cuda.made.append(told)
        self.graphs: dict[tuple[threading.Thread, str], Callable[[], None]] = {}
        self.records = told.get("enable_cuda_graph") == "1"
        if self.records and any(each.ep_name != CUDA for each in self._assigned()):
            raise RuntimeError("This session cannot use the CUDA Graph feature as requested")
        self.pieces = 0

    def _assigned(self) -> list[Any]:
        nodes = [n for s in self.real.get_provider_graph_assignment_info() for n in s.get_nodes()]
        missed = [node for node in nodes if node.op_type in self.cuda.untaken]
        taken = [node for node in nodes if node.op_type not in self.cuda.untaken]
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda found=found: found)
            for name, found in ((CUDA, taken), (CPU, missed))
            if found
        ]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return self._assigned()

    def get_session_options(self) -> Any:
        return self.real.get_session_options()

    def io_binding(self) -> _Binding:
        return _Binding(self)

    def run(self, outputs: Any, feed: Any, options: Any) -> list[Any]:
        assert _entry(options, "gpu_graph_id") == "-1"
        self._shrink(options)
        return [*self.real.run(outputs, feed)]

    def run_with_iobinding(self, bound: _Binding, options: Any) -> None:
        assert bound.session is self
        if self.cuda.errors:
            raise self.cuda.errors.pop(
                0
            )  # not by a name here: the frame would keep it, and it that
        number = _entry(options, "gpu_graph_id")
        if number == "-1" or not self.records:
            self._launch(bound)
        else:
            self._repeat(bound, number)
        self._shrink(options)

    def _launch(self, bound: _Binding) -> None:
        self.cuda.log.append("launch")
        self.cuda.time_s += self.cuda.plain_s
        made = self.real.run([*bound.outputs], {n: b.memory for n, b in bound.inputs.items()})
        bound.made = []
        for (_name, buffer), array in zip(bound.outputs.items(), made, strict=True):
            found = _Buffer(array) if buffer is None else buffer
            found.update_inplace(np.asarray(array))
            bound.made.append(found)

    def _repeat(self, bound: _Binding, number: str) -> None:
        key = threading.current_thread(), number
        if key not in self.graphs:
            self.cuda.log.append("record")
            if not self.cuda.can_record:
                raise RuntimeError("CUDA failure 900: operation not permitted when capturing")
            self.graphs[key] = self._graph(bound)
        else:
            self.cuda.log.append("repeat")
        self.cuda.time_s += self.cuda.graph_s
        self.graphs[key]()

    def _graph(self, bound: _Binding) -> Callable[[], None]:
        """Keep addresses, and not what is there: that may be freed."""
        assert None not in bound.outputs.values(), "an output has no fixed address"
        read = {name: buffer.memory for name, buffer in bound.inputs.items()}
        written = {n: b.memory for n, b in bound.outputs.items() if b is not None}
        pieces = self.pieces

        def repeat() -> None:
            assert pieces == self.pieces, "an illegal memory access: it was given back"
            for memory, made in zip(written.values(), self.real.run([*written], read), strict=True):
                memory[...] = made

        return repeat

    def _shrink(self, options: Any) -> None:
        if _entry(options, "memory.enable_memory_arena_shrinkage"):
            self.cuda.log.append("shrink")
            self.pieces += 1


def _entry(options: Any, key: str) -> str:
    try:
        return str(options.get_run_config_entry(key))
    except RuntimeError:
        return ""
