"""Huge pages: what is in use is put into them, and nothing that is not."""

from __future__ import annotations

import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from coinfer.backends import huge_pages
from coinfer.backends.huge_pages import are_huge_pages_allowed, use_huge_pages

SIZE = 64 * 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them")


def kib_of(memory: mmap.mmap, what: str) -> int:
    """Return what the system says of a mapping, in KiB."""
    start = np.frombuffer(memory, np.uint8).ctypes.data
    found, is_it = 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        if place := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            first, last = (int(each, 16) for each in place.groups())
            is_it = first < start + SIZE and start < last
        elif is_it and line.startswith(f"{what}:"):
            found += int(line.split()[1])
    return found


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> mmap.mmap:
    """64 MiB that nobody has touched."""
    monkeypatch.setattr(huge_pages, "_seen", 0)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return mmap.mmap(-1, SIZE, flags)


def collapses() -> bool:
    """Whether this kernel can do it at once, and may."""
    if not are_huge_pages_allowed():
        return False
    found = re.match(r"(\d+)\.(\d+)", Path("/proc/sys/kernel/osrelease").read_text("ascii"))
    assert found
    return tuple(map(int, found.groups())) >= (6, 1)


needs_collapse = pytest.mark.skipif(
    sys.platform == "linux" and not collapses(), reason="needs Linux 6.1 and huge pages allowed"
)


@needs_collapse
def test_what_is_in_use_is_put_into_huge_pages_and_keeps_its_values(memory: mmap.mmap) -> None:
    values = np.frombuffer(memory, np.uint32)
    values[:] = np.arange(SIZE // 4, dtype=np.uint32)
    use_huge_pages()
    assert kib_of(memory, "AnonHugePages") * 1024 >= 0.9 * SIZE
    np.testing.assert_array_equal(values, np.arange(SIZE // 4, dtype=np.uint32))


@needs_collapse
def test_what_is_mostly_untouched_takes_no_more_memory(memory: mmap.mmap) -> None:
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    values = np.frombuffer(memory, np.uint8).reshape(-1, 2**21)
    values[:, : 2**21 * 3 // 4 : 4096] = 1  # three quarters of each huge page
    before = kib_of(memory, "Rss")
    use_huge_pages()
    assert kib_of(memory, "Rss") == before
    assert before * 1024 < 0.8 * SIZE


def test_nothing_is_looked_through_where_little_came(
    memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    monkeypatch.setattr(huge_pages, "_mappings", lambda _most: looks.append(0) or iter(()))
    monkeypatch.setattr(huge_pages, "are_huge_pages_allowed", lambda: True)
    use_huge_pages()
    use_huge_pages()
    assert len(looks) == 1
    np.frombuffer(memory, np.uint8)[:] = 1
    use_huge_pages()
    assert len(looks) == 2


@needs_collapse
def test_what_is_only_reserved_is_left_alone(memory: mmap.mmap) -> None:
    no_reserve = 0x4000  # MAP_NORESERVE, which `mmap` does not name
    reserved = mmap.mmap(-1, 2**42, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    before = huge_pages._resident()
    use_huge_pages()
    assert huge_pages._resident() < before + SIZE
    reserved.close()


def test_they_are_not_used_where_the_system_forbids_them(
    tmp_path: Path, memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled = tmp_path / "enabled"
    enabled.write_text("always madvise [never]\n")
    assert not are_huge_pages_allowed(enabled)
    assert not are_huge_pages_allowed(tmp_path / "missing")
    enabled.write_text("always [madvise] never\n")
    assert are_huge_pages_allowed(enabled)
    monkeypatch.setattr(huge_pages, "are_huge_pages_allowed", lambda: False)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    np.frombuffer(memory, np.uint8)[:] = 1
    use_huge_pages()
    assert kib_of(memory, "AnonHugePages") == 0
