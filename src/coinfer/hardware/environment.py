"""What a result was measured on: machine and versions, as values that `json.dumps` writes."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from coinfer.hardware import cgroup
from coinfer.hardware.cores import Cores, find_cores
from coinfer.hardware.installed import installed

__all__ = [
    "THREAD_VARIABLES",
    "cpu_name",
    "describe",
    "memory_bytes",
    "onnxruntime_wheels",
    "thread_variables",
]

THREAD_VARIABLES = (
    "GOTO_NUM_THREADS",
    "KMP_AFFINITY",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "OPENBLAS_NUM_THREADS",
)
"""Environment variables that size or pin the pools of numerical libraries behind our back."""


def describe(*, cores: Cores | None = None) -> dict[str, Any]:
    """Describe machine, limits and versions.

    Importing the backends' libraries is part of it, because only they know their versions.

    >>> sorted(describe())
    ['backends', 'coinfer', 'compiled', 'cores', 'cpu', 'memory_bytes', 'os', 'python', 'variables']
    """
    cores = find_cores() if cores is None else cores
    return {
        "coinfer": _version("coinfer"),
        "compiled": _is_compiled(),
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": cpu_name(),
        "cores": {
            "used": list(cores.numbers),
            "host": cores.host,
            "allowed": cores.allowed,
            "physical": cores.physical,
            "quota": cores.quota,
            "pinned": cores.pinnable,
        },
        "memory_bytes": memory_bytes(),
        "backends": {each.name: dict(each.versions()) for each in installed()},
        "variables": thread_variables(os.environ),
    }


def cpu_name(*, root: Path = Path("/")) -> str:
    """Return the name of the processor model, as good as the system tells it."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def memory_bytes(*, root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process can use: the machine's or the group's.

    None if the system does not say.
    """
    limit = cgroup.memory_limit_bytes(root)
    total: int | None
    try:
        total = int(psutil.virtual_memory().total)
    except Exception:  # noqa: BLE001 - without /proc/meminfo it raises one error or another
        total = None
    return min((n for n in (total, limit) if n is not None), default=None)


def thread_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return those of `THREAD_VARIABLES` that are set."""
    return {name: environment[name] for name in THREAD_VARIABLES if name in environment}


def onnxruntime_wheels() -> tuple[str, ...]:
    """Return the names of all installed wheels that contain the package `onnxruntime`.

    More than one overwrite each other's files, and which wins is chance.
    """
    return tuple(sorted(set(metadata.packages_distributions().get("onnxruntime", ()))))


def _is_compiled() -> bool:
    """Tell whether the path of every request is compiled, and not plain Python."""
    core = find_spec("coinfer.core.dispatcher")
    return core is not None and str(core.origin).endswith(tuple(EXTENSION_SUFFIXES))


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
