"""OnnxRuntimeBackend: loads models, and parts of models, with ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from coinfer.artefacts import Made
from coinfer.backends.artefact_check import is_near
from coinfer.backends.artefact_parts import common_parts, lease_of
from coinfer.backends.base import Device
from coinfer.backends.onnxruntime import artefact, providers
from coinfer.backends.onnxruntime.assignment import numbered, taken
from coinfer.backends.onnxruntime.compiling import compiled
from coinfer.backends.onnxruntime.creation import AFFINITIES, Style, create, pool_cores
from coinfer.backends.onnxruntime.gpu import Gpu
from coinfer.backends.onnxruntime.gpu_compiling import compiled_for_gpu
from coinfer.backends.onnxruntime.library import LIBRARY_ERRORS, ort
from coinfer.backends.onnxruntime.packing import block_size
from coinfer.backends.onnxruntime.session import OnnxRuntimeSession
from coinfer.backends.pools import reserved
from coinfer.backends.precision import native_precision
from coinfer.backends.source import source_of
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["OnnxRuntimeBackend"]

_CPU = "CPU"
_DENSE = ("Gemm", "MatMul")
_LAYOUT = 4
"""Raised when an artefact of this library's same key would be another one."""


class OnnxRuntimeBackend:
    """ONNX Runtime with any execution provider that the installed wheel has.

    Devices are providers without their suffix, with a number for accelerators: `CPU`, `CUDA:0`.
    Options of a processor that contain a dot are session configuration entries; the others are
    options of the execution provider. On CUDA, `enable_cuda_graph` says whether executions are
    repeated as graphs: `1` they must, `0` they must not; else it is measured.
    """

    name = "onnxruntime"

    def __init__(self) -> None:
        self._gpus: dict[str, Gpu] = {}

    def versions(self) -> Mapping[str, str]:
        """Return the version of onnxruntime."""
        return {"onnxruntime": str(ort.__version__)}

    def devices(self) -> tuple[Device, ...]:
        """Return a device per installed execution provider, the CPU first."""
        return providers.devices()

    def sharing_key(self, processor: Processor) -> Hashable:
        """One session serves all processors of equal device, threads, precision and options.

        A pool of threads serves one processor: two that run at once would share its threads. So
        does the stream of a session on a GPU.
        """
        options = frozenset(processor.options.items())
        is_alone = processor.threads > 1 or processor.device.startswith("CUDA:")
        pool = (processor.cores or processor.units) if is_alone else ()
        return (self.name, processor.device, processor.threads, processor.precision, options, pool)

    def channel_block(self) -> int:
        """Return how many channels its convolutions keep together; 0 if none."""
        return block_size()

    def caller_cores(self, processor: Processor) -> tuple[int, ...]:
        """Return the first core where each thread of the pool has one of the others."""
        return processor.cores[:1] if pool_cores(processor) else processor.cores

    def supported(self, model: Model, processor: Processor) -> frozenset[str] | None:
        """Read back which operators the provider takes, of the model as it is, not optimised.

        Returns:
            None if ONNX Runtime has no implementation of some operator at all: it names only the
            first one that it meets.

        Raises:
            BackendError: this onnxruntime has no such device.
        """
        what = f"model {model.name!r} on processor {processor.name!r}"
        provider = providers.provider_of(processor, what)
        named, nodes = numbered(model)
        alone = dataclasses.replace(processor, threads=1)
        try:
            source, check = source_of(named)
            session = create(source, alone, provider, Style(optimised=False))
            check()
        except LIBRARY_ERRORS:
            return None
        return taken(session, provider[0], nodes)

    def load(self, model: Model, processor: Processor) -> OnnxRuntimeSession:
        """Compile the model, or a part of one so that it hands values on in blocks of channels.

        Raises:
            BackendError: unknown device, precision that the model does not have, no thread left
                for a pool, a graph that ONNX Runtime refuses, or a provider that fell back.
        """
        what = f"model {model.name!r} on processor {processor.name!r}"
        provider = providers.provider_of(processor, what)
        precision = native_precision(model)
        if processor.precision not in ("fp32", precision):
            raise BackendError(
                f"{what}: onnxruntime computes in the precision of the model, which is "
                f"{precision}, not {processor.precision}; convert the model or use precision fp32"
            )
        common = {"what": what, **self._common(model, processor)}
        with reserved(processor.threads - 1, what):
            if provider[0] == providers.CUDA_PROVIDER:
                gpu = self._gpus.setdefault(processor.device, Gpu(processor.device))
                return compiled_for_gpu(model, processor, provider, common, gpu)
            lease = lease_of(self.artefact_parts(model, processor))
            found = None if lease is None else artefact.opened(lease, model, processor, common)
            return found or compiled(model, processor, provider, common)

    def artefact_parts(self, model: Model, processor: Processor) -> Mapping[str, object] | None:
        """Return all that an artefact of a model depends on; None if none is worth it.

        Threads and cores are no part of it: they decide nothing of how weights are prepared.
        """
        if processor.device != _CPU:
            return None
        parts = common_parts(self, model, processor)
        options = {k: v for k, v in processor.options.items() if k != AFFINITIES}
        return None if parts is None else {**parts, "options": options, "layout": _LAYOUT}

    def make_artefact(self, model: Model, processor: Processor, folder: Path) -> Made:
        """Let ONNX Runtime write down what it runs, and see that it computes the same.

        Called in a process of its own: it takes several times the memory of the weights.

        Raises:
            BackendError: as `load`.
        """
        alone = dataclasses.replace(processor, threads=1, cores=())
        what = f"model {model.name!r}"
        provider = providers.provider_of(alone, what)
        common = {"what": what, **self._common(model, alone)}
        graph = folder / artefact.GRAPH
        session = None
        if not model.summary.op_types.isdisjoint(_DENSE):
            session = _blocked(model, alone, provider, common, graph)
        session = session or compiled(model, alone, provider, common, graph)
        return artefact.checked(session, model, alone, folder, common)

    def _common(self, model: Model, processor: Processor) -> dict[str, Any]:
        return {
            "outputs": tuple(spec.name for spec in model.outputs),
            "precision": native_precision(model),
            "pool": processor.threads - 1,
            "varies": any(not isinstance(dim, int) for s in model.inputs for dim in s.shape),
        }


def _blocked(
    model: Model,
    processor: Processor,
    provider: providers.Provider,
    common: Mapping[str, Any],
    graph: Path,
) -> OnnxRuntimeSession | None:
    """Write down a session whose dense layers are convolutions, which use weights as they are.

    Returns:
        None if there are no such layers, if it does not compute the same as one without, but for
        rounding, or cannot be made.
    """
    try:
        session = compiled(model, processor, provider, common, graph, blocked=True)
    except BackendError:
        return None
    plain = compiled(model, processor, provider, common)
    return session if is_near(model, plain, session) else None
