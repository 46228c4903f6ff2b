"""TorchBackend: loads models with torch. On the CPU it is there to compare and to fall back on.

A program, with its weights, is there once per device and precision; each processor of a GPU has a
stream of its own, and so sessions of its own.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Mapping
from typing import Any

from coinfer.backends.base import Device, Session
from coinfer.backends.device_faults import LOST_DEVICES
from coinfer.backends.pools import reserved
from coinfer.backends.precision import require_reported
from coinfer.backends.torch.cuda import CudaStream, cuda_devices
from coinfer.backends.torch.device_session import DeviceSession
from coinfer.backends.torch.library import torch
from coinfer.backends.torch.program import Program
from coinfer.backends.torch.session import TorchSession
from coinfer.backends.torch.stream import Stream
from coinfer.backends.torch.translation import Translation
from coinfer.errors import BackendError, ExecutionError, ModelError
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["TorchBackend"]

_COMPUTE = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CPU = "CPU"


class TorchBackend:
    """torch, by a table from ONNX's operators to torch's functions (`operators`).

    Devices are `CPU` and `CUDA:0`, `CUDA:1`, ... fp32 is computed in full, not in TensorFloat-32.
    On a GPU a processor may have the option `priority`, `high` or `normal`: where two streams could
    start something, the one of high priority does.
    """

    name = "torch"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._programs: weakref.WeakValueDictionary[Hashable, Program]
        self._programs = weakref.WeakValueDictionary()
        self._streams: dict[Hashable, Stream] = {}
        self._lost = LOST_DEVICES

    def versions(self) -> Mapping[str, str]:
        """Return the version of torch."""
        return {"torch": str(torch.__version__)}

    def devices(self) -> tuple[Device, ...]:
        """Return the CPU, and the GPUs that this torch can use."""
        return (_cpu(), *cuda_devices())

    def sharing_key(self, processor: Processor) -> Hashable:
        """One session serves all processors of the CPU of equal precision and one thread.

        A pool of threads serves one processor, and so does a stream of a GPU.
        """
        if processor.device != _CPU:
            options = frozenset(processor.options.items())
            return (self.name, processor.device, processor.units, processor.precision, options)
        pool = (processor.cores or processor.units) if processor.threads > 1 else ()
        return (self.name, processor.device, processor.threads, processor.precision, pool)

    def supported(self, model: Model, processor: Processor) -> frozenset[str]:
        """Look the operators up in the table.

        Raises:
            BackendError: there is no such device.
        """
        self._find(processor, f"model {model.name!r} on processor {processor.name!r}")
        translation = Translation.of(model.graph)
        keys = (next((v.name for v in node.outputs if v.name), "") for node in model.graph.graph)
        return frozenset(key for key in keys if key and key not in translation.refused)

    def load(self, model: Model, processor: Processor) -> Session:
        """Translate the model.

        Raises:
            BackendError: unknown device or option, a precision that the device does not report, an
                operator that torch has no function for, or no thread left for a pool.
        """
        what = f"model {model.name!r} on processor {processor.name!r}"
        require_reported(self._find(processor, what), model, processor)
        if processor.device != _CPU:
            return self._device_session(model, processor, what)
        if processor.options:
            raise BackendError(
                f"{what}: torch has no option {min(processor.options)!r} on the CPU; leave it out"
            )
        with reserved(processor.threads - 1, what):
            return TorchSession(
                self._program(model, processor, torch.device("cpu"), what),
                model,
                what=what,
                precision=processor.precision,
                threads=processor.threads,
            )

    def _device_session(self, model: Model, processor: Processor, what: str) -> DeviceSession:
        stream = self._stream(processor, what)
        if reason := self._lost.gone(processor.device):
            raise BackendError(f"{what}: {reason}")
        session = DeviceSession(
            self._program(model, processor, stream.device, what),
            model,
            stream,
            what=what,
            device=processor.device,
            precision=processor.precision,
            lost=self._lost,
        )
        if not model.open_dims:
            # Of what comes alone, now: what takes long the first time, and what is recorded.
            try:
                for _ in range(2):
                    session.run_part(model.sample_inputs())
            except ExecutionError as error:
                session.close()
                raise BackendError(str(error)) from error
        return session

    def _stream(self, processor: Processor, what: str) -> Stream:
        """Return the stream of a processor, which all its sessions share."""
        options = dict(processor.options)
        priority = options.pop("priority", "normal")
        if options or priority not in ("high", "normal"):
            raise BackendError(
                f"{what}: torch has one option on a GPU, priority: high or normal; leave "
                f"{min(options, default=f'priority: {priority}')} out"
            )
        key = (processor.device, processor.units, priority)
        with self._lock:
            if key not in self._streams:
                device = torch.device(processor.device.lower())
                self._streams[key] = CudaStream(device, is_urgent=priority == "high")
            return self._streams[key]

    def _program(self, model: Model, processor: Processor, device: Any, what: str) -> Program:
        """Translate a model, or take what was translated for another processor: weights once."""
        # A program holds the content, so that the number of another one is another one.
        key = (id(model.content), model.inputs, model.outputs, str(device), processor.precision)
        with self._lock:
            program = self._programs.get(key)
            if program is None:
                compute = _COMPUTE[processor.precision]
                try:
                    program = Program.of(model, compute=compute, device=device, what=what)
                except (BackendError, ModelError):
                    raise
                except Exception as error:
                    # What torch raises while it computes constants cannot be listed.
                    raise BackendError(f"{what}: torch cannot prepare it: {error}") from error
                self._programs[key] = program
        return program

    def _find(self, processor: Processor, what: str) -> Device:
        found = {device.name: device for device in self.devices()}
        if processor.device not in found:
            raise BackendError(
                f"{what}: torch finds no device {processor.device!r}, only {', '.join(found)}; see "
                "`coinfer doctor` for what a GPU needs"
            )
        return found[processor.device]


def _cpu() -> Device:
    computes = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has_bf16 = computes.get("avx512_bf16") or computes.get("amx_bf16")
    return Device(
        name=_CPU,
        kind="cpu",
        precisions=("fp32", "bf16") if has_bf16 else ("fp32",),
        description="CPU functions of torch",
    )
