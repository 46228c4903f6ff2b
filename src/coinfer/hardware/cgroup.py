"""Limits that a Linux control group sets on this process, versions 1 and 2.

Reads files below a root that tests can replace. A limit that cannot be read counts as no limit:
other systems have none, and some containers hide the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

__all__ = ["cpu_quota", "memory_limit_bytes"]

_UNLIMITED_BYTES = 2**60
"""Version 1 writes "no limit" as the largest multiple of a page; nothing real is this large."""


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the processors' worth of time that this process may use, or None for no limit.

    The smallest limit of the group and all groups around it counts.
    """
    quotas = [
        quota
        for folder, version in _folders(root, "cpu")
        if (quota := _cpu_quota_of(folder, version)) is not None
    ]
    return min(quotas, default=None)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process's group may use, or None for no limit."""
    files = {1: "memory.limit_in_bytes", 2: "memory.max"}
    limits = [_number(folder / files[version]) for folder, version in _folders(root, "memory")]
    return min((int(n) for n in limits if n is not None and n < _UNLIMITED_BYTES), default=None)


def _cpu_quota_of(folder: Path, version: int) -> float | None:
    if version == 2:
        quota, period = _numbers(folder / "cpu.max", 2)
    else:
        quota = _number(folder / "cpu.cfs_quota_us")
        period = _number(folder / "cpu.cfs_period_us")
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return quota / period


def _folders(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Folders of this process's group and of the groups around it, with the version."""
    groups = _groups(root)
    for version, controllers, mounted, point in _mounts(root):
        if controller not in controllers and version == 1:
            continue
        group = groups.get(controller if version == 1 else "")
        if group is None:
            continue
        # In a container the group's path may be the host's, but the mount begins at its root.
        inside = _relative(group, mounted)
        folder = root / point.lstrip("/")
        yield from ((folder / part, version) for part in (inside, *inside.parents))


def _relative(group: str, mounted: str) -> PurePosixPath:
    path = PurePosixPath(group)
    return path.relative_to(mounted) if path.is_relative_to(mounted) else PurePosixPath()


def _groups(root: Path) -> dict[str, str]:
    """Find the group per controller; version 2 has the empty controller."""
    found: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _mounts(root: Path) -> Iterator[tuple[int, Sequence[str], str, str]]:
    """Version, controllers (of version 1), root and mount point of each mounted hierarchy."""
    # id parent device root point options [optional...] - type source superoptions
    pattern = re.compile(r"\S+ \S+ \S+ (\S+) (\S+) \S+ .*?- cgroup(2?) \S+ (\S+)")
    for line in _read(root / "proc/self/mountinfo").splitlines():
        if match := pattern.match(line):
            yield 2 if match[3] else 1, match[4].split(","), match[1], match[2]


def _numbers(path: Path, count: int) -> list[float | None]:
    words = _read(path).split()
    words += [""] * (count - len(words))
    return [float(word) if re.fullmatch(r"-?\d+", word) else None for word in words[:count]]


def _number(path: Path) -> float | None:
    return _numbers(path, 1)[0]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
