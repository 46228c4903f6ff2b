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


@pytest.fixture
def hub(folder: Path) -> Path:
    """A model as a hub's cache keeps it: names in one folder lead to contents in another."""
    _, path = external(dense(), folder / "made")
    blobs, snapshot = folder / "hub" / "blobs", folder / "hub" / "snapshots" / "x"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for made in (path, path.with_name("weights.bin")):
        made.rename(blobs / f"content-of-{made.stem}")
        (snapshot / made.name).symlink_to(f"../../blobs/content-of-{made.stem}")
    return folder / "hub"


def test_links_are_followed_inside_of_a_folder_that_is_allowed(hub: Path, folder: Path) -> None:
    path = hub / "snapshots" / "x" / "m.onnx"
    loaded = load_model(path, data_root=hub)
    _, plain = external(dense(), folder / "plain")
    assert loaded.name == "m"
    assert loaded.source == path
    assert loaded.fingerprint == load_model(plain).fingerprint
    assert onnx.load_from_string(loaded.to_bytes()).graph.initializer[0].raw_data


def test_without_a_folder_that_is_allowed_the_message_says_how_to_allow_one(hub: Path) -> None:
    message = refusal(hub / "snapshots" / "x" / "m.onnx")
    assert "load_model(..., data_root=FOLDER), --allow-data-in FOLDER" in message


def test_an_allowed_folder_may_be_reached_through_a_link(hub: Path) -> None:
    other = hub.parent / "other"
    other.symlink_to(hub, target_is_directory=True)
    assert load_model(other / "snapshots" / "x" / "m.onnx", data_root=other).to_bytes()
    assert load_model(other / "snapshots" / "x" / "m.onnx", data_root=hub).to_bytes()


@pytest.mark.parametrize("inner", ["snapshots", "snapshots/x", "blobs"])
def test_links_out_of_the_allowed_folder_are_refused(hub: Path, inner: str) -> None:
    model = hub / "snapshots" / "x" / "m.onnx"
    data = hub / "snapshots" / "x" / "weights.bin"
    if inner == "blobs":  # the model is there, the data is elsewhere
        outside = hub.parent / "secret.bin"
        data.resolve().rename(outside)
        data.unlink()
        data.symlink_to(outside)
    with pytest.raises(ModelError, match=r"leads out of .*folder that data is allowed in"):
        load_model(model, data_root=hub / inner)


def test_a_folder_that_leads_out_of_the_allowed_one_is_refused(hub: Path, folder: Path) -> None:
    """Neither the model's folder nor the data's may be a way out."""
    way = hub / "way"
    way.symlink_to(folder / "elsewhere", target_is_directory=True)
    _, path = external(dense(), folder / "elsewhere")
    with pytest.raises(ModelError, match="leads out of"):
        load_model(way / path.name, data_root=hub)
    proto = onnx.load(path, load_external_data=False)
    set_entry(proto.graph.initializer[0], "location", "way/weights.bin")
    with pytest.raises(ModelError, match="leads out of"):
        load_model(saved(proto, hub / "m.onnx"), data_root=hub)


def test_data_that_is_led_elsewhere_after_the_check_is_not_read(hub: Path, folder: Path) -> None:
    loaded = load_model(hub / "snapshots" / "x" / "m.onnx", data_root=hub)
    outside = folder / "secret.bin"
    outside.write_bytes(b"1" * 48)
    content = hub / "blobs" / "content-of-weights"
    content.unlink()
    content.symlink_to(outside)
    with pytest.raises(ValueError, match="outside"):
        loaded.to_bytes()


@pytest.mark.parametrize("location", ["../x/weights.bin", "/etc/passwd"])
def test_locations_still_must_be_below_the_model(hub: Path, location: str) -> None:
    proto = onnx.load(hub / "snapshots" / "x" / "m.onnx", load_external_data=False)
    set_entry(proto.graph.initializer[0], "location", location)
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(saved(proto, hub / "snapshots" / "x" / "n.onnx"), data_root=hub)


def test_hard_links_are_refused_in_an_allowed_folder_too(hub: Path) -> None:
    os.link(hub / "blobs" / "content-of-weights", hub.parent / "other.bin")
    with pytest.raises(ModelError, match="hard link"):
        load_model(hub / "snapshots" / "x" / "m.onnx", data_root=hub)


def test_what_is_allowed_must_be_a_folder(hub: Path) -> None:
    with pytest.raises(ModelError, match="is no folder"):
        load_model(hub / "snapshots" / "x" / "m.onnx", data_root=hub / "nowhere")
