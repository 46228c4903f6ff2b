"""Limits of control groups are read in both versions, and none is invented."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.hardware.cgroup import cpu_quota, memory_limit_bytes
from hardware.fake_root import v1, v2


def test_no_files_mean_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert memory_limit_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "quota"),
    [("250000 100000", 2.5), ("max 100000", None), ("50000 100000", 0.5), ("", None)],
)
def test_version_2_quota(tmp_path: Path, text: str, quota: float | None) -> None:
    assert cpu_quota(v2(tmp_path, {"cpu.max": text})) == quota


def test_the_smallest_limit_of_all_enclosing_groups_counts(tmp_path: Path) -> None:
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "cpu.max": "400000 100000"}
    assert cpu_quota(v2(tmp_path, files, group="/a/b")) == 3.0


def test_a_sibling_group_does_not_count(tmp_path: Path) -> None:
    files = {"a/cpu.max": "300000 100000", "c/cpu.max": "100000 100000"}
    assert cpu_quota(v2(tmp_path, files, group="/a")) == 3.0


def test_a_host_path_inside_a_container_is_read_from_the_mounts_root(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    assert cpu_quota(v1(tmp_path, files, group="/docker/1f", mounted="/docker/1f")) == 1.5


def test_a_group_outside_the_mount_is_read_from_the_mount_point(tmp_path: Path) -> None:
    assert cpu_quota(v2(tmp_path, {"cpu.max": "100000 100000"}, group="/../other")) == 1.0


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("200000", "100000", 2.0), ("-1", "100000", None), ("100000", "0", None), ("x", "1", None)],
)
def test_version_1_quota(tmp_path: Path, quota: str, period: str, expected: float | None) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": quota, "cpu,cpuacct/cpu.cfs_period_us": period}
    assert cpu_quota(v1(tmp_path, files)) == expected


def test_memory_limits_of_both_versions(tmp_path: Path) -> None:
    assert memory_limit_bytes(v2(tmp_path / "2", {"memory.max": "1073741824"})) == 2**30
    files = {"memory/memory.limit_in_bytes": "2147483648"}
    assert memory_limit_bytes(v1(tmp_path / "1", files)) == 2**31


def test_the_largest_number_of_version_1_means_no_memory_limit(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": "9223372036854771712"}
    assert memory_limit_bytes(v1(tmp_path, files)) is None
    assert memory_limit_bytes(v2(tmp_path / "2", {"memory.max": "max"})) is None
