"""OnnxRuntimeBackend: loads models, and parts of models, with ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

from coinfer.backends.base import Device
from coinfer.backends.onnxruntime import providers
from coinfer.backends.onnxruntime.assignment import numbered, require_assigned, taken
from coinfer.backends.onnxruntime.creation import Style, create, pool_cores
from coinfer.backends.onnxruntime.library import LIBRARY_ERRORS, first_line, ort
from coinfer.backends.onnxruntime.packing import block_size
from coinfer.backends.onnxruntime.part import compiled_in_blocks
from coinfer.backends.onnxruntime.session import OnnxRuntimeSession
from coinfer.backends.pools import reserved
from coinfer.backends.precision import native_precision
from coinfer.backends.source import bytes_or_path, check_unchanged
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["OnnxRuntimeBackend"]


class OnnxRuntimeBackend:
    """ONNX Runtime with any execution provider that the installed wheel has.

    Devices are providers without their suffix, with a number for accelerators: `CPU`, `CUDA:0`.
    Options of a processor that contain a dot are session configuration entries; the others are
    options of the execution provider.
    """

    name = "onnxruntime"

    def versions(self) -> Mapping[str, str]:
        """Return the version of onnxruntime."""
        return {"onnxruntime": str(ort.__version__)}

    def devices(self) -> tuple[Device, ...]:
        """Return a device per installed execution provider, the CPU first."""
        return providers.devices()

    def sharing_key(self, processor: Processor) -> Hashable:
        """One session serves all processors of equal device, threads, precision and options.

        A pool of threads serves one processor: two that run at once would share its threads.
        """
        options = frozenset(processor.options.items())
        pool = (processor.cores or processor.units) if processor.threads > 1 else ()
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
            source = bytes_or_path(named)
            session = create(source, alone, provider, Style(optimised=False))
            check_unchanged(named, source)
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
        common: dict[str, Any] = {
            "outputs": tuple(spec.name for spec in model.outputs),
            "what": what,
            "precision": precision,
            "pool": processor.threads - 1,
        }
        with reserved(processor.threads - 1, what):
            return _compiled(model, processor, provider, common)


def _compiled(
    model: Model, processor: Processor, provider: providers.Provider, common: Mapping[str, Any]
) -> OnnxRuntimeSession:
    what = common["what"]
    is_part = bool(model.borders) and provider[0] == providers.CPU_PROVIDER
    found = compiled_in_blocks(model, processor, common) if is_part else ""
    if not isinstance(found, str):
        return found
    try:
        source = bytes_or_path(model)
        session = create(source, processor, provider, Style(shared=is_part))
        check_unchanged(model, source)
    except Exception as error:
        # The library's exceptions have no other common base.
        raise BackendError(
            f"{what}: onnxruntime cannot compile it: {first_line(error)}; check the model "
            f"with `coinfer inspect` or run it on another backend"
        ) from error
    operators = require_assigned(session, provider[0], what)
    return OnnxRuntimeSession(
        session=session,
        operators=operators,
        shares=is_part,
        note=found and f"its parts convert the values that they hand on: {found}",
        **common,
    )
