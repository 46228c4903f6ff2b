"""Identity of a machine: what all measurements on it depend on beside its processors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coinfer.backends.base import Backend
from coinfer.backends.registry import find_backends
from coinfer.hardware.environment import cpu_name
from coinfer.machine.processor import Processor

__all__ = ["identity_of"]


def identity_of(processors: Iterable[Processor], backends: Mapping[str, Backend]) -> dict[str, str]:
    """Return what measurements on these processors depend on: the hardware and the libraries."""
    versions: dict[str, str] = {}
    for backend in find_backends(processors, backends).values():
        versions |= backend.versions()
    return {"processor": cpu_name(), **dict(sorted(versions.items()))}
