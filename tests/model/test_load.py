from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import coinfer.model
from coinfer.errors import ModelError
from coinfer.model import load_model, model_from_bytes, model_from_ir
from model.onnx_files import dense, external, model, saved, weight


def refusal(path: Path) -> str:
    """The one-sentence error that loading the file raises."""
    with pytest.raises(ModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_reads_specs_with_symbols(tmp_path: Path) -> None:
    loaded = load_model(saved(dense(), tmp_path / "net.onnx"))
    assert loaded.name == "net"
    assert [str(spec) for spec in loaded.inputs] == ["x: float32[N,4]"]
    assert [str(spec) for spec in loaded.outputs] == ["y: float32[N,3]"]
    assert loaded.batch_symbol == "N"
    assert loaded.weight_bytes == 4 * 3 * 4
    assert loaded.source == tmp_path / "net.onnx"


def test_name_can_be_given(tmp_path: Path) -> None:
    assert load_model(saved(dense(), tmp_path / "net.onnx"), name="mine").name == "mine"


def test_bytes_make_the_same_model_as_their_file(tmp_path: Path) -> None:
    path = saved(dense(), tmp_path / "net.onnx")
    from_file, from_bytes = load_model(path), model_from_bytes(path.read_bytes(), name="net")
    assert from_bytes.fingerprint == from_file.fingerprint
    assert (from_bytes.inputs, from_bytes.outputs) == (from_file.inputs, from_file.outputs)
    assert from_bytes.source is None


def test_bytes_are_checked_as_files_are() -> None:
    with pytest.raises(ModelError, match=r"^model 'net' is not an ONNX file, or is truncated"):
        model_from_bytes(dense().SerializeToString()[:-7], name="net")


def test_bytes_that_refer_to_a_file_are_refused(tmp_path: Path) -> None:
    proto, _ = external(dense(), tmp_path)
    with pytest.raises(ModelError, match=r"'w' keeps its data in another file.*load the model"):
        model_from_bytes(proto.SerializeToString(), name="net")


def test_unnamed_and_negative_sizes_are_unknown(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, -1, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, 4])
    proto = model([helper.make_node("Relu", ["x"], ["y"])], inputs=[info], outputs=[out])
    assert load_model(saved(proto, tmp_path / "m.onnx")).inputs[0].shape == (None, None, 4)


def test_an_input_with_an_initializer_is_not_asked_for(tmp_path: Path) -> None:
    proto = dense()
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    loaded = load_model(saved(proto, tmp_path / "m.onnx"))
    assert [spec.name for spec in loaded.inputs] == ["x"]


def test_strings_and_bfloat16_have_specs(tmp_path: Path) -> None:
    infos = [
        helper.make_tensor_value_info(name, kind, [1])
        for name, kind in (("s", TensorProto.STRING), ("b", TensorProto.BFLOAT16))
    ]
    outs = [
        helper.make_tensor_value_info(name, kind, [1])
        for name, kind in (("t", TensorProto.STRING), ("c", TensorProto.BFLOAT16))
    ]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("s", "t"), ("b", "c"))]
    loaded = load_model(saved(model(nodes, inputs=infos, outputs=outs), tmp_path / "m.onnx"))
    assert [spec.dtype_name for spec in loaded.inputs] == ["str", "bfloat16"]


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no.onnx")


def test_directory(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.touch()
    assert "is empty" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    os.mkfifo(path)
    assert "not a regular file" in refusal(path)


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(dense().SerializeToString()[:-40])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"PK\x03\x04" + b"\0" * 30, "zip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89HDF\r\n", "Keras"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b"<html></html>", "HTML"),
        (b"hello, this is text", "not an ONNX file"),
        (b"\xff" * 64, "not an ONNX file"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert word in refusal(path)


def test_no_graph(tmp_path: Path) -> None:
    proto = onnx.ModelProto(ir_version=8)
    assert "no graph" in refusal(saved(proto, tmp_path / "m.onnx"))


def test_graph_without_outputs(tmp_path: Path) -> None:
    proto = dense()
    del proto.graph.output[:]
    assert "no graph with outputs" in refusal(saved(proto, tmp_path / "m.onnx"))


def edited(edit: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    proto = dense()
    edit(proto)
    return proto


def too_new_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = onnx.defs.onnx_opset_version() + 1


def too_new_ml_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 999))


def too_new_ir(proto: onnx.ModelProto) -> None:
    proto.ir_version = onnx.IR_VERSION + 1


def too_old_ir(proto: onnx.ModelProto) -> None:
    proto.ir_version = 2


def no_opset(proto: onnx.ModelProto) -> None:
    del proto.opset_import[:]


def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "NoSuchOperator"


def undefined_value(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "nowhere"


def value_defined_twice(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].output[0] = "h"


def node_named_like_initializer(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].output[0] = "w"


def cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "y"


def two_initializers(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(weight(seed=9))


def sparse_initializer(proto: onnx.ModelProto) -> None:
    proto.graph.sparse_initializer.add()


def short_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data = b"\0" * 8


def negative_dimension(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -4


def huge_dimension(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = 2**60


def unknown_dtype(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = 99


def sequence_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1]))


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (too_new_opset, "unsupported opset"),
        (too_new_ml_opset, "unsupported opset 999 of ai.onnx.ml"),
        (too_new_ir, f"ONNX IR version {onnx.IR_VERSION + 1} is newer"),
        (too_old_ir, "is older"),
        (no_opset, "no operator set"),
        (unknown_operator, "NoSuchOperator"),
        (undefined_value, "nowhere"),
        (value_defined_twice, "not a valid model"),
        (node_named_like_initializer, "not a valid model"),
        (cycle, "not a valid model"),
        (two_initializers, "two initializers named 'w'"),
        (sparse_initializer, "sparse"),
        (short_weight, "48 bytes"),
        (negative_dimension, "not a valid model"),
        (huge_dimension, "damaged"),
        (unknown_dtype, "not a valid model"),
    ],
)
def test_each_defect_has_one_clear_error(
    tmp_path: Path, edit: Callable[[onnx.ModelProto], None], word: str
) -> None:
    assert word in refusal(saved(edited(edit), tmp_path / "m.onnx"))


def test_inputs_that_are_not_tensors_are_refused(tmp_path: Path) -> None:
    path = saved(edited(sequence_input), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="input 's' must be a tensor"):
        load_model(path)


def test_operators_of_other_domains_are_left_to_the_backend(tmp_path: Path) -> None:
    node = helper.make_node("FusedThing", ["x"], ["y"], domain="com.example")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 7)]
    proto = model([node], opset_imports=opsets)
    assert load_model(saved(proto, tmp_path / "m.onnx")).fingerprint.structure


def test_to_bytes_is_the_same_model(tmp_path: Path) -> None:
    loaded = load_model(saved(dense(), tmp_path / "a.onnx"))
    again = tmp_path / "b.onnx"
    again.write_bytes(loaded.to_bytes())
    assert load_model(again).fingerprint == loaded.fingerprint


def test_to_bytes_embeds_external_data(tmp_path: Path) -> None:
    _, path = external(dense(), tmp_path / "there")
    loaded = load_model(path)
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(loaded.to_bytes())
    assert load_model(alone).fingerprint == loaded.fingerprint
    assert not onnx.load(alone).graph.initializer[0].external_data


def test_to_bytes_refuses_what_protobuf_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(saved(dense(), tmp_path / "m.onnx"))
    monkeypatch.setattr("coinfer.model.content.PROTOBUF_LIMIT_BYTES", 16)
    with pytest.raises(ModelError, match=r"2 GiB.*float16"):
        loaded.to_bytes()


def test_a_file_beyond_the_protobuf_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # a hole: takes no disk space
    assert "external data" in refusal(path)


def test_model_from_ir_refuses_an_invalid_graph(tmp_path: Path) -> None:
    graph = load_model(saved(dense(), tmp_path / "m.onnx")).graph.clone()
    graph.graph[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="NoSuchOperator"):
        model_from_ir(graph, name="broken")


def test_model_from_ir_equals_the_loaded_file_and_leaves_its_graph_alone(tmp_path: Path) -> None:
    proto = dense()
    proto.graph.initializer[0].CopyFrom(weight(shape=(4, 300)))
    proto.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 300])
    )
    loaded = load_model(saved(proto, tmp_path / "m.onnx"))
    made = model_from_ir(loaded.graph.clone(), name="m")
    assert made.fingerprint == loaded.fingerprint
    assert made.inputs == loaded.inputs
    assert made.source is None
    assert list(made.graph.graph.initializers) == ["w"]


def test_importing_loads_no_heavy_library() -> None:
    code = (
        "import sys, coinfer.model\n"
        "print([name for name in ('onnx', 'onnx_ir', 'onnxruntime') if name in sys.modules])"
    )
    source = str(Path(coinfer.model.__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": source},
    )
    assert result.stdout.strip() == "[]"


def test_weights_survive_unchanged(tmp_path: Path) -> None:
    loaded = load_model(saved(dense(seed=5), tmp_path / "m.onnx"))
    kept = loaded.graph.graph.initializers["w"].const_value
    assert kept is not None
    expected = np.random.default_rng(5).standard_normal((4, 3), dtype=np.float32)
    np.testing.assert_array_equal(kept.numpy(), expected)
