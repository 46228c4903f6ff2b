from __future__ import annotations

import os
import time
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from coinfer.backends.source import source_of
from coinfer.errors import ModelError
from coinfer.model import load_model, model_from_bytes
from coinfer.model.tensor_walk import find_tensors
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
    with pytest.raises(ModelError, match="cannot be read any more"):
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


def as_external(name: str, location: str = "weights.bin") -> onnx.TensorProto:
    tensor = weight(name)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    set_entry(tensor, "location", location)
    return tensor


def messages_of(root: onnx.ModelProto) -> dict[str, object]:
    """Descriptors of all messages that a model can hold, by name."""
    found: dict[str, object] = {}
    left = [root.DESCRIPTOR]
    while left:
        one = left.pop()
        if one.full_name not in found:
            found[one.full_name] = one
            left += [field.message_type for field in one.fields if field.message_type]
    return found


def ways_to_a_tensor() -> list[tuple[str, ...]]:
    """By the schema alone: every way of fields to a tensor that meets no field twice."""
    ways: list[tuple[str, ...]] = []

    def follow(descriptor: object, way: tuple[str, ...], fields: frozenset[str]) -> None:
        for field in descriptor.fields:  # type: ignore[attr-defined]
            if field.message_type is None or field.full_name in fields:
                continue
            if field.message_type.full_name == "onnx.TensorProto":
                ways.append((*way, field.name))
            else:
                follow(field.message_type, (*way, field.name), fields | {field.full_name})

    follow(onnx.ModelProto.DESCRIPTOR, (), frozenset())
    return ways


def planted(way: tuple[str, ...], tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = dense()
    message: object = proto
    for name in way:
        value = getattr(message, name)
        if hasattr(value, "add"):
            value.add()
            value = value[-1]
        message = value
    message.CopyFrom(tensor)  # type: ignore[attr-defined]
    return proto


@pytest.mark.parametrize("way", ways_to_a_tensor(), ids=".".join)
def test_a_reference_out_is_refused_wherever_the_format_can_hold_one(
    way: tuple[str, ...], folder: Path
) -> None:
    """Not by way of the current folder either, and before any library sees it."""
    proto = planted(way, as_external("hidden", "../secret.bin"))
    folder.mkdir()
    (folder.parent / "secret.bin").write_bytes(b"\0" * 48)
    for load in (
        lambda: load_model(saved(proto, folder / "m.onnx")),
        lambda: model_from_bytes(proto.SerializeToString(), name="m"),
    ):
        with pytest.raises(ModelError, match=r"external data of|in another file|sparse init"):
            load()


def test_the_walk_knows_every_place_of_the_schema() -> None:
    ways = ways_to_a_tensor()
    assert ("functions", "attribute_proto", "t") in ways
    assert ("graph", "sparse_initializer", "values") in ways
    for way in ways:
        tensors = find_tensors(planted(way, weight("hidden"))).tensors
        assert "hidden" in {tensor.name for tensor in tensors}, way


def default_of_a_function(location: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[N] x) => (float[N] y) { y = own.scale(x) }
        <domain: "own", opset_import: ["" : 17]>
        scale (a) => (b) { b = Relu(a) }
    """)
    attribute = proto.functions[0].attribute_proto.add(
        name="k", type=onnx.AttributeProto.TENSOR, t=as_external("k", location)
    )
    assert attribute.t.external_data
    return proto


def test_a_default_of_a_function_is_not_read_from_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"\0" * 48)
    monkeypatch.chdir(folder)
    path = saved(default_of_a_function("weights.bin"), folder / "m.onnx")
    with pytest.raises(ModelError, match="only initializers and constants"):
        load_model(path)


def test_a_link_put_in_between_the_check_and_the_reading_does_not_win(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = external(dense(), folder)
    outside = folder.parent / "secret.bin"
    outside.write_bytes(b"1" * 48)

    def swap(*_: object) -> None:
        (folder / "weights.bin").unlink()
        (folder / "weights.bin").symlink_to(outside)

    monkeypatch.setattr("coinfer.model.external._check_links", swap)
    assert "a link is on the way" in refusal(path)


def test_a_folder_swapped_for_a_link_does_not_win(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_entry(folder, "location", "data/weights.bin")
    (folder / "data").mkdir()
    (folder / "weights.bin").rename(folder / "data" / "weights.bin")
    secrets = folder.parent / "secrets"
    secrets.mkdir()
    (secrets / "weights.bin").write_bytes(b"1" * 48)

    def swap(*_: object) -> None:
        (folder / "data").rename(folder / "aside")
        (folder / "data").symlink_to(secrets, target_is_directory=True)

    monkeypatch.setattr("coinfer.model.external._check_links", swap)
    assert "a link is on the way" in refusal(path)


USES = {
    "to_bytes": lambda loaded: loaded.to_bytes(),
    "fingerprint": lambda loaded: loaded.fingerprint,
    "graph": lambda loaded: loaded.graph.graph.initializers["w"].const_value.numpy(),
    "check": lambda loaded: loaded.content.check_files(),
}


@pytest.mark.parametrize("as_link", [True, False])
@pytest.mark.parametrize("use", USES)
def test_data_swapped_after_the_model_was_loaded_is_not_read(
    folder: Path, use: str, as_link: bool
) -> None:
    _, path = external(dense(), folder)
    loaded = load_model(path)
    other = folder / "other.bin"
    other.write_bytes(b"1" * 48)
    if as_link:
        (folder / "weights.bin").unlink()
        (folder / "weights.bin").symlink_to(other)
    else:
        other.replace(folder / "weights.bin")
    with pytest.raises(ModelError, match="load the model again"):
        USES[use](loaded)


@pytest.mark.parametrize("swapped", ["weights.bin", "m.onnx"])
def test_a_path_is_given_to_a_library_only_if_its_files_are_those_that_were_checked(
    folder: Path, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coinfer.model.content.PROTOBUF_LIMIT_BYTES", 40)
    _, path = external(dense(), folder)
    loaded = load_model(path)
    source, check = source_of(loaded)
    assert source == str(path)
    check()
    (folder / "other.bin").write_bytes((folder / swapped).read_bytes())
    (folder / "other.bin").replace(folder / swapped)
    with pytest.raises(ModelError, match="load the model again"):
        check()
    with pytest.raises(ModelError, match="load the model again"):
        source_of(loaded)


@pytest.mark.parametrize("use", USES)
def test_data_written_again_in_place_is_not_read(folder: Path, use: str) -> None:
    _, path = external(dense(), folder)
    loaded = load_model(path)
    (folder / "weights.bin").write_bytes(b"1" * 48)
    os.utime(folder / "weights.bin", ns=(0, 0))  # however coarse the clock of the disk is
    with pytest.raises(ModelError, match="load the model again"):
        USES[use](loaded)


@pytest.mark.parametrize("swapped", ["weights.bin", "m.onnx"])
def test_files_that_were_swapped_only_while_a_library_read_them_are_noticed(
    folder: Path, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coinfer.model.content.PROTOBUF_LIMIT_BYTES", 40)
    _, path = external(dense(), folder)
    _, check = source_of(load_model(path))
    time.sleep(0.02)  # more than a tick of the clock of the disk
    (folder / swapped).rename(folder / "aside")
    (folder / swapped).write_bytes((folder / "aside").read_bytes())
    (folder / "aside").replace(folder / swapped)
    with pytest.raises(ModelError, match="changed while a library read them; load the model"):
        check()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_model_file_swapped_for_a_fifo_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    os.mkfifo(folder / "m.onnx")
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    with pytest.raises(ModelError, match="no regular file"):
        load_model(folder / "m.onnx")


@pytest.mark.parametrize("dtype", ["int4", "uint8", "float16", "bfloat16", "float", "int64"])
def test_every_kind_of_external_number_is_read_as_it_is_stored(folder: Path, dtype: str) -> None:
    kind = onnx.TensorProto.DataType.Value(dtype.upper())
    values = helper.make_tensor("k", kind, [3, 2], [1, 2, 3, 4, 5, 6])
    stored = numpy_helper.to_array(values)
    node = helper.make_node("Identity", ["k"], ["y"])
    proto = model(
        [node],
        inputs=[helper.make_tensor_value_info("x", kind, [1])],
        outputs=[helper.make_tensor_value_info("y", kind, [3, 2])],
        initializers=[values],
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    raw = ir.serde.deserialize_tensor(values).tobytes()
    tensor = proto.graph.initializer[0]
    for field in ("raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    set_entry(tensor, "location", "k.bin")
    set_entry(tensor, "offset", "3")
    folder.mkdir()
    (folder / "k.bin").write_bytes(b"abc" + raw)
    loaded = load_model(saved(proto, folder / "m.onnx"))
    read = loaded.graph.graph.initializers["k"].const_value
    assert read.tobytes() == raw
    assert (read.numpy() == stored).all()
    alone = onnx.load_from_string(loaded.to_bytes()).graph.initializer[0]
    assert ir.serde.deserialize_tensor(alone).tobytes() == raw
