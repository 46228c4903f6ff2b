"""OpenVinoBackend: loads models with OpenVINO.

On the CPU, a compiled model with more than one thread has one stream of that many. Of one thread
every core has its own, without a stream (`NUM_STREAMS=0`): it runs in the calling thread, at its
priority, and creates no thread, but serves one run at a time. Streams would share weights between
cores, but their own threads run what is asked, at a priority that nobody can choose. One `Core`
serves the process.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coinfer.artefacts import Lease, Made, default_store
from coinfer.backends.artefact_check import differs
from coinfer.backends.artefact_parts import common_parts, lease_of
from coinfer.backends.base import Device
from coinfer.backends.mapped_file import MappedFile
from coinfer.backends.openvino.binding import unbound
from coinfer.backends.openvino.library import ov
from coinfer.backends.openvino.messages import reason_of
from coinfer.backends.openvino.properties import CAPABILITIES, properties_of, require_hint
from coinfer.backends.openvino.session import OpenVinoSession
from coinfer.backends.pools import reserved
from coinfer.backends.precision import require_quantised_for_int8, require_reported
from coinfer.backends.source import source_of
from coinfer.documents.writing import replacing
from coinfer.errors import BackendError
from coinfer.fork_locks import free_after_fork
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["OpenVinoBackend"]

_BLOB = "model.blob"
_CPU = "CPU"


class OpenVinoBackend:
    """OpenVINO on the devices that its plugins find.

    Options of a processor are properties of the compiled model, e.g.
    `{"CPU_DENORMALS_OPTIMIZATION": "YES"}`. The CPU plugin computes 64-bit integers in 32 bits.
    """

    name = "openvino"

    def __init__(self) -> None:
        self._core = ov.Core()
        with unbound(), suppress(Exception):  # of any kind: there may be no such device
            self._core.get_property(_CPU, "FULL_DEVICE_NAME")  # loads the plugin
        self._lock = free_after_fork(threading.Lock())
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
        properties = properties_of(processor, device, what)
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
            raise BackendError(f"{what}: openvino cannot tell: {reason_of(error)}") from error
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
            properties = properties_of(processor, device, what)
            lease = lease_of(self.artefact_parts(model, processor))
            found = None if lease is None else self._opened(lease, model, properties, what, pool)
            if found is not None:
                return found
            try:
                graph, check = self._read(model)
                compiled = self._core.compile_model(graph, device.name, properties)
                check()  # weights in files are read now
                require_hint(compiled, properties["INFERENCE_PRECISION_HINT"], what)
                is_cpu = device.kind == "cpu"
                return OpenVinoSession(compiled, model, what=what, pool=pool, is_cpu=is_cpu)
            except BackendError:
                raise
            except Exception as error:
                # The library raises RuntimeError, ValueError, TypeError and its own kinds.
                raise BackendError(
                    f"{what}: openvino cannot compile it: {reason_of(error)}; check the model with "
                    f"`coinfer inspect` or run it on another backend"
                ) from error

    def artefact_parts(self, model: Model, processor: Processor) -> Mapping[str, object] | None:
        """Return all that an artefact of a model depends on; None if none is worth it.

        Threads and cores are no part of it: it is the graph before it is distributed to these.
        """
        if processor.device != _CPU:
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
        properties = properties_of(alone, self._find(alone, what), what)
        try:
            written = self._imported(blob, model, properties, what=what)
        except Exception as error:  # noqa: BLE001  # RuntimeError and the library's own kinds
            return Made(refused=f"openvino cannot read what it wrote: {reason_of(error)}")
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
            default_store().discard(lease, reason_of(error))
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
        compiled = self._core.import_model(tensor, _CPU, dict(properties))
        require_hint(compiled, properties["INFERENCE_PRECISION_HINT"], what)
        return OpenVinoSession(compiled, model, what=what, pool=pool, mapped=mapped, lease=lease)

    def _device(self, name: str) -> Device:
        reported = self._core.get_property(name, "OPTIMIZATION_CAPABILITIES")
        return Device(
            name=name,
            kind=name.partition(".")[0].lower(),
            precisions=tuple(ours for theirs, ours in CAPABILITIES.items() if theirs in reported),
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
