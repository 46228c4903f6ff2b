"""The backend that runs models with OpenVINO. The only file that imports openvino.

On the CPU, a compiled model with more than one thread has one stream of that many. Of one thread
every core has its own, without a stream (`NUM_STREAMS=0`): it runs in the calling thread, at its
priority, and creates no thread, but serves one run at a time. Streams would share weights between
cores, but their own threads run what is asked, at a priority that nobody can choose. One `Core`
serves the process.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coinfer.artefacts import Lease, Made, default_store
from coinfer.backends.artefact_check import differs
from coinfer.backends.artefact_parts import common_parts
from coinfer.backends.base import Device, Placement, Tensor, Tensors
from coinfer.backends.mapped_file import MappedFile
from coinfer.backends.pools import POOLS, reserved
from coinfer.backends.precision import require_quantised_for_int8, require_reported
from coinfer.backends.source import source_of
from coinfer.documents.writing import replacing
from coinfer.errors import BackendError, ExecutionError
from coinfer.machine.processor import Processor
from coinfer.model import Model, TensorSpec

# Importing openvino sends an event over the network, from a thread pool that stays. A library must
# not start that for its user; without this optional module openvino does not. A program that has
# imported openvino before has decided itself.
if "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino as ov
    finally:
        del sys.modules["openvino_telemetry"]
else:
    import openvino as ov

# Its table of types is made at the first use. Two threads that use it first at the same moment wait
# for each other for ever: one has the interpreter's lock and waits for the table, the other makes
# the table and waits for the lock. So it is made here.
ov.Type.f32.to_dtype()

__all__ = ["OpenVinoBackend", "OpenVinoSession"]

_CAPABILITIES = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16", "INT8": "int8"}
_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}
"""Precision of the operators that are not quantised, by the processor's precision."""

_RUNTIME = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}
_ARITHMETIC = frozenset(
    {
        "Convolution",
        "Deconvolution",
        "FullyConnected",
        "MatMul",
        "RNNCell",
        "RNNSeq",
        "ScaledDotProductAttention",
    }
)
"""Layer types of the executable graph whose precision decides speed and error."""

_NOT_OPERATORS = frozenset({"Input", "Const", "Output"})
_GOVERNED = frozenset(
    {"ENABLE_CPU_PINNING", "INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT", "NUM_STREAMS"}
)
"""Properties that follow from the processor's fields and must not contradict them."""

_PLACE = re.compile(r"^(Exception from |Check '.*' failed at )\S*:\d+:?\s*")
"""How lines of OpenVINO's messages begin that name a place in its source; more may follow it."""

_NODE = re.compile(r"^While validating ONNX node '<Node\((?P<type>\w+)\): (?P<name>.*?)>'")
"""The line that names the operator of the model that is wrong."""

_NOT_TELLING = (
    "-- Conversion is failed for: ",
    "FrontEnd API failed",
    "Model wasn't fully converted",
    "Shape inference input shapes",
    "Summary:",
    "While validating ",
)
"""How lines of OpenVINO's messages begin that tell a user nothing."""

_HEADING = " with a message:"

_BLOB = "model.blob"
_LEAST_WEIGHT_BYTES = 2**22
"""Smaller models are not kept as artefacts: that would cost more than it brings."""

_FIRST_RUNS = 4
"""Runs during which weights are packed, in whichever thread they are."""


class OpenVinoBackend:
    """OpenVINO on the devices that its plugins find.

    Options of a processor are properties of the compiled model, e.g.
    `{"CPU_DENORMALS_OPTIMIZATION": "YES"}`. The CPU plugin computes 64-bit integers in 32 bits.
    """

    name = "openvino"

    def __init__(self) -> None:
        self._core = ov.Core()
        self._lock = threading.Lock()
        self._readers = 0
        self._read_graphs: dict[int, tuple[Model, Any, Callable[[], None]]] = {}

    def versions(self) -> Mapping[str, str]:
        """Return the version of openvino."""
        return {"openvino": str(ov.__version__)}

    def devices(self) -> tuple[Device, ...]:
        """Return what the plugins find, with the precisions that they report, the CPU first."""
        found = [self._device(name) for name in self._core.available_devices]
        return tuple(sorted(found, key=lambda device: device.kind != "cpu"))

    def sharing_key(self, processor: Processor) -> Hashable:
        """Processors that exclude each other share: a compiled model serves one run at a time."""
        return (
            self.name,
            processor.device,
            processor.overlays or processor.units,
            processor.threads,
            processor.precision,
            frozenset(processor.options.items()),
        )

    def supported(self, model: Model, processor: Processor) -> frozenset[str]:
        """Ask the plugin by `query_model`, of what OpenVINO can convert from ONNX.

        An operator counts only if everything that it was converted to is supported. None does
        in a model with one that cannot be converted: ask for the others apart from it.

        Raises:
            BackendError: unknown device, or options that the device does not have.
        """
        from coinfer.graph.operators import nodes_by_key

        what = f"model {model.name!r} on processor {processor.name!r}"
        device = self._find(processor, what)
        properties = _properties(processor, device, what)
        try:
            source, check = source_of(model)
            graph = self._core.read_model(source)
            check()
        except Exception:  # noqa: BLE001  # RuntimeError and the library's own kinds
            return frozenset()
        operations = graph.get_ordered_ops()
        for index, operation in enumerate(operations):
            # Names of ONNX nodes need not be unique, and the answer goes by name.
            operation.set_friendly_name(str(index))
        try:
            answer = self._core.query_model(graph, device.name, properties)
        except Exception as error:
            # The library raises RuntimeError, ValueError, TypeError and its own kinds.
            raise BackendError(f"{what}: openvino cannot tell: {_reason(error)}") from error
        runs = _values_that_run(operations, {int(index) for index in answer})
        return frozenset(
            key
            for key, node in nodes_by_key(model.graph).items()
            if (known := {value.name for value in node.outputs if value.name} & runs.keys())
            and all(runs[name] for name in known)
        )

    def load(self, model: Model, processor: Processor) -> OpenVinoSession:
        """Compile the model.

        Raises:
            BackendError: unknown device, a precision that the device does not report, int8 for a
                model that is not quantised, no thread left for a pool, or a graph that OpenVINO
                refuses.
        """
        what = f"model {model.name!r} on processor {processor.name!r}"
        device = self._find(processor, what)
        require_reported(device, model, processor)
        require_quantised_for_int8(model, processor)
        # A stream of n threads creates n threads beside the caller's (measured).
        pool = processor.threads if device.kind == "cpu" and processor.threads > 1 else 0
        with reserved(pool, what):
            properties = _properties(processor, device, what)
            parts = self.artefact_parts(model, processor)
            lease = None if parts is None else default_store().open(parts)
            found = None if lease is None else self._opened(lease, model, properties, what, pool)
            if found is not None:
                return found
            try:
                graph, check = self._read(model)
                compiled = self._core.compile_model(graph, device.name, properties)
                check()  # weights in files are read now
                _require_hint(compiled, properties["INFERENCE_PRECISION_HINT"], what)
                return OpenVinoSession(compiled, model, what=what, pool=pool)
            except BackendError:
                raise
            except Exception as error:
                # The library raises RuntimeError, ValueError, TypeError and its own kinds.
                raise BackendError(
                    f"{what}: openvino cannot compile it: {_reason(error)}; check the model with "
                    f"`coinfer inspect` or run it on another backend"
                ) from error

    def artefact_parts(self, model: Model, processor: Processor) -> Mapping[str, object] | None:
        """Return all that an artefact of a model depends on; None if none is worth it.

        Threads and cores are no part of it: it is the graph before it is distributed to these.
        """
        if processor.device != "CPU" or model.weight_bytes < _LEAST_WEIGHT_BYTES:
            return None
        parts = common_parts(self, model, processor)
        return None if parts is None else {**parts, "options": dict(processor.options)}

    def make_artefact(self, model: Model, processor: Processor, folder: Path) -> Made:
        """Let OpenVINO export what it compiled, and see that it computes the same once imported.

        Raises:
            BackendError: as `load`.
        """
        what = f"model {model.name!r}"
        alone = dataclasses.replace(processor, threads=1, cores=(), units=frozenset({"any core"}))
        direct = self.load(model, alone)
        blob = folder / _BLOB
        with replacing(blob) as file:
            file.write(direct.exported().getbuffer())
        properties = _properties(alone, self._find(alone, what), what)
        try:
            written = self._imported(blob, model, properties, what=what)
        except Exception as error:  # noqa: BLE001  # RuntimeError and the library's own kinds
            return Made(refused=f"openvino cannot read what it wrote: {_reason(error)}")
        return Made(refused=differs(model, direct, written))

    @contextmanager
    def reading_once(self) -> Iterator[None]:
        """Read each model once while it is loaded for several processors inside of this.

        Compiling leaves what was read as it is. It is kept until the end only: it holds weights.
        """
        with self._lock:
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if not self._readers:
                    self._read_graphs.clear()

    def _read(self, model: Model) -> tuple[Any, Callable[[], None]]:
        # With the model, because the number of one that is gone may be given to another.
        found = self._read_graphs.get(id(model))
        if found is None:
            source, check = source_of(model)
            found = (model, self._core.read_model(source), check)
            if self._readers:
                self._read_graphs[id(model)] = found
        return found[1:]

    def _opened(
        self, lease: Lease, model: Model, properties: Mapping[str, Any], what: str, pool: int
    ) -> OpenVinoSession | None:
        """Import an artefact; None, and it is removed, if that cannot be done."""
        try:
            return self._imported(
                lease.path(_BLOB), model, properties, what=what, pool=pool, lease=lease
            )
        except Exception as error:  # noqa: BLE001  # RuntimeError and the library's own kinds
            default_store().discard(lease, _reason(error))
            return None

    def _imported(
        self,
        blob: Path,
        model: Model,
        properties: Mapping[str, Any],
        *,
        what: str,
        pool: int = 0,
        lease: Lease | None = None,
    ) -> OpenVinoSession:
        mapped = MappedFile(blob)
        tensor = ov.Tensor(mapped.array, shared_memory=True)
        compiled = self._core.import_model(tensor, "CPU", dict(properties))
        _require_hint(compiled, properties["INFERENCE_PRECISION_HINT"], what)
        return OpenVinoSession(compiled, model, what=what, pool=pool, mapped=mapped, lease=lease)

    def _device(self, name: str) -> Device:
        reported = self._core.get_property(name, "OPTIMIZATION_CAPABILITIES")
        return Device(
            name=name,
            kind=name.partition(".")[0].lower(),
            precisions=tuple(ours for theirs, ours in _CAPABILITIES.items() if theirs in reported),
            description=str(self._core.get_property(name, "FULL_DEVICE_NAME")),
        )

    def _find(self, processor: Processor, what: str) -> Device:
        names = self._core.available_devices
        if processor.device not in names:
            raise BackendError(
                f"{what}: openvino finds no device {processor.device!r}, only "
                f"{', '.join(names)}; install its driver or use another device"
            )
        return self._device(processor.device)


class OpenVinoSession:
    """A compiled model; made by `OpenVinoBackend.load`."""

    def __init__(
        self,
        compiled: Any,
        model: Model,
        *,
        what: str,
        pool: int,
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
            raise ExecutionError.of(self._what, _reason(error)) from error
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
        layers = [_layer(node) for node in compiled.get_runtime_model().get_ordered_ops()]
        devices = ",".join(compiled.get_property("EXECUTION_DEVICES"))
        return Placement(
            operators={devices: sum(kind not in _NOT_OPERATORS for kind, _ in layers)},
            precision=_precision(layers, _hint(compiled)),
            threads=_threads(compiled),
        )

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


def _values_that_run(operations: Sequence[Any], supported: set[int]) -> dict[str, bool]:
    """Whether each value of the ONNX graph can be computed from those before it.

    One ONNX operator becomes several operations, of which only the last has values with names.
    """
    runs: dict[str, bool] = {}
    anonymous: dict[str, bool] = {}
    for index, operation in enumerate(operations):
        before = (port.get_source_output().get_node() for port in operation.inputs())
        runs_here = index in supported and all(
            anonymous.get(node.get_friendly_name(), True) for node in before
        )
        names = {name for port in operation.outputs() for name in port.get_names()}
        runs.update(dict.fromkeys(names, runs_here))
        if not names:
            anonymous[operation.get_friendly_name()] = runs_here
    return runs


def _properties(processor: Processor, device: Device, what: str) -> dict[str, Any]:
    if contradicting := sorted(_GOVERNED & processor.options.keys()):
        raise BackendError(
            f"{what}: option {contradicting[0]} follows from the processor; set its threads, "
            f"cores or precision instead"
        )
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[processor.precision]}
    if device.kind == "cpu":
        properties |= {
            "NUM_STREAMS": 1 if processor.threads > 1 else 0,
            "INFERENCE_NUM_THREADS": processor.threads,
            "ENABLE_CPU_PINNING": False,
        }
    return properties | dict(processor.options)


def _require_hint(compiled: Any, wanted: str, what: str) -> None:
    # The CPU plugin accepts f16 and computes in f32: only reading it back tells.
    if (got := _hint(compiled)) != wanted:
        raise BackendError(
            f"{what}: openvino was asked for {wanted} and computes in {got}; use precision "
            f"{_RUNTIME.get(got, got)}"
        )


def _hint(compiled: Any) -> str:
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())


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


def _layer(node: Any) -> tuple[str, str]:
    info = node.get_rt_info()
    return str(info["layerType"].value), str(info["runtimePrecision"].value)


def _precision(layers: list[tuple[str, str]], hint: str) -> str:
    counts = Counter(precision for kind, precision in layers if kind in _ARITHMETIC)
    if any(_RUNTIME.get(precision) == "int8" for precision in counts):
        return "int8"
    found = counts.most_common(1)[0][0] if counts else hint
    return _RUNTIME.get(found, found)


def _threads(compiled: Any) -> int:
    # Without a stream the run stays in the calling thread, whatever the other property says.
    on_cpu = "CPU" in compiled.get_property("EXECUTION_DEVICES")
    if not on_cpu or int(compiled.get_property("NUM_STREAMS")) == 0:
        return 1
    streams = int(compiled.get_property("NUM_STREAMS"))
    return int(compiled.get_property("INFERENCE_NUM_THREADS")) // streams


def _reason(error: Exception) -> str:
    """The first line that says what is wrong, not where in OpenVINO's source that was found."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [text for line in lines if (text := _PLACE.sub("", line))]
    telling = [
        line for line in said if not line.startswith(_NOT_TELLING) and not line.endswith(_HEADING)
    ]
    if not telling:  # the condition that did not hold says more than the place
        return (lines or [type(error).__name__])[-1]
    reason = telling[0].removeprefix("-- ").rstrip(".")
    node = next((found for line in lines if (found := _NODE.match(line))), None)
    return f"{node['type']} {node['name']!r}: {reason}" if node else reason
