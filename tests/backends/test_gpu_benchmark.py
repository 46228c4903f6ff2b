"""The benchmark of GPUs works without one: a borrowed card is not wasted on its mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_its_parts_run_on_a_cpu_with_tiny_networks(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--seconds", "4"]
    command += ["--parts", "c,d,o", "--output", str(tmp_path)]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    tables = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert [table["part"] for table in tables] == ["c", "d", "o"]
    assert [row[0] for row in tables[0]["rows"]] == ["alone", "threads", "coinfer"]
    assert [row[1] for row in tables[1]["rows"]] == ["original", "decomposed"]
