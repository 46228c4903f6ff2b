from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from onnx import helper, numpy_helper

from coinfer.errors import ModelError
from coinfer.model import load_model
from model.onnx_files import dense, external, model, saved, set_entry, weight


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def with_entry(folder: Path, key: str, value: str) -> Path:
    proto, path = external(dense(), folder)
    set_entry(proto.graph.initializer[0], key, value)
    return saved(proto, path)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "'w'" in str(caught.value)
    return str(caught.value)


def test_external_data_beside_the_model_is_read(folder: Path) -> None:
    _, path = external(dense(), folder)
    assert load_model(path).weight_bytes == 48


def test_external_data_in_a_folder_below_is_read(folder: Path) -> None:
    path = with_entry(folder, "location", "data/weights.bin")
    (folder / "data").mkdir()
    (folder / "weights.bin").rename(folder / "data" / "weights.bin")
    assert load_model(path).weight_bytes == 48


def test_a_relative_path_to_the_model_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external(dense(), folder)
    monkeypatch.chdir(folder)
    loaded = load_model("m.onnx")
    monkeypatch.chdir(folder.parent)
    assert loaded.to_bytes()


@pytest.mark.parametrize(
    "location", ["../secret.bin", "data/../../secret.bin", "..\\secret.bin", "C:\\secret.bin"]
)
def test_locations_outside_the_folder_are_refused(folder: Path, location: str) -> None:
    path = with_entry(folder, "location", location)
    (folder.parent / "secret.bin").write_bytes(b"\0" * 48)
    assert "outside the model's folder" in refusal(path)


def test_absolute_locations_are_refused_even_inside_the_folder(folder: Path) -> None:
    path = with_entry(folder, "location", str(folder / "weights.bin"))
    assert "outside the model's folder" in refusal(path)


def test_links_out_of_the_folder_are_refused(folder: Path) -> None:
    _, path = external(dense(), folder)
    outside = folder.parent / "secret.bin"
    (folder / "weights.bin").rename(outside)
    (folder / "weights.bin").symlink_to(outside)
    assert "link out of the model's folder" in refusal(path)


def test_links_inside_the_folder_are_refused_too(folder: Path) -> None:
    _, path = external(dense(), folder)
    (folder / "weights.bin").rename(folder / "real.bin")
    (folder / "weights.bin").symlink_to("real.bin")
    assert "is a link" in refusal(path)


def test_hard_links_are_refused(folder: Path) -> None:
    _, path = external(dense(), folder)
    os.link(folder / "weights.bin", folder.parent / "other.bin")
    assert "hard link" in refusal(path)


def test_missing_data_names_the_file(folder: Path) -> None:
    _, path = external(dense(), folder)
    (folder / "weights.bin").unlink()
    assert "there is no file 'weights.bin'" in refusal(path)


def test_short_data_is_refused(folder: Path) -> None:
    _, path = external(dense(), folder)
    (folder / "weights.bin").write_bytes(b"\0" * 47)
    assert "is short" in refusal(path)


def test_a_directory_instead_of_data_is_refused(folder: Path) -> None:
    _, path = external(dense(), folder)
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").mkdir()
    assert "not a readable file" in refusal(path)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("offset", "1", "is short"),
        ("offset", "-1", "not a number"),
        ("offset", "x", "not a number"),
        ("offset", "9" * 30, "not a number"),
        ("length", "12", "12 bytes long"),
        ("location", "", "no usable location"),
        ("location", "a\0b", "no usable location"),
        ("location", "x" * 5000, "cannot be read"),
    ],
)
def test_malformed_entries_are_refused(folder: Path, key: str, value: str, word: str) -> None:
    assert word in refusal(with_entry(folder, key, value))


def test_constants_in_functions_are_read_from_the_model_folder(folder: Path) -> None:
    def proto() -> onnx.ModelProto:
        return onnx.parser.parse_model("""
            <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
            g (float[N] x) => (float[N] y) { y = own.scale(x) }
            <domain: "own", opset_import: ["" : 17]>
            scale (a) => (b) { k = Constant<value = float[1] {3.0}>() b = Mul(a, k) }
        """)

    folder.mkdir()
    outside = proto()
    tensor = outside.functions[0].node[0].attribute[0].t
    (folder / "k.bin").write_bytes(numpy_helper.to_array(tensor).tobytes())
    for field in ("raw_data", "float_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    set_entry(tensor, "location", "k.bin")
    loaded = load_model(saved(outside, folder / "m.onnx"))
    assert loaded.fingerprint == load_model(saved(proto(), folder / "i.onnx")).fingerprint
    alone = folder.parent / "alone.onnx"
    alone.write_bytes(loaded.to_bytes())
    assert load_model(alone).fingerprint == loaded.fingerprint


def test_constants_in_subgraphs_are_checked(tmp_path: Path) -> None:
    hidden = weight("w")
    hidden.ClearField("raw_data")
    hidden.data_location = onnx.TensorProto.EXTERNAL
    set_entry(hidden, "location", "../secret.bin")
    out = helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, [4, 3])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["o"], value=hidden)], "b", [], [out]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    condition = helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 3])
    proto = model([node], inputs=[condition], outputs=[y])
    assert "outside the model's folder" in refusal(saved(proto, tmp_path / "m.onnx"))
