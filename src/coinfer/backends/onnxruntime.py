"""The backend that runs models with ONNX Runtime. The only file that imports onnxruntime.

A session with one thread runs in the calling thread and holds no pool, so one such session serves
every core. A session with more threads owns a pool; it spins while a run lasts, because then the
processor owns its cores, and stops with it. ONNX Runtime's global pool is not used: once it is
set, every session of the process must use it, the host program's and the 1-thread ones too.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

from coinfer.backends.base import Device, Placement, Tensor, Tensors
from coinfer.backends.pools import POOLS
from coinfer.backends.precision import native_precision
from coinfer.backends.source import bytes_or_path
from coinfer.errors import BackendError, ExecutionError
from coinfer.model import Model
from coinfer.processor import Processor

# Official builds send usage events over the network unless told not to before the import. A
# library must not start that for its user; who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["OnnxRuntimeBackend", "OnnxRuntimeSession"]

_SUFFIX = "ExecutionProvider"
_CPU = "CPU"
_REMOTE = "Azure"
"""Not a device: it forwards requests to a service."""

_KINDS: Mapping[str, str] = {
    "CUDA": "gpu",
    "Tensorrt": "gpu",
    "NvTensorRTRTX": "gpu",
    "MIGraphX": "gpu",
    "Dml": "gpu",
    "WebGpu": "gpu",
    "CoreML": "npu",
    "QNN": "npu",
    "VitisAI": "npu",
    "CANN": "npu",
    "Rknpu": "npu",
    "Nnapi": "npu",
}
"""Anything else computes on the CPU."""

_FP32_OPTIONS: Mapping[str, Mapping[str, str]] = {"CUDA": {"use_tf32": "0"}}
"""What a provider needs to compute in full fp32: TensorFloat-32 keeps 10 bits of the mantissa."""

_FATAL_ONLY = 4
"""Log level: errors come as exceptions; a second copy on stderr helps nobody."""

_NUMBERED = "coinfer-node-"
_NUMBER = re.compile(rf"{_NUMBERED}(\d+)")


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
        bases = [p.removesuffix(_SUFFIX) for p in ort.get_available_providers()]
        found = [_device(base) for base in bases if base != _REMOTE]
        return tuple(sorted(found, key=lambda device: device.name != _CPU))

    def sharing_key(self, processor: Processor) -> Hashable:
        """One session serves all processors of equal device, threads, precision and options."""
        options = frozenset(processor.options.items())
        return (self.name, processor.device, processor.threads, processor.precision, options)

    def supported(self, model: Model, processor: Processor) -> frozenset[str] | None:
        """Read back which operators the provider takes, of the model as it is, not optimised.

        Returns:
            None if ONNX Runtime has no implementation of some operator at all: it names only the
            first one that it meets.

        Raises:
            BackendError: this onnxruntime has no such device.
        """
        what = f"model {model.name!r} on processor {processor.name!r}"
        provider = _provider_of(processor, what)
        named, nodes = _numbered(model)
        options = _session_options(dataclasses.replace(processor, threads=1))
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = ort.InferenceSession(
                bytes_or_path(named),
                options,
                [(provider, _provider_options(processor, provider, what))],
                enable_fallback=0,
            )
        except BackendError:
            raise
        except Exception:  # noqa: BLE001  # the library's exceptions have no common base below it
            return None
        return _taken(session, provider, nodes)

    def load(self, model: Model, processor: Processor) -> OnnxRuntimeSession:
        """Compile the model.

        Raises:
            BackendError: unknown device, precision that the model does not have, no thread left
                for a pool, a graph that ONNX Runtime refuses, or a provider that fell back.
        """
        what = f"model {model.name!r} on processor {processor.name!r}"
        provider = _provider_of(processor, what)
        precision = native_precision(model)
        if processor.precision not in ("fp32", precision):
            raise BackendError(
                f"{what}: onnxruntime computes in the precision of the model, which is "
                f"{precision}, not {processor.precision}; convert the model or use precision fp32"
            )
        pool = processor.threads - 1
        POOLS.reserve(pool, what=what)
        try:
            session = _create(model, processor, provider, what)
            _require_assigned(session, provider, what)
        except BaseException:
            POOLS.release(pool)
            raise
        return OnnxRuntimeSession(
            session=session,
            outputs=tuple(spec.name for spec in model.outputs),
            what=what,
            precision=precision,
            pool=pool,
        )


class OnnxRuntimeSession:
    """A compiled model; made by `OnnxRuntimeBackend.load`."""

    def __init__(
        self, *, session: Any, outputs: tuple[str, ...], what: str, precision: str, pool: int
    ) -> None:
        self._session = session
        self._outputs = outputs
        self._what = what
        self._precision = precision
        self._pool = pool

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs; the arrays belong to the caller.

        Raises:
            ExecutionError: ONNX Runtime failed, or the session is closed.
        """
        session = self._session
        if session is None:
            raise ExecutionError(f"{self._what}: the session is closed; load the model again")
        feed = inputs if type(inputs) is dict else dict(inputs)
        try:
            values = session.run(self._outputs, feed)
        except Exception as error:
            # The library's exceptions have no common base below this one.
            raise ExecutionError(f"{self._what}: {_first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def placement(self) -> Placement:
        """Read back which provider got how many operators, before fusion.

        Raises:
            BackendError: the session is closed.
        """
        if self._session is None:
            raise BackendError(f"{self._what}: the session is closed; load the model again")
        return Placement(
            operators=_assigned(self._session),
            precision=self._precision,
            threads=self._session.get_session_options().intra_op_num_threads,
        )

    def close(self) -> None:
        """Give memory and pool threads back; a run in progress ends first."""
        if self._session is not None:
            self._session = None
            POOLS.release(self._pool)


def _device(base: str) -> Device:
    kind = _KINDS.get(base, "cpu")
    name = base if kind == "cpu" else f"{base}:0"
    description = f"{base} execution provider of onnxruntime"
    return Device(name=name, kind=kind, precisions=("fp32", "int8"), description=description)


def _provider_of(processor: Processor, what: str) -> str:
    wanted = processor.device.partition(":")[0] + _SUFFIX
    installed = ort.get_available_providers()
    for provider in installed:
        if provider.lower() == wanted.lower():
            return str(provider)
    known = ", ".join(p.removesuffix(_SUFFIX) for p in installed if p != _REMOTE + _SUFFIX)
    raise BackendError(
        f"{what}: this onnxruntime has no device {processor.device!r}, only {known}; install the "
        f"onnxruntime wheel that has it in place of the present one, or use another device"
    )


def _create(model: Model, processor: Processor, provider: str, what: str) -> Any:
    options = _provider_options(processor, provider, what)
    try:
        source = bytes_or_path(model)
        # Fallback would retry on the CPU without a word in the result.
        session = ort.InferenceSession(
            source, _session_options(processor), [(provider, options)], enable_fallback=0
        )
    except Exception as error:
        # The library's exceptions have no common base below this one.
        raise BackendError(
            f"{what}: onnxruntime cannot compile it: {_first_line(error)}; check the model with "
            f"`coinfer inspect` or run it on another backend"
        ) from error
    # The wrapper keeps the serialized model for a fallback that is off: the weights a second time.
    if isinstance(source, bytes) and hasattr(session, "_model_bytes"):
        session._model_bytes = None
    return session


def _session_options(processor: Processor) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = processor.threads
    options.inter_op_num_threads = 1
    entries = {
        "session.inter_op.allow_spinning": "0",
        "session.intra_op.allow_spinning": "1" if processor.threads > 1 else "0",
        "session.force_spinning_stop": "1",
        "session.record_ep_graph_assignment_info": "1",
    }
    entries |= {key: value for key, value in processor.options.items() if "." in key}
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def _provider_options(processor: Processor, provider: str, what: str) -> dict[str, str]:
    given = {key: value for key, value in processor.options.items() if "." not in key}
    base = provider.removesuffix(_SUFFIX)
    if base == _CPU:
        if given:
            # The CPU provider ignores every option without a word.
            raise BackendError(
                f"{what}: the CPU provider has no option {sorted(given)[0]!r}; options of the "
                f"session have a dot, such as session.set_denormal_as_zero"
            )
        return {}
    number = processor.device.partition(":")[2]
    defaults = dict(_FP32_OPTIONS.get(base, {})) | ({"device_id": number} if number else {})
    return defaults | given


def _numbered(model: Model) -> tuple[Model, dict[str, bool]]:
    """Clone a model with its nodes named by number; tell which of them have branches.

    Nodes are listed by the first value that each makes.
    """
    from coinfer.graph.operators import nodes_by_key

    graph = model.graph.clone()
    nodes: dict[str, bool] = {}
    for key, node in nodes_by_key(graph).items():
        node.name = f"{_NUMBERED}{len(nodes)}"
        kinds = (attribute.type.name for attribute in node.attributes.values())
        nodes[key] = any(kind in ("GRAPH", "GRAPHS") for kind in kinds)
    return dataclasses.replace(model, graph=graph, source=None), nodes


def _taken(session: Any, provider: str, nodes: Mapping[str, bool]) -> frozenset[str]:
    """Which nodes the provider took, by the first value that each makes.

    Nodes inside of branches, and those that a node was expanded to, have no name: if another
    provider took one of these, no node that may contain it counts.
    """
    taken: set[int] = set()
    lost: set[int] = set()
    stray = False
    for subgraph in session.get_provider_graph_assignment_info():
        elsewhere = subgraph.ep_name != provider
        for node in subgraph.get_nodes():
            number = _NUMBER.fullmatch(node.name)
            if number is None:
                stray = stray or elsewhere
            else:
                (lost if elsewhere else taken).add(int(number[1]))
    return frozenset(
        key
        for at, (key, has_branches) in enumerate(nodes.items())
        if at not in lost and (not stray or (at in taken and not has_branches))
    )


def _assigned(session: Any) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(counts)


def _require_assigned(session: Any, provider: str, what: str) -> None:
    counts = _assigned(session)
    # No operator at all is a model that was folded to constants: nothing fell back.
    if counts and provider not in counts:
        where = ", ".join(f"{count} on {name}" for name, count in counts.items())
        raise BackendError(
            f"{what}: {provider} took none of its operators ({where}); check the provider's "
            f"driver and libraries, or place the model on the CPU"
        )


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
