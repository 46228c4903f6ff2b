"""The benchmark of the job queue keeps no plan of networks that were made anew."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def job_queue(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("job_queue")


def test_making_networks_removes_the_plans_that_were_kept(
    job_queue: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "plan-fcfs-0.02s-2-vgg16-original"
    kept.mkdir()
    (kept / "plan.yaml").write_text("format: coinfer-plan/1\n")
    (tmp_path / "vgg16-original.onnx").write_bytes(b"kept")
    monkeypatch.setattr(job_queue, "print_environment", lambda _: None)
    monkeypatch.setattr(job_queue, "_made", lambda folder, name: f"{name} in {folder}")
    monkeypatch.setattr(sys, "argv", ["job_queue.py", "--folder", str(tmp_path), "--make"])
    assert job_queue.main() == 0
    assert [each.name for each in tmp_path.iterdir()] == ["vgg16-original.onnx"]


def test_a_kept_plan_is_named_after_all_that_it_depends_on(job_queue: Any, tmp_path: Path) -> None:
    paths = [
        tmp_path / "a-original.onnx",
        tmp_path / "b-original.onnx",
        tmp_path / "a-original.onnx",
    ]
    assert job_queue.plan_folder(paths) == tmp_path / "plan-fcfs-0.02s-2-a-original-1-b-original"
