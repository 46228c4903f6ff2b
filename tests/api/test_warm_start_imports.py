"""A start that finds all it needs imports no library that reads, changes or measures graphs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import coinfer
from coinfer.backends import artefact_parts
from coinfer.hardware.cores import available_cores
from coinfer.machine.processor import Processor
from coinfer.model import Model, checked_file, model_from_ir
from coinfer.plan.plan_folder import save_plan
from coinfer.profiling import fingerprints

UNNEEDED = ("onnx", "onnx_ir", "onnxscript", "sympy", "scipy", "openvino", "torch", "pandas", "PIL")

START = """
import json, sys
import numpy as np
import coinfer
from coinfer.model import checked_file
from coinfer.profiling import fingerprints
checked_file._SETTLED_NS = fingerprints._SETTLED_NS = -1  # files are younger than those of users
with coinfer.Engine(json.loads(sys.argv[1])) as engine:
    for name, size in json.loads(sys.argv[2]).items():
        assert engine.infer(name, {"x": np.ones((1, size), np.float32)})
    engine.stats()
print(json.dumps([name for name in json.loads(sys.argv[3]) if name in sys.modules]))
"""

SIZES = {"small": 8, "large": 1040}


def layer(name: str, size: int) -> Model:
    weight = np.random.default_rng(1).standard_normal((size, size), np.float32)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", size]))
    given = ir.val("w", ir.DataType.FLOAT, weight.shape, const_value=ir.tensor(weight, name="w"))
    node = ir.node("Gemm", [x, given])
    [made] = node.outputs
    made.name, made.type, made.shape = "y", x.type, ir.Shape(["batch", size])
    graph = ir.Graph(
        [x], [made], nodes=[node], initializers=[given], opset_imports={"": 17}, name=name
    )
    return model_from_ir(ir.Model(graph, ir_version=8), name=name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models, one of which is an artefact, and a plan; all is in a cache."""
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COINFER_ARTEFACTS")
    for module in (checked_file, fingerprints):
        monkeypatch.setattr(module, "_SETTLED_NS", -1)
    assert SIZES["small"] ** 2 * 4 < artefact_parts.LEAST_WEIGHT_BYTES < SIZES["large"] ** 2 * 4
    models = {}
    for name, size in SIZES.items():
        models[name] = str(tmp_path / f"{name}.onnx")
        onnx.save(onnx.load_from_string(layer(name, size).to_bytes()), models[name])
    core = available_cores()[0]
    cpu = Processor(name="p", backend="onnxruntime", units=frozenset({"core0"}), cores=(core,))
    with coinfer.Engine(models, processors=[cpu]) as engine:
        save_plan(engine.plan, tmp_path / "plan")
    return tmp_path


def test_a_start_from_a_saved_plan_imports_nothing_that_only_planning_needs(folder: Path) -> None:
    arguments = (str(folder / "plan"), SIZES, UNNEEDED)
    done = subprocess.run(
        [sys.executable, "-c", START, *map(json.dumps, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(coinfer.__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
