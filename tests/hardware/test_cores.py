"""The number of cores comes from affinity and quota, never from the host's count."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from coinfer.hardware import available_cores, find_cores
from hardware.fake_root import v2, write


def test_affinity_decides_without_a_quota(tmp_path: Path) -> None:
    found = find_cores(root=tmp_path, affinity={6, 4, 5})
    assert found.numbers == (4, 5, 6)
    assert found.quota is None


@pytest.mark.parametrize(
    ("quota", "count"), [("250000", 2), ("50000", 1), ("100000", 1), ("900000", 4)]
)
def test_a_quota_is_rounded_down_to_at_least_one_core(
    tmp_path: Path, quota: str, count: int
) -> None:
    root = v2(tmp_path, {"cpu.max": f"{quota} 100000"})
    assert len(find_cores(root=root, affinity=range(4)).numbers) == count


def test_under_a_quota_nothing_is_pinned(tmp_path: Path) -> None:
    root = v2(tmp_path, {"cpu.max": "200000 100000"})
    assert not find_cores(root=root, affinity=range(4)).pinnable


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")
def test_a_quota_above_the_cores_does_not_stop_pinning(tmp_path: Path) -> None:
    root = v2(tmp_path, {"cpu.max": "800000 100000"})
    assert find_cores(root=root, affinity=range(4)).pinnable


def test_hardware_threads_of_one_core_count_once(tmp_path: Path) -> None:
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = write(tmp_path, {topology.format(n): f"{n % 2},{n % 2 + 2}" for n in range(4)})
    found = find_cores(root=root, affinity=range(4))
    assert found.numbers == (0, 1)
    assert (found.allowed, found.physical) == (4, 2)


def test_a_core_is_used_through_whichever_of_its_threads_is_allowed(tmp_path: Path) -> None:
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = write(tmp_path, {topology.format(n): f"{n % 2},{n % 2 + 2}" for n in range(4)})
    assert find_cores(root=root, affinity={1, 2}).numbers == (1, 2)


def test_the_reason_names_what_limited(tmp_path: Path) -> None:
    root = v2(tmp_path, {"cpu.max": "150000 100000"})
    assert "4 allowed by affinity, quota 1.5" in find_cores(root=root, affinity=range(4)).reason


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has affinity masks")
def test_this_process_gets_no_core_outside_its_mask() -> None:
    assert set(available_cores()) <= os.sched_getaffinity(os.getpid())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has affinity masks")
def test_a_pinned_thread_still_sees_all_cores_of_the_process() -> None:
    from concurrent.futures import ThreadPoolExecutor

    cores = available_cores()

    def pinned_view() -> tuple[int, ...]:
        os.sched_setaffinity(0, cores[:1])
        return available_cores()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(pinned_view).result() == cores


@pytest.mark.parametrize("text", ["", "\n\n", "\x00\xff", "no such thing", "0::/\n0\n:::", "22 1"])
def test_files_of_the_system_that_say_nothing_useful_limit_nothing(
    tmp_path: Path, text: str
) -> None:
    for name in (
        "proc/self/cgroup",
        "proc/self/mountinfo",
        "proc/cpuinfo",
        "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
        "sys/devices/system/cpu/cpu1/topology/thread_siblings_list",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    found = find_cores(root=tmp_path, affinity=[0, 1])
    assert found.quota is None
    assert found.numbers
