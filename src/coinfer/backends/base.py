"""The seam between coinfer and the libraries that run networks: load a model, run it, say where.

Nothing here imports an inference library; each implementation is a file or folder beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = [
    "Backend",
    "Device",
    "DeviceUse",
    "Placement",
    "Session",
    "Tensor",
    "Tensors",
    "caller_cores",
    "channel_block",
    "computes",
    "device_bytes",
    "device_use",
    "files_of",
    "note_of",
    "reading_once",
    "reload_s",
    "weights_key",
]

Tensor = npt.NDArray[Any]
"""One array, C-contiguous where a backend returns it."""

Tensors = Mapping[str, np.ndarray[Any, Any]]
"""Arrays by input or output name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as a backend reports it.

    Attributes:
        name: What `Processor.device` must say to use it, e.g. `CPU` or `CUDA:0`.
        kind: `cpu`, `gpu` or `npu`.
        precisions: What it computes in, from the backend's own report, e.g. `("fp32", "bf16")`.
        description: A name that a person recognises.
    """

    name: str
    kind: str
    precisions: tuple[str, ...]
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """What is taken of the memory of a device, as its library says it now.

    Attributes:
        held_bytes: By what this process has loaded.
        kept_bytes: For this process, with what it keeps free to use it again.
        free_bytes: By nobody.
        total_bytes: What the device has.
    """

    held_bytes: int
    kept_bytes: int
    free_bytes: int
    total_bytes: int

    @property
    def usable_bytes(self) -> int:
        """What this process has or could get."""
        return self.kept_bytes + self.free_bytes

    def with_more(self, size: int) -> DeviceUse:
        """Return it with what this process holds by another library.

        >>> use = DeviceUse(held_bytes=20, kept_bytes=30, free_bytes=10, total_bytes=100)
        >>> use.with_more(5).usable_bytes
        45
        """
        held, kept = self.held_bytes + size, self.kept_bytes + size
        return replace(self, held_bytes=held, kept_bytes=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a loaded model really runs, read back from the backend and not assumed.

    Attributes:
        operators: Number of executed operators per device or execution provider.
        precision: Precision that the backend reports it computes in.
        threads: Threads that the backend reports one execution uses.
        multiprocessors: Those of a GPU that it may use, if it has a share of them; 0: all.
    """

    operators: Mapping[str, int]
    precision: str
    threads: int
    multiprocessors: int = 0


class Session(Protocol):
    """A model compiled for a processor. `run` may be called from several threads at once."""

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs. The inputs were checked against the model's specs before."""
        ...

    def placement(self) -> Placement:
        """Tell where the operators really run."""
        ...

    def close(self) -> None:
        """Give the memory back. Calling it twice is fine; `run` afterwards is not."""
        ...


def note_of(session: Session) -> str:
    """Return what a session does without, and why, in half a sentence; empty if nothing.

    A session that may not be compiled as well as it could be says it in an attribute `note`.
    """
    note: str = getattr(session, "note", "")
    return note


def device_bytes(session: Session) -> int:
    """Return what a session holds of the memory of a device; 0 if all it holds is the host's.

    A session of a device with memory of its own says it in an attribute `device_bytes`.
    """
    taken: int = getattr(session, "device_bytes", 0)
    return taken


def files_of(session: Session) -> Sequence[Path]:
    """Return the files that a session maps while it is open; none: it holds all that it needs.

    A session that maps some says it in an attribute `files`.
    """
    found: Sequence[Path] = getattr(session, "files", ())
    return found


def reload_s(session: Session) -> float:
    """Return the seconds that it takes to load it once more; 0: as long as the first time.

    A session of which weights wait where they are got fast says it in an attribute `reload_s`.
    """
    seconds: float = getattr(session, "reload_s", 0.0)
    return seconds


class Backend(Protocol):
    """A library that runs models. One instance serves the whole process."""

    @property
    def name(self) -> str:
        """Name used in `Processor.backend`."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that decide speed and numerics; part of the profile's key."""
        ...

    def devices(self) -> tuple[Device, ...]:
        """Find the devices that this backend can use on this machine now."""
        ...

    def sharing_key(self, processor: Processor) -> Hashable:
        """Processors with equal keys use the same session (same threads, device, precision).

        Two 1-thread processors on two cores share one session: half the memory, half the loading.
        """
        ...

    def supported(self, model: Model, processor: Processor) -> frozenset[str] | None:
        """Tell which operators of a model it can run there, without running anything.

        Callers serialise calls, as for `load`. What the processor declares is not looked at.

        Returns:
            Names of values: for each node of the main graph that can run, the first one that it
            makes. None if the backend cannot tell; then loading is tried instead.

        Raises:
            BackendError: the backend has no such device.
        """
        ...

    def load(self, model: Model, processor: Processor) -> Session:
        """Compile the model for the processor.

        For a part of a model (`Model.borders`) it may return a `values.PartSession`, which hands
        values on to others of its kind as the library keeps them. What it falls back on where it
        cannot do its best is in a `note` of the session: see `note_of`.

        Callers serialise calls: session creation is not safe to run concurrently.

        Raises:
            BackendError: the backend cannot compile this model on this processor.
        """
        ...


def computes(backend: Backend) -> bool:
    """Tell whether a backend computes what models say; `NullBackend` gives zeros and says so."""
    answer: bool = getattr(backend, "computes", True)
    return answer


def reading_once(backends: Iterable[Backend]) -> AbstractContextManager[object]:
    """Let each backend that can read a model once for all processors that it is loaded for.

    One that can has a method `reading_once`: inside of what that returns it keeps what it read.
    """
    stack = ExitStack()
    for backend in backends:
        enter: Callable[[], AbstractContextManager[None]] | None
        enter = getattr(backend, "reading_once", None)
        if enter is not None:
            stack.enter_context(enter())
    return stack


def caller_cores(backend: Backend, processor: Processor) -> tuple[int, ...]:
    """Return those of a processor's cores that are for the thread that calls `run`.

    A backend that keeps the threads of a session's pool on cores of their own says it in a method
    `caller_cores(processor)`; with any other they are all.
    """
    ask: Callable[[Processor], tuple[int, ...]] | None = getattr(backend, "caller_cores", None)
    return processor.cores if ask is None else ask(processor)


def channel_block(backend: Backend) -> int:
    """Return how many channels a backend computes together: multiples of them cost no more.

    One that knows says it in a method `channel_block()`; with any other it is 8, the floats of an
    AVX2 register.
    """
    ask: Callable[[], int] | None = getattr(backend, "channel_block", None)
    return (0 if ask is None else ask()) or 8


def device_use(backend: Backend, device: str) -> DeviceUse | None:
    """Return what is taken of a device's memory; None if it has none of its own, or nobody knows.

    A backend that knows says it in a method `device_use(device)`.
    """
    ask: Callable[[str], DeviceUse | None] | None = getattr(backend, "device_use", None)
    return None if ask is None else ask(device)


def weights_key(backend: Backend, processor: Processor) -> Hashable:
    """Return what processors have in common that hold the weights of a model once between them.

    Those that use the same session do. A backend whose sessions share weights as well says it in a
    method `weights_key(processor)`.
    """
    ask: Callable[[Processor], Hashable] | None = getattr(backend, "weights_key", None)
    return backend.sharing_key(processor) if ask is None else ask(processor)
