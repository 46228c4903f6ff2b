"""Signals stay alive through the networks, and the two runtimes compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from coinfer import zoo
from coinfer.graph import saving

SMALL = ("lenet", "small_resnet", "tiny_branchy", "tiny_cnn", "tiny_encoder", "tiny_mlp")
LARGE = (
    "alexnet",
    "bert_base",
    "distilbert",
    "regnet_y_32gf",
    "resnet101",
    "resnet152",
    "vgg16",
    "vgg19",
)


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def relative_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.fixture
def exported(tmp_path: Path, monkeypatch):
    """Write networks, and take the large files away again at once."""
    # Large weights in a file of their own skip two copies through protobuf.
    monkeypatch.setattr(saving, "_EXTERNAL_DATA_BYTES", 10**8)

    def write(name: str, seed: int = 0) -> Path:
        (path,) = zoo.export([name], tmp_path / str(seed), seed=seed)
        return path

    yield write
    for path in tmp_path.rglob("*.onnx*"):
        path.unlink()


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in zoo.names()],
)
def test_outputs_are_alive_and_depend_on_the_input(name: str, exported) -> None:
    network = session(exported(name))
    first, second = (network.run(None, zoo.sample_inputs(name, seed=seed)) for seed in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert np.isfinite(a).all()
        assert 0.1 < a.std() < 10
        assert relative_distance(a, b) > 0.05


@pytest.mark.parametrize("name", [*SMALL, "mobilenet_v2", "squeezenet1_1"])
def test_a_batch_of_two_equals_two_batches_of_one(name: str, exported) -> None:
    network = session(exported(name))
    inputs = zoo.sample_inputs(name, batch=2)
    together = network.run(None, inputs)
    for index in range(2):
        alone = network.run(None, {key: x[index : index + 1] for key, x in inputs.items()})
        for a, b in zip(together, alone, strict=True):
            # Kernels may sum in another order for another batch size.
            assert relative_distance(a[index : index + 1], b) < 1e-5


@pytest.mark.parametrize("name", [*SMALL, "mobilenet_v2", "squeezenet1_1"])
def test_onnxruntime_and_openvino_agree(name: str, exported) -> None:
    openvino = pytest.importorskip("openvino")
    path, inputs = exported(name), zoo.sample_inputs(name, batch=2)
    precise = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", precise)
    theirs = compiled(inputs)
    for index, ours in enumerate(session(path).run(None, inputs)):
        # Same arithmetic in fp32, summed in another order through up to 50 layers.
        assert relative_distance(theirs[index], ours) < 1e-4


@pytest.mark.parametrize("name", [*SMALL, "mobilenet_v2", "densenet201", "inception_v3"])
def test_file_passes_the_full_onnx_checker(name: str, exported) -> None:
    # The full check infers all shapes and compares them with those that the builder wrote.
    onnx.checker.check_model(str(exported(name)), full_check=True)


def test_another_seed_gives_another_function(exported) -> None:
    inputs = zoo.sample_inputs("small_resnet")
    (a,), (b,) = (session(exported("small_resnet", seed)).run(None, inputs) for seed in (0, 1))
    assert relative_distance(a, b) > 0.5
