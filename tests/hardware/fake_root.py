"""Writes a `/proc` and `/sys` that say what a test wants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = (
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:31 {root} /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory"
)


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def v2(root: Path, files: Mapping[str, str], *, group: str = "/", mounted: str = "/") -> Path:
    """A version 2 hierarchy; names of files are relative to its mount point."""
    write(root, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    return write(
        root,
        {
            "proc/self/cgroup": f"0::{group}",
            "proc/self/mountinfo": "22 1 0:20 / / rw - ext4 /dev/vda rw\n"
            + V2_MOUNT.format(root=mounted),
        },
    )


def v1(root: Path, files: Mapping[str, str], *, group: str = "/", mounted: str = "/") -> Path:
    """Version 1 hierarchies; names of files begin with `cpu,cpuacct/` or `memory/`."""
    write(root, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    return write(
        root,
        {
            "proc/self/cgroup": f"5:memory:{group}\n4:cpu,cpuacct:{group}\n0::/",
            "proc/self/mountinfo": V1_MOUNT.format(root=mounted),
        },
    )
