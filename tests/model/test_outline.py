"""A symbol that has several sizes is an error only where the model could not be run with them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from coinfer.backends import get_backend
from coinfer.errors import InputError
from coinfer.machine.processor import Processor
from coinfer.model import Model, load_model, model_from_bytes
from coinfer.testing.models import model_from_text
from model.onnx_files import dense, saved, weight

CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))
Inputs = dict[str, np.ndarray]

SUM = "g (float[N,S] x, float[N,S] y) => (float[N,S] z) { z = Add(x, y) }"


def inputs(x: tuple[int, ...], y: tuple[int, ...]) -> Inputs:
    return {"x": np.ones(x, np.float32), "y": np.ones(y, np.float32)}


def run(model: Model, given: Inputs) -> Inputs:
    session = get_backend("onnxruntime").load(model, CPU)
    try:
        return dict(session.run(given))
    finally:
        session.close()


def test_sizes_that_operators_can_join_are_taken_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = model_from_text(SUM, name="net")
    for size in (3, 4):
        given = inputs((2, 1), (2, size))
        assert model.check_inputs(given) == 2
        assert run(model, given)["z"].shape == (2, size)
    [record] = caplog.records
    assert record.name == "coinfer.model.inputs"
    assert record.getMessage().startswith("model 'net': 'S' is 1 in axis 1 of 'x', 3 in axis 1 of ")


def test_sizes_that_an_operator_contradicts_are_an_error() -> None:
    model = model_from_text(SUM, name="net")
    with pytest.raises(InputError, match="'S' must have one size but is 2 in axis 1 of 'x', 3 in"):
        model.check_inputs(inputs((2, 2), (2, 3)))


def test_an_operator_inside_contradicts_too() -> None:
    model = model_from_text(
        "g (float[N,S] x, float[N,S] y) => (float[N,S] z) <float[9,9] a>"
        "{ a = Relu(x)  b = Exp(y)  c = Mul(a, b)  z = Neg(c) }",
        name="net",
    )
    assert model.check_inputs(inputs((2, 5), (2, 5))) == 2
    with pytest.raises(InputError, match="'S' must have one size"):
        model.check_inputs(inputs((2, 2), (2, 3)))


def test_inputs_that_do_not_meet_may_have_any_sizes() -> None:
    model = model_from_text(
        "g (float[N,S] x, float[N,S] y) => (float[N,S] a, float[N,S] b){ a = Relu(x)  b = Exp(y) }",
        name="net",
    )
    given = inputs((2, 5), (2, 7))
    assert model.check_inputs(given) == 2
    assert run(model, given)["b"].shape == (2, 7)


def test_what_nobody_can_infer_is_left_to_the_library() -> None:
    model = model_from_text(
        '<ir_version: 10, opset_import: ["": 20, "com.example": 1]>'
        "g (float[N,S] x, float[N,S] y) => (float[N,S] z) { z = com.example.Join(x, y) }",
        name="net",
    )
    assert model.check_inputs(inputs((2, 2), (2, 3))) == 2


def test_a_request_has_one_batch() -> None:
    model = model_from_text(SUM, name="net")
    with pytest.raises(InputError, match="'N' must have one size"):
        model.check_inputs(inputs((1, 3), (2, 3)))


def with_two_inputs() -> onnx.ModelProto:
    """x[N,S] @ w[4,3] + y[N,S], so that S is 4 of one and 3 or 1 of the other."""
    proto = dense()
    proto.graph.node[0].input[1] = "w"
    del proto.graph.node[1:]
    proto.graph.node.append(helper.make_node("Add", ["h", "y"], ["z"]))
    del proto.graph.input[:]
    del proto.graph.output[:]
    for name, place in (("x", proto.graph.input), ("y", proto.graph.input)):
        place.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", "S"]))
    proto.graph.output.append(
        helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", "S"])
    )
    return proto


def test_a_file_is_asked_as_a_graph_in_memory_is(tmp_path: Path) -> None:
    proto = with_two_inputs()
    for model in (
        load_model(saved(proto, tmp_path / "m.onnx")),
        model_from_bytes(proto.SerializeToString(), name="m"),
    ):
        assert model.check_inputs(inputs((2, 4), (2, 3))) == 2
        assert model.check_inputs(inputs((2, 4), (2, 1))) == 2


def test_an_outline_holds_no_weights(tmp_path: Path) -> None:
    proto = with_two_inputs()
    proto.graph.initializer[0].CopyFrom(weight(shape=(4, 3000)))
    model = load_model(saved(proto, tmp_path / "m.onnx"))
    assert len(pickle.dumps(model.outline)) < 1000
    assert pickle.loads(pickle.dumps(model)).check_inputs(inputs((2, 4), (2, 3000))) == 2


def test_a_model_without_shared_symbols_has_none(tmp_path: Path) -> None:
    assert load_model(saved(dense(), tmp_path / "m.onnx")).outline is None
