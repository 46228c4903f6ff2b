"""Small ONNX models for the tests of `coinfer.model`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8


def weight(name: str = "w", *, seed: int = 0, shape: tuple[int, ...] = (4, 3)) -> TensorProto:
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return numpy_helper.from_array(values, name)


def model(
    nodes: list[onnx.NodeProto],
    *,
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    initializers: list[TensorProto] | None = None,
    **kwargs: object,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        initializers or [],
    )
    options = {"opset_imports": [helper.make_opsetid("", OPSET)], "ir_version": IR_VERSION}
    return helper.make_model(graph, **(options | kwargs))


def dense(*, seed: int = 0) -> onnx.ModelProto:
    """x[N,4] @ w[4,3], Relu."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="dense"),
        helper.make_node("LeakyRelu", ["h"], ["y"], name="act", alpha=0.1),
    ]
    return model(nodes, initializers=[weight(seed=seed)])


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def external(proto: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, Path]:
    """Move the weights into `folder/weights.bin`; return the model and its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "m.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return onnx.load(path, load_external_data=False), path


def set_entry(tensor: TensorProto, key: str, value: str) -> None:
    """Change one entry of a tensor's external data."""
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value
            return
    tensor.external_data.add(key=key, value=value)
