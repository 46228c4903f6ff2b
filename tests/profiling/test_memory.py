"""Memory as it is measured, in a process of its own: what others had free before hides some."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.alone

SCRIPT = """
import json
from coinfer.machine.processor import Processor
from coinfer.profiling import Effort, profile_models
from coinfer.planner.model_source import resolve_model

model = resolve_model("zoo:resnet50")
onnx = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))
effort = Effort(warmup_runs=0, min_runs=2, max_runs=2)
[entry] = profile_models({"a": model}, [onnx], effort=effort).entries.values()
found = [model.weight_bytes, entry.resident_bytes, entry.run_bytes, entry.load_s, *entry.seconds]
print(json.dumps(found))
"""


def test_memory_of_a_real_model_is_near_the_size_of_its_weights() -> None:
    # The weights are resident; the runtime may pack some of them a second time.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    weights, resident, running, load_s, *seconds = json.loads(done.stdout)
    assert 0.7 * weights < resident < 1.6 * weights
    assert 0 <= running < 0.5 * weights
    assert load_s > 0
    assert min(seconds) > 0
