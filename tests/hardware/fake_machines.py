"""Fakes of machines as folders of small files, as Linux would show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hardware.fake_root import v2, write

_CPU = "sys/devices/system/cpu"


def desktop(root: Path) -> Path:
    """16 cores with SMT: two caches of 8 cores; threads n and n + 16 share core n."""
    _cores(root, [(n, n + 16) for n in range(16)], caches=[range(8), range(8, 16)], smt=16)
    return _nodes(root, [range(32)])


def laptop(root: Path) -> Path:
    """6 performance cores with SMT (threads 0-11), 8 efficiency cores (12-19), one cache."""
    pairs = [(2 * n, 2 * n + 1) for n in range(6)]
    _cores(root, [*pairs, *((n,) for n in range(12, 20))], caches=[range(20)])
    write(root, {"sys/devices/cpu_core/cpus": "0-11", "sys/devices/cpu_atom/cpus": "12-19"})
    return _nodes(root, [range(20)])


def server(root: Path) -> Path:
    """64 cores without SMT in two sockets; even numbers are on the first, as some systems count."""
    halves = [range(0, 64, 2), range(1, 64, 2)]
    _cores(root, [(n,) for n in range(64)], caches=halves)
    return _nodes(root, halves)


def container(root: Path) -> Path:
    """A container on 8 cores with 3.5 processors of quota."""
    _cores(root, [(n,) for n in range(8)], caches=[range(8)])
    return v2(_nodes(root, [range(8)]), {"cpu.max": "350000 100000"})


def phone(root: Path) -> Path:
    """An Arm chip that tells its three kinds of cores by their capacities."""
    _cores(root, [(n,) for n in range(8)], caches=[range(8)])
    sizes = [300] * 4 + [780, 800, 790] + [1024]
    return write(root, {f"{_CPU}/cpu{n}/cpu_capacity": str(size) for n, size in enumerate(sizes)})


def _cores(
    root: Path, cores: Sequence[Sequence[int]], *, caches: Sequence[Sequence[int]], smt: int = 0
) -> None:
    threads = [thread for core in cores for thread in core]
    files = {f"{_CPU}/online": _listed(sorted(threads))}
    for core in cores:
        for thread in core:
            folder = f"{_CPU}/cpu{thread}"
            shared = next(c for c in caches if core[0] in c)
            everyone = sorted([*shared, *(n + smt for n in shared)] if smt else shared)
            files |= {
                f"{folder}/topology/thread_siblings_list": _listed(core),
                f"{folder}/cache/index0/level": "1",
                f"{folder}/cache/index0/type": "Data",
                f"{folder}/cache/index0/shared_cpu_list": _listed(core),
                f"{folder}/cache/index3/level": "3",
                f"{folder}/cache/index3/type": "Unified",
                f"{folder}/cache/index3/shared_cpu_list": _listed(everyone),
            }
    write(root, files)


def _nodes(root: Path, nodes: Iterable[Iterable[int]]) -> Path:
    folder = "sys/devices/system/node"
    return write(
        root, {f"{folder}/node{at}/cpulist": _listed(list(node)) for at, node in enumerate(nodes)}
    )


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
