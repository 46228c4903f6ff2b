"""TorchBackend: loads models with torch. On the CPU it is there to compare and to fall back on.

A program, with its weights, is there once per device and precision; each processor of a GPU has a
stream of its own, perhaps on a share of the GPU, and so sessions of its own.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Hashable, Mapping
from functools import partial

from coinfer.backends.base import Device, DeviceUse, Session
from coinfer.backends.device_faults import LOST_DEVICES, Fault, LostDevices
from coinfer.backends.pools import reserved
from coinfer.backends.precision import require_reported
from coinfer.backends.torch.cuda_gpus import CudaGpus
from coinfer.backends.torch.device_session import DeviceSession
from coinfer.backends.torch.library import torch
from coinfer.backends.torch.programs import Programs
from coinfer.backends.torch.session import TorchSession
from coinfer.backends.torch.stream import CopyStream, Gpus, Stream
from coinfer.backends.torch.translation import Translation
from coinfer.backends.torch.waiting_program import LoadedProgram
from coinfer.errors import BackendError, CoinferError, ExecutionError, first_line
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["TorchBackend"]

_log = logging.getLogger(__name__)

_CPU = "CPU"


class TorchBackend:
    """torch, by a table from ONNX's operators to torch's functions (`operators`).

    Devices are `CPU` and `CUDA:0`, `CUDA:1`, ... fp32 is computed in full, not in TensorFloat-32.
    On a GPU a processor may have the option `priority`, `high` or `normal`: where two streams could
    start something, the one of high priority does. With the option `share`, such as `1of2`, it runs
    on that part of the GPU's multiprocessors only. A GPU is split once in a process.
    """

    name = "torch"

    def __init__(self, gpus: Gpus | None = None) -> None:
        self._gpus = CudaGpus() if gpus is None else gpus
        self._lock = threading.Lock()
        self._programs = Programs()
        self._streams: dict[Hashable, tuple[Stream, int]] = {}
        self._copies: dict[str, CopyStream] = {}
        self._sessions: dict[str, weakref.WeakSet[DeviceSession]] = {}
        # What other GPUs than those of this machine lose, is lost for nobody else.
        self._lost = LOST_DEVICES if gpus is None else LostDevices()

    def versions(self) -> Mapping[str, str]:
        """Return the version of torch."""
        return {"torch": str(torch.__version__)}

    def devices(self) -> tuple[Device, ...]:
        """Return the CPU, and the GPUs that this torch can use."""
        return (_cpu(), *self._gpus.devices())

    def sharing_key(self, processor: Processor) -> Hashable:
        """One session serves all processors of the CPU of equal precision and one thread.

        A pool of threads serves one processor, and so does a stream of a GPU.
        """
        if processor.device != _CPU:
            options = frozenset(processor.options.items())
            return (self.name, processor.device, processor.units, processor.precision, options)
        pool = (processor.cores or processor.units) if processor.threads > 1 else ()
        return (self.name, processor.device, processor.threads, processor.precision, pool)

    def weights_key(self, processor: Processor) -> Hashable:
        """Streams and shares of a GPU hold the weights of a model once between them."""
        if processor.device == _CPU:
            return self.sharing_key(processor)
        return (self.name, processor.device, processor.precision)

    def device_use(self, device: str) -> DeviceUse | None:
        """Return what is taken of a GPU's memory; None for the CPU, and a GPU that is lost."""
        if device == _CPU or self._lost.reason(device):
            return None
        try:
            return self._gpus.use(device)
        except Exception as error:  # noqa: BLE001 - the library; who asks can do without
            _log.debug("nobody knows what is taken of %s: %s", device, first_line(error))
            return None

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
                self._programs.on_host(model, processor.precision, what),
                model,
                what=what,
                precision=processor.precision,
                threads=processor.threads,
            )

    def keep_ready(self, model: Model, processor: Processor) -> None:
        """Let weights wait in pinned memory of the host, for a GPU.

        Raises:
            BackendError: as `load`.
        """
        if processor.device == _CPU:
            return
        what = f"model {model.name!r} on processor {processor.name!r}"
        require_reported(self._find(processor, what), model, processor)
        stream, _ = self._stream(processor, what)
        copies = self._copies_to(processor.device)
        self._programs.keep(model, processor.precision, stream.device, copies, what)

    def _device_session(self, model: Model, processor: Processor, what: str) -> DeviceSession:
        stream, multiprocessors = self._stream(processor, what)
        if reason := self._lost.gone(processor.device):
            raise BackendError(f"{what}: {reason}")
        loaded, seconds = self._loaded(model, processor, stream, what)
        choices = self._programs.choices(
            model, processor.precision, stream.device, self.sharing_key(processor)
        )
        session = DeviceSession(
            loaded,
            model,
            stream,
            what=what,
            device=processor.device,
            precision=processor.precision,
            lost=self._lost,
            choices=choices,
            multiprocessors=multiprocessors,
            siblings=partial(self._sessions_of, processor.device),
        )
        with self._lock:
            self._sessions.setdefault(processor.device, weakref.WeakSet()).add(session)
        if not model.open_dims:
            # Of what comes alone, now: what takes long the first time, and what is recorded.
            try:
                for _ in range(1 if choices else 2):
                    started_s = time.perf_counter()
                    session.run_part(model.sample_inputs())
            except ExecutionError as error:
                session.close()
                raise BackendError(str(error)) from error
            seconds += time.perf_counter() - started_s
        session.reload_s = seconds
        return session

    def _sessions_of(self, device: str) -> list[DeviceSession]:
        with self._lock:
            return list(self._sessions.get(device, ()))

    def _loaded(
        self, model: Model, processor: Processor, stream: Stream, what: str
    ) -> tuple[LoadedProgram, float]:
        copies = self._copies_to(processor.device)
        try:
            return self._programs.on_device(model, processor.precision, stream.device, copies, what)
        except CoinferError:
            raise
        except Exception as error:
            # What the library raises when it allocates or copies.
            reason = first_line(error)
            match copies.fault(error):
                case Fault.LOST:
                    self._lost.lose(processor.device, reason)
                    reason = f"{processor.device} is lost for this process: {reason}"
                case Fault.MEMORY:
                    reason = f"{processor.device} has no memory left for it: {reason}"
                case Fault.OTHER:
                    reason = f"its weights cannot be copied to {processor.device}: {reason}"
            raise BackendError(f"{what}: {reason}") from error

    def _copies_to(self, device: str) -> CopyStream:
        with self._lock:
            if device not in self._copies:
                self._copies[device] = self._gpus.copies(device)
            return self._copies[device]

    def _stream(self, processor: Processor, what: str) -> tuple[Stream, int]:
        """Return the stream of a processor, which all its sessions share, and its SMs; 0: all."""
        options = dict(processor.options)
        priority = options.pop("priority", "normal")
        share = options.pop("share", "")
        if options or priority not in ("high", "normal"):
            raise BackendError(
                f"{what}: torch has two options on a GPU, `priority: high` or `normal`, and "
                f"`share: 1of2`; leave {min(options, default=f'priority: {priority}')} out"
            )
        key = (processor.device, processor.units, priority, share)
        with self._lock:
            if key not in self._streams:
                self._streams[key] = self._gpus.stream(
                    processor.device, share, what, is_urgent=priority == "high"
                )
            return self._streams[key]

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
