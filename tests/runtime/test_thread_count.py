"""Many models need no more threads than few: a process of its own is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

MODELS = 100
COUNT = f"""
import json, psutil
import coinfer
from coinfer.hardware.cores import find_cores

models = {{f"m{{seed}}": f"zoo:tiny_cnn?seed={{seed}}" for seed in range({MODELS})}}
with coinfer.Engine(models) as engine:
    loaded = psutil.Process().num_threads()
    inputs = {{"image": __import__("numpy").zeros((1, 3, 32, 32), "float32")}}
    futures = [engine.submit(name, inputs) for name in engine.models for _ in range(3)]
    answered = sum(len(future.result()) for future in futures)
    busy = psutil.Process().num_threads()
print(json.dumps([loaded, busy, answered, len(find_cores().numbers)]))
"""


@pytest.mark.slow
def test_a_hundred_small_models_take_at_most_ten_threads_beside_the_cores(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "COINFER_CACHE": str(tmp_path)},
    )
    loaded, busy, answered, cores = json.loads(done.stdout)
    assert answered == 3 * MODELS
    assert max(loaded, busy) <= cores + 10
