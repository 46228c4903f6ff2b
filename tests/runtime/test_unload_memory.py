"""What a model took goes back to the system with it: a process of its own is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MIB = 2**20

COMMON = """
import gc, json, sys
import numpy as np, onnx, psutil
from onnx import TensorProto, helper, numpy_helper
from backends.blocked_parts import Network
from coinfer import Engine, Profile
from coinfer.model import Model
from coinfer.machine.processor import Processor
from planner.cut_models import cut

P0 = (Processor(name="p0", backend="onnxruntime", units=frozenset({"p0"})),)

def convolutions(size: int) -> Model:
    net = Network(3, size=size)
    net.conv("a", "x", 64, kernel=3)
    net.conv("b", "a", 64)
    net.conv("c", "b", 64)
    net.conv("y", "c", 4)
    return net.model("y")

def in_parts(name: str, size: int):
    model = convolutions(size)
    return cut(model, [1, 2, 3], ["p0"]).renamed(name)

def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss
"""

LARGE_ACTIVATIONS = """
large, feed = in_parts("large", 256), {"x": np.ones((8, 3, 256, 256), np.float32)}
small, little = in_parts("small", 16), {"x": np.ones((1, 3, 16, 16), np.float32)}
with Engine({"small": small}, processors=P0, profile=small.profile) as engine:
    expected = engine.infer("small", little)["y"].copy()
    kept = engine.infer("small", little)
    before = resident()
    engine.load("large", large, large.profile)
    assert engine.infer("large", feed)["y"].shape == (8, 4, 256, 256)
    most = resident()
    engine.unload("large")
    after = resident()
    assert np.array_equal(engine.infer("small", little)["y"], expected)
    assert np.array_equal(kept["y"], expected)
print(json.dumps([before, most, after]))
"""

LARGE_WEIGHTS = """
weight = numpy_helper.from_array(np.ones((32, 2**20), np.float32), "w")
nodes = [
    helper.make_node("MatMul", ["x", "w"], ["h"]),
    helper.make_node("ReduceMax", ["h"], ["y"], axes=[1]),
]
infos = [
    helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
    for name, size in (("x", 32), ("y", 1))
]
graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [weight])
onnx.save(
    helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1]
)
del weight, graph, nodes
profile = Profile.from_seconds({"large": {"p0": 1e-3}})
small = in_parts("small", 16)
with Engine({"small": small}, processors=P0, profile=small.profile) as engine:
    before = resident()
    engine.load("large", sys.argv[1], profile)
    engine.infer("large", {"x": np.ones((1, 32), np.float32)})
    most = resident()
    engine.unload("large")
    after = resident()
print(json.dumps([before, most, after]))
"""


def measured(script: str, *arguments: str) -> tuple[int, int, int]:
    """Bytes that a process holds before, while, and after it holds the large model."""
    done = subprocess.run(
        [sys.executable, "-c", COMMON + script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, most, after = json.loads(done.stdout)
    return before, most, after


pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        sys.platform != "linux", reason="only glibc is asked to give back what it keeps"
    ),
]


def test_activations_of_a_cut_model_go_with_it() -> None:
    before, most, after = measured(LARGE_ACTIVATIONS)
    assert most - before > 256 * MIB
    assert after - before < 64 * MIB


def test_weights_of_a_model_go_with_it(tmp_path: Path) -> None:
    before, most, after = measured(LARGE_WEIGHTS, str(tmp_path / "large.onnx"))
    assert most - before > 128 * MIB
    assert after - before < 32 * MIB
