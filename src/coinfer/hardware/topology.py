"""Find the topology: cores, what they share, and which of them may be used. Knows no backend.

Linux tells it below `/sys/devices/system`, macOS by `sysctl`; elsewhere nothing is known but the
number of cores. What cannot be read counts as shared by all.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from coinfer.hardware import cgroup
from coinfer.machine.topology import Core, Topology
from coinfer.machine.topology_data import parse_numbers
from coinfer.threads.affinity import allowed_threads

__all__ = ["find_topology", "mac_topology"]

T = TypeVar("T")

_ALIKE = 0.9
"""Cores whose capacity is at least this share of another's are of its kind: cores of one kind may
be binned apart."""

_CPUS = "sys/devices/system/cpu"
_NODES = "sys/devices/system/node"
_HYBRID = {"performance": "sys/devices/cpu_core/cpus", "efficiency": "sys/devices/cpu_atom/cpus"}
"""Where Linux names the two kinds of cores of Intel's hybrid processors."""


def find_topology(*, root: Path = Path("/"), affinity: Iterable[int] | None = None) -> Topology:
    """Find the cores, and use one thread of each that may be used.

    Under a quota of `n` processors the first `n` cores by locality are used, at least one.

    Args:
        root: Where `/proc` and `/sys` are; tests give another.
        affinity: Hardware threads allowed; asked from the system if None.
    """
    allowed = sorted(allowed_threads() if affinity is None else affinity)
    if sys.platform == "darwin" and root == Path("/"):
        return mac_topology(_sysctl, allowed)
    cores = _cores(root, allowed)
    used = [min(mine) for core in cores if (mine := set(core.threads) & set(allowed))]
    quota = cgroup.cpu_quota(root)
    if quota is not None:
        used = used[: max(1, int(quota))]
    return Topology(cores=cores, used=tuple(used), quota=quota)


def _cores(root: Path, allowed: list[int]) -> tuple[Core, ...]:
    """Return all cores in the order of locality."""
    online = sorted({*_numbers(root / _CPUS / "online"), *allowed})
    nodes = _owners(online, _node_lists(root))
    kinds = _kinds(root, online)
    rank = {kind: at for at, kind in enumerate(["performance", "middle", "efficiency"])}
    found = [
        Core(
            threads=threads,
            cache=_cache(root, threads[0]),
            node=nodes.get(threads[0], 0),
            kind=kinds.get(threads[0], ""),
        )
        for threads in _threads(root, online)
    ]
    found.sort(key=lambda core: (rank.get(core.kind, 0), core.node, core.cache, core.threads))
    return tuple(found)


def _threads(root: Path, online: list[int]) -> list[tuple[int, ...]]:
    """Return the hardware threads of each core: the first that names another owns it."""
    seen: set[int] = set()
    found = []
    for number in online:
        if number in seen:
            continue
        listed = _numbers(root / _CPUS / f"cpu{number}/topology/thread_siblings_list")
        mine = tuple(sorted({number, *(n for n in listed if n in online and n not in seen)}))
        seen.update(mine)
        found.append(mine)
    return found


def _cache(root: Path, number: int) -> int:
    """Return the first thread that shares the last-level cache; 0 where nothing is known."""
    best = (0, 0)
    for folder in _folders(root / _CPUS / f"cpu{number}/cache", r"index\d+"):
        level, shared = _numbers(folder / "level"), _numbers(folder / "shared_cpu_list")
        if level and shared and _text(folder / "type") != "Instruction":
            best = max(best, (level[0], min(shared)))
    return best[1]


def _folders(folder: Path, pattern: str) -> list[Path]:
    """Return what a folder holds whose whole name matches; nothing if there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if re.fullmatch(pattern, path.name))
    except OSError:
        return []


def _node_lists(root: Path) -> dict[int, list[int]]:
    named = {int(f.name[4:]): f for f in _folders(root / _NODES, r"node\d+")}
    return {number: _numbers(folder / "cpulist") for number, folder in sorted(named.items())}


def _kinds(root: Path, online: list[int]) -> dict[int, str]:
    """Return the kind of each thread; nothing where all are alike."""
    found = _owners(online, {kind: _numbers(root / path) for kind, path in _HYBRID.items()})
    if len(set(found.values())) > 1 and len(found) == len(online):
        return found
    capacities = {n: _numbers(root / _CPUS / f"cpu{n}/cpu_capacity") for n in online}
    known = {number: value[0] for number, value in capacities.items() if value}
    if len(known) < len(online):
        return {}
    levels: list[int] = []
    for capacity in sorted(set(known.values()), reverse=True):
        if not levels or capacity < _ALIKE * levels[-1]:
            levels.append(capacity)
    if len(levels) < 2:
        return {}
    names = ["performance", *["middle"] * (len(levels) - 2), "efficiency"]
    level_of = {n: sum(value < _ALIKE * level for level in levels) for n, value in known.items()}
    return {number: names[min(at, len(names) - 1)] for number, at in level_of.items()}


def _owners(online: list[int], lists: Mapping[T, list[int]]) -> dict[int, T]:
    wanted = set(online)
    return {number: owner for owner, those in lists.items() for number in those if number in wanted}


def _numbers(path: Path) -> list[int]:
    try:
        return parse_numbers(_text(path))
    except ValueError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def mac_topology(ask: Callable[[str], str], allowed: list[int]) -> Topology:
    """Return what `sysctl` tells of a Mac: its levels of performance, and who shares a cache there.

    Its numbers are not the system's: threads cannot be pinned there.

    Args:
        ask: Returns the value of a name of `sysctl`, or an empty text.
        allowed: As many threads as there are.

    >>> told = {"hw.nperflevels": "2", "hw.perflevel0.physicalcpu": "4",
    ...         "hw.perflevel1.physicalcpu": "4", "hw.perflevel1.cpusperl2": "4"}
    >>> mac_topology(lambda name: told.get(name, ""), list(range(8))).kinds
    ('performance', 'efficiency')
    """
    levels = _count(ask("hw.nperflevels"))
    if levels < 2:
        return Topology.flat(allowed)
    cores: list[Core] = []
    for level in range(levels):
        count = _count(ask(f"hw.perflevel{level}.physicalcpu"))
        per_cache = _count(ask(f"hw.perflevel{level}.cpusperl2")) or max(1, count)
        kind = "performance" if level == 0 else "efficiency"
        first = len(cores)
        for at in range(count):
            cache = first + at // per_cache * per_cache
            cores.append(Core(threads=(first + at,), cache=cache, kind=kind))
    if not cores:
        return Topology.flat(allowed)
    return Topology(cores=tuple(cores), used=tuple(core.threads[0] for core in cores))


def _count(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,4}", text.strip()) else 0


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
