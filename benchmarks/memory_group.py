"""Memory group: a control group with a limit of memory, in which page cache counts. Linux, as root.

A program begins in a group without a limit and is limited once it is ready: what it reads later is
counted, also what stays in the page cache, and what it read before is taken away first.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["MemoryGroup", "memory_group"]

_FILES = {
    1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.usage_in_bytes"),
    2: ("memory.max", "memory.peak", "memory.current"),
}


class MemoryGroup(NamedTuple):
    """One group.

    Attributes:
        folder: Where the system has it.
        version: Of control groups: 1 or 2.
    """

    folder: Path
    version: int

    def join(self) -> None:
        """Put this process into it."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def limit(self, size: int) -> None:
        """Let it have so many bytes from now on; the system takes pages of files away for that.

        Raises:
            OSError: it holds more that cannot be taken away.
        """
        for left in reversed(range(20)):
            try:
                (self.folder / _FILES[self.version][0]).write_text(str(size))
                break
            except OSError:  # it is busy while pages are written
                if not left:
                    raise
                time.sleep(0.1)
        with suppress(OSError):
            (self.folder / _FILES[self.version][1]).write_text("0")

    @property
    def used(self) -> int:
        """Bytes that it holds now."""
        return int((self.folder / _FILES[self.version][2]).read_text())

    @property
    def peak(self) -> int:
        """The most that it held since the limit was set."""
        return int((self.folder / _FILES[self.version][1]).read_text())

    @property
    def file_reads(self) -> int:
        """Pages of files that were taken away and had to be read again."""
        text = (self.folder / "memory.stat").read_text()
        found = re.search(r"^workingset_refault(?:_file)? (\d+)", text, re.M)
        return int(found[1]) if found else 0


@contextmanager
def memory_group() -> Iterator[MemoryGroup | None]:
    """Make a group for as long as this lasts; None where that is not allowed."""
    group = _made()
    try:
        yield group
    finally:
        if group is not None:
            for _ in range(50):  # its last process may just be ending
                with suppress(OSError):
                    group.folder.rmdir()
                    break
                time.sleep(0.1)


def _made() -> MemoryGroup | None:
    name = f"coinfer-benchmark-{os.getpid()}"
    for version, folder in ((1, Path("/sys/fs/cgroup/memory")), (2, Path("/sys/fs/cgroup"))):
        group = MemoryGroup(folder / name, version)
        try:
            group.folder.mkdir()
            if (group.folder / _FILES[version][0]).exists():
                return group
            group.folder.rmdir()
        except OSError:
            continue
    return None
