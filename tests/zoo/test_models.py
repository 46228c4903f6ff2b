"""What a built model is: seeded, labelled, symbolic in its batch, and quick to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import coinfer
from coinfer import zoo
from coinfer.errors import UnknownNameError
from coinfer.graph import saving
from coinfer.zoo.moments import Moments


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def structure(model: ir.Model) -> list[tuple]:
    return [
        (node.op_type, node.name, tuple(value.name for value in node.inputs))
        for node in model.graph
    ]


@pytest.mark.parametrize("name", ["tiny_branchy", "tiny_encoder", "mobilenet_v2"])
def test_equal_seeds_give_equal_bits(name: str) -> None:
    first, second = weights(zoo.build(name, seed=3)), weights(zoo.build(name, seed=3))
    assert first.keys() == second.keys()
    assert all(first[key].tobytes() == second[key].tobytes() for key in first)


@pytest.mark.parametrize("name", ["tiny_branchy", "tiny_encoder", "mobilenet_v2"])
def test_other_seeds_change_every_weight_and_no_structure(name: str) -> None:
    one, two = zoo.build(name, seed=0), zoo.build(name, seed=1)
    assert structure(one) == structure(two)
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    assert not any(np.array_equal(first[key], second[key]) for key in first)


def test_tensors_do_not_depend_on_the_order_in_which_they_are_drawn() -> None:
    forwards, backwards = zoo.build("tiny_cnn"), zoo.build("tiny_cnn")
    drawn = {
        name: value.const_value.numpy()
        for name, value in reversed(list(backwards.graph.initializers.items()))
    }
    for name, array in weights(forwards).items():
        assert np.array_equal(array, drawn[name])


@pytest.mark.parametrize("name", zoo.names())
def test_model_says_what_it_is(name: str) -> None:
    model, entry = zoo.build(name, seed=7), zoo.spec(name)
    (value,) = model.graph.inputs
    assert value.name == entry.input_name
    assert [str(dim) for dim in value.shape] == ["batch", *map(str, entry.input_shape)]
    assert value.dtype.numpy() == np.dtype(entry.input_dtype)
    assert all(str(output.shape[0]) == "batch" for output in model.graph.outputs)
    assert "not trained" in model.doc_string
    assert model.metadata_props["coinfer.zoo.network"] == name
    assert model.metadata_props["coinfer.zoo.seed"] == "7"


def test_sample_tokens_stay_within_the_vocabulary() -> None:
    (ids,) = zoo.sample_inputs("tiny_encoder", batch=50).values()
    assert ids.dtype == np.int64
    assert 0 <= ids.min() < ids.max() < zoo.spec("tiny_encoder").vocabulary


def test_export_replaces_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "tiny_mlp.onnx").write_text("old")
    paths = zoo.export(["tiny_mlp", "tiny_cnn"], tmp_path, seed=2)
    assert paths == [tmp_path / "tiny_mlp.onnx", tmp_path / "tiny_cnn.onnx"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    expected, read = weights(zoo.build("tiny_mlp", seed=2)), weights(ir.load(paths[0]))
    assert all(np.array_equal(expected[key], read[key]) for key in expected)


def test_export_moves_very_large_weights_to_a_file_beside(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(saving, "_EXTERNAL_DATA_BYTES", 1000)
    (path,) = zoo.export(["tiny_mlp"], tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"tiny_mlp.onnx", "tiny_mlp.onnx.data"}
    expected, read = weights(zoo.build("tiny_mlp")), weights(ir.load(path))
    assert all(np.array_equal(expected[key], read[key]) for key in expected)


def test_export_looks_up_all_names_before_it_writes(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="tiny_mpl"):
        zoo.export(["tiny_cnn", "tiny_mpl"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_importing_the_zoo_loads_no_inference_library() -> None:
    code = (
        "import sys, coinfer.zoo; "
        "sys.exit(any(m in sys.modules for m in ('onnxruntime', 'openvino', 'torch')))"
    )
    source = str(Path(coinfer.__path__[0]).parent)
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, check=False)
    assert done.returncode == 0


def test_rectified_moments_equal_those_of_samples() -> None:
    samples = np.random.default_rng(0).normal(0.3, 1.5, 1_000_000)
    moments = Moments(mean=0.3, variance=1.5**2).rectified()
    rectified = np.maximum(samples, 0)
    # One million samples leave an error of about one part in a thousand.
    assert moments.mean == pytest.approx(rectified.mean(), rel=0.01)
    assert moments.variance == pytest.approx(rectified.var(), rel=0.01)


def test_product_moments_equal_those_of_samples() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(1.0, 0.5, 1_000_000), generator.normal(-2.0, 1.0, 1_000_000)
    moments = Moments(mean=1.0, variance=0.25).times(Moments(mean=-2.0, variance=1.0))
    assert moments.mean == pytest.approx((a * b).mean(), rel=0.01)
    assert moments.variance == pytest.approx((a * b).var(), rel=0.01)
