"""A detector and a recogniser of crops, built from code, with sizes that are open.

    python examples/open_sizes.py [FOLDER]

Writes `detector.onnx` and `recogniser.onnx` (random weights) and `crops.yaml`: each camera frame
goes through the detector, and of every frame a Poisson number of crops of different widths goes
through the recogniser. Then the first frames are run by hand. To run, simulate and show all of it:

    coinfer run FOLDER/crops.yaml --report report.html
    coinfer simulate FOLDER/crops.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import coinfer

SCENARIO = """\
name: crops
models:
  det: {source: detector.onnx, dims: {height: 240, width: 320}, deadline: 66ms}
  rec: {source: recogniser.onnx, dims: {width: {48: 3, 96: 4, 320: 1}}, deadline: 150ms}
arrivals:
  det: {periodic: 15/s}
  rec: {after: det, count: {poisson: 4}}
duration: 10s
warmup: 1s
"""


class Network:
    """A chain of operators under construction."""

    def __init__(self, shape: Sequence[int | str]) -> None:
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)
        self.last, self.channels = "x", int(shape[1])

    def add(self, kind: str, *weights: np.ndarray, **attributes: object) -> None:
        """Append an operator that reads the last value."""
        names = [f"w{len(self.weights) + at}" for at in range(len(weights))]
        self.weights += map(numpy_helper.from_array, weights, names)
        made = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *names], [made], **attributes))
        self.last = made

    def conv(self, channels: int, stride: Sequence[int]) -> None:
        """Append a 3x3 convolution and a Relu."""
        size = (channels, self.channels, 3, 3)
        weight = self.rng.standard_normal(size) * np.sqrt(2 / (9 * self.channels))
        self.add("Conv", weight.astype(np.float32), pads=[1, 1, 1, 1], strides=list(stride))
        self.add("Relu")
        self.channels = channels

    def save(self, path: Path, output: Sequence[int | str]) -> None:
        """Write the network."""
        self.nodes[-1].output[0] = "y"
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(output))],
            self.weights,
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def write(folder: Path) -> None:
    """Write both networks and the scenario."""
    detector = Network(["n", 3, "height", "width"])
    for channels, stride in ((48, 2), (96, 2), (192, 1), (192, 2), (192, 1)):
        detector.conv(channels, (stride, stride))
    detector.conv(8, (1, 1))
    detector.save(folder / "detector.onnx", ["n", 8, "rows", "columns"])
    recogniser = Network(["n", 3, 32, "width"])
    for channels, stride in ((96, (2, 2)), (192, (2, 1)), (384, (2, 1)), (384, (2, 1))):
        recogniser.conv(channels, stride)
    recogniser.add("ReduceMean", axes=[2], keepdims=0)
    recogniser.add("Transpose", perm=[0, 2, 1])
    weight = recogniser.rng.standard_normal((384, 40)).astype(np.float32) / 20
    recogniser.add("MatMul", weight)
    recogniser.save(folder / "recogniser.onnx", ["n", "columns", 40])
    (folder / "crops.yaml").write_text(SCENARIO)


def main(folder: Path) -> None:
    """Write everything, and run three frames by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
    rng = np.random.default_rng(1)
    frame = {"x": rng.random((1, 3, 240, 320), dtype=np.float32)}
    crops = [{"x": np.zeros((1, 3, 32, width), np.float32)} for width in (48, 96, 320)]
    models = {"det": folder / "detector.onnx", "rec": folder / "recogniser.onnx"}
    with coinfer.Engine(models, samples={"det": frame, "rec": crops}) as engine:
        for _ in range(3):
            found = engine.infer("det", frame)["y"]
            widths = rng.choice([48, 96, 320], size=rng.poisson(4))
            futures = [
                engine.submit("rec", {"x": rng.random((1, 3, 32, width), dtype=np.float32)})
                for width in widths.tolist()
            ]
            read = [future.result()["y"].shape[1] for future in futures]
            print(f"map of {found.shape[2]}x{found.shape[3]}, crops read in {read} columns")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "crops"))
