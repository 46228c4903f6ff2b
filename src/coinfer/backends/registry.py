"""Find a backend by name and make its one instance. Knows no inference library itself.

Third parties add a backend with an entry point of the group `coinfer.backends` whose value is a
class that takes no arguments: `mylib = "mylib.coinfer:MyBackend"`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from coinfer.backends.base import Backend
from coinfer.backends.patience import HangError, patiently
from coinfer.errors import BackendError, UnknownNameError
from coinfer.fork_locks import free_after_fork
from coinfer.machine.processor import Processor

__all__ = [
    "ENTRY_POINT_GROUP",
    "Availability",
    "available",
    "backend_names",
    "check_devices",
    "find_backends",
    "get_backend",
]

ENTRY_POINT_GROUP = "coinfer.backends"

_BUILT_IN: Mapping[str, str] = {
    "onnxruntime": "coinfer.backends.onnxruntime:OnnxRuntimeBackend",
    "openvino": "coinfer.backends.openvino:OpenVinoBackend",
    "null": "coinfer.backends.null:NullBackend",
}
_INSTALL: Mapping[str, str] = {
    "onnxruntime": "pip install onnxruntime",
    "openvino": "pip install 'coinfer[openvino]'",
}
_instances: dict[str, Backend] = {}
_hanging: dict[str, HangError] = {}
_found_devices: list[Backend] = []
_lock = free_after_fork(threading.Lock())


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether a known backend can be used here.

    Attributes:
        name: Name of the backend.
        backend: The instance, or None if it cannot be used.
        problem: Why it cannot be used and the remedy; empty if it can.
    """

    name: str
    backend: Backend | None
    problem: str = ""


def backend_names() -> tuple[str, ...]:
    """Return every known name, built in first, whether or not its library is installed.

    >>> backend_names()[:3]
    ('onnxruntime', 'openvino', 'null')
    """
    return tuple(_known())


def get_backend(name: str) -> Backend:
    """Return the process's one instance of a backend, importing its library on first use.

    Raises:
        UnknownNameError: no backend of that name.
        BackendError: its library is missing or broken; the message says what to install.
        HangError: its library hangs.

    >>> get_backend("null") is get_backend("null")
    True
    """
    with _lock:
        if name in _hanging:
            raise _hanging[name]
        if name not in _instances:
            try:
                _instances[name] = patiently(lambda: _create(name), f"starting backend {name!r}")
            except HangError as error:
                _hanging[name] = error  # the next one would wait for the same import
                raise
        return _instances[name]


def check_devices(backend: Backend) -> None:
    """See that a backend finds its devices; once, for it is asked again and again.

    Raises:
        HangError: its library hangs.
    """
    with _lock:
        if backend.name in _hanging:
            raise _hanging[backend.name]
        if backend not in _found_devices:
            try:
                patiently(backend.devices, f"looking for devices of backend {backend.name!r}")
            except HangError as error:
                _hanging[backend.name] = error
                raise
            _found_devices.append(backend)


def find_backends(
    processors: Iterable[Processor], given: Mapping[str, Backend]
) -> dict[str, Backend]:
    """Return the backends of processors by name, those that are not given from `get_backend`."""
    names = {processor.backend for processor in processors}
    return {name: given[name] if name in given else get_backend(name) for name in names}


def available() -> tuple[Availability, ...]:
    """Try every known backend and say which can be used, and why the others cannot."""
    return tuple(_availability(name) for name in backend_names())


def _availability(name: str) -> Availability:
    try:
        backend = get_backend(name)
        check_devices(backend)
        return Availability(name=name, backend=backend)
    except BackendError as error:
        return Availability(name=name, backend=None, problem=str(error))


def _known() -> dict[str, EntryPoint]:
    """Every backend by name, built in first; nobody else's takes the place of one of these."""
    built_in = {n: EntryPoint(n, value, ENTRY_POINT_GROUP) for n, value in _BUILT_IN.items()}
    others = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name)
    return built_in | {entry.name: entry for entry in others} | built_in


def _create(name: str) -> Backend:
    known = _known()
    if name not in known:
        raise UnknownNameError.of("backend", name, known)
    try:
        backend: Backend = known[name].load()()
    except ImportError as error:
        raise BackendError(_import_problem(name, error)) from error
    except Exception as error:
        # The library is third-party code: what its first use raises cannot be listed.
        raise BackendError(
            f"backend {name!r} cannot start: {error}; reinstall it{_with(name)}"
        ) from error
    return backend


def _import_problem(name: str, error: ImportError) -> str:
    # A missing top-level module means "not installed"; anything else is a broken installation.
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return f"backend {name!r} is not installed; install it{_with(name)}"
    return f"backend {name!r} cannot be imported: {error}; reinstall it{_with(name)}"


def _with(name: str) -> str:
    return f": {_INSTALL[name]}" if name in _INSTALL else ""
