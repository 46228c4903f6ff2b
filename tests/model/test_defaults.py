"""Inputs with an initializer: defaults of what may be given, or weights that stay constants."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from coinfer.errors import InputError, ModelError
from coinfer.model import Model, load_model, model_from_bytes, model_from_ir
from model.onnx_files import saved

X = np.ones((2, 3), np.float32)

SHIFTED = """g (float[N,3] x, float[3] shift = {1, 2, 3}) => (float[N,2] y)
    <float[3,2] w = {1, 0, 0, 1, 0, 0}> { a = Add(x, shift)  y = MatMul(a, w) }"""

LISTED = """g (float[N,3] x, float[3,2] w = {1, 0, 0, 1, 0, 0}, float[2] b = {1, 2})
    => (float[N,2] y) { a = MatMul(x, w)  y = Add(a, b) }"""


def proto(text: str, *, ir_version: int = 8, **shapes: tuple[str | int, ...]) -> onnx.ModelProto:
    """Parse a model; the text format has no symbols in the shapes of inputs with a default."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : 17]>'
    made: onnx.ModelProto = parser.parse_model(header + text)
    for info in made.graph.input:
        if info.name in shapes:
            shaped = onnx.helper.make_tensor_value_info(info.name, 1, shapes[info.name])
            info.CopyFrom(shaped)
    return made


def model(text: str, *, ir_version: int = 8, **shapes: tuple[str | int, ...]) -> Model:
    made = proto(text, ir_version=ir_version, **shapes)
    return model_from_bytes(made.SerializeToString(), name="net")


def test_a_default_is_kept_beside_an_input_like_any_other() -> None:
    net = model(SHIFTED)
    assert [str(spec) for spec in net.inputs] == ["x: float32[N,3]", "shift: float32[3]"]
    assert net.defaults["shift"].tolist() == [1, 2, 3]
    assert list(net.graph.graph.initializers) == ["w"]
    assert (net.weight_bytes, net.batch_symbol) == (24, "N")
    assert pickle.loads(pickle.dumps(net)).defaults.keys() == {"shift"}
    with pytest.raises(ValueError, match="read-only"):
        net.defaults["shift"][0] = 5


def test_an_input_with_a_default_may_be_left_out() -> None:
    net = model(SHIFTED)
    assert net.check_inputs({"x": X}) == 2
    assert net.check_inputs({"x": X, "shift": X[0]}) == 2
    assert net.sample_inputs(batch=2)["shift"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"shift": X[0]}, r"missing 'x'; it takes x: float32\[N,3\], shift: .*\(optional\)"),
        ({"x": X, "other": X}, "inputs: unknown 'other'"),
        ({"x": X, "shift": None}, "no value for 'shift'"),
        ({"x": None}, "no value for 'x'"),
        ({"x": X, "shift": X}, r"input 'shift' takes shape \[3\] but got \[2, 3\]"),
    ],
)
def test_what_does_not_fit_is_named(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model(SHIFTED).check_inputs(inputs)


def test_a_default_alone_needs_no_weights_beside_it() -> None:
    net = model("g (float[N,3] x, float s = {2}) => (float[N,3] y) { y = Mul(x, s) }")
    assert net.defaults["s"].shape == ()
    assert net.check_inputs({"x": X, "s": np.array(3, np.float32)}) == 2


def test_the_size_of_a_default_does_not_bind_what_is_given() -> None:
    net = model(
        "g (float[N,3] x, float[1,3] s = {1, 1, 1}) => (float[N,3] y) { y = Mul(x, s) }",
        s=("N", 3),
    )
    assert net.batch_symbol == "N"
    assert net.check_inputs({"x": X}) == 2
    with pytest.raises(InputError, match="'N' must have one size"):
        net.check_inputs({"x": X, "s": X[:1]})


def test_a_symbol_of_an_optional_input_is_not_the_batch() -> None:
    net = model(
        "g (float[N,3] x, float[3] s = {1, 1, 1}) => (float[N,3] y) { y = Mul(x, s) }", s=("M",)
    )
    assert net.batch_symbol == "N"
    assert net.sample_inputs(batch=2)["s"].shape == (3,)


def test_unequal_sizes_beside_a_left_out_input_are_judged_by_the_operators() -> None:
    net = model(
        """g (float[N,S] a, float[N,S] b, float[1,2] c = {1, 1})
        => (float[N,S] y, float[N,S] z) { y = Add(a, c)  z = Neg(b) }""",
        c=("N", "S"),
    )
    inputs = {"a": np.ones((1, 2), np.float32), "b": np.ones((1, 4), np.float32)}
    assert net.check_inputs(inputs) == 1


def test_a_file_that_lists_its_weights_keeps_them_as_constants() -> None:
    net = model(LISTED)
    assert [spec.name for spec in net.inputs] == ["x"]
    assert not net.defaults
    message = "input 'b' cannot be given: its file lists weights as inputs.* out of graph.input"
    with pytest.raises(InputError, match=message):
        net.check_inputs({"x": X, "b": X[0, :2]})
    unlisted = proto(LISTED)
    del unlisted.graph.input[1:]
    plain = model_from_bytes(unlisted.SerializeToString(), name="net")
    assert net.fingerprint == plain.fingerprint


def test_what_a_tool_adds_to_such_a_file_does_not_make_its_weights_inputs() -> None:
    edited = proto(LISTED)
    edited.graph.initializer.append(onnx.numpy_helper.from_array(X[0, :2], "added"))
    edited.graph.node.append(onnx.helper.make_node("Mul", ["a", "added"], ["unused"]))
    more = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "v")
    edited.graph.initializer.append(more)
    edited.graph.input.append(onnx.helper.make_tensor_value_info("v", 1, [2, 2]))
    edited.graph.node.append(onnx.helper.make_node("MatMul", ["a", "v"], ["unused too"]))
    net = model_from_bytes(edited.SerializeToString(), name="net")
    assert [spec.name for spec in net.inputs] == ["x"]


def test_in_old_files_an_initializer_says_nothing_of_what_may_be_given() -> None:
    old = "g (float[N,3] x, float[3] s = {1, 2, 3}) => (float[N,3] y) { y = Mul(x, s) }"
    assert not model(old, ir_version=3).defaults
    with pytest.raises(InputError, match="save it with IR version 4 or later"):
        model(old, ir_version=3).check_inputs({"x": X, "s": X[0]})


def test_a_graph_in_memory_is_read_as_its_file() -> None:
    for text in (SHIFTED, LISTED):
        found = model_from_ir(ir.from_proto(proto(text)), name="net")
        assert found.fingerprint == model(text).fingerprint
        assert found.inputs == model(text).inputs
        assert found.fixed == model(text).fixed
        assert {n: v.tolist() for n, v in found.defaults.items()} == {
            n: v.tolist() for n, v in model(text).defaults.items()
        }


def test_a_default_may_be_in_another_file_and_of_any_type(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(proto(SHIFTED), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert load_model(path).defaults["shift"].tolist() == [1, 2, 3]
    texts = proto("g (string[N] x, string[2] s) => (string[N] y) { y = Identity(x) }")
    texts.graph.initializer.append(onnx.helper.make_tensor("s", 8, [2], [b"a", "ä".encode()]))
    assert load_model(saved(texts, tmp_path / "t.onnx")).defaults["s"].tolist() == ["a", "ä"]


def test_a_default_that_does_not_fit_its_input_is_refused() -> None:
    wrong = proto(SHIFTED)
    wrong.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(X[0, :2], "shift"))
    with pytest.raises(ModelError, match=r"'shift' takes float32\[3\] but its default is float32"):
        model_from_bytes(wrong.SerializeToString(), name="net")
