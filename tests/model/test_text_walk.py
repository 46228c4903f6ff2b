"""Text that is not UTF-8 is refused wherever a file holds it, and its place is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from coinfer.errors import ModelError
from coinfer.model import model_from_bytes
from coinfer.model.text_walk import broken_text


def _file() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Add", ["xxin", "wwin"], ["yyout"], name="nnode", doc_string="ddoc")],
        "ggraph",
        [helper.make_tensor_value_info("xxin", TensorProto.FLOAT, ["bbatch", 3])],
        [helper.make_tensor_value_info("yyout", TensorProto.FLOAT, ["bbatch", 3])],
        [numpy_helper.from_array(np.ones(3, np.float32), "wwin")],
    )
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(made, {"kkey": "vvalue"})
    return made.SerializeToString()


def test_text_is_fine() -> None:
    assert broken_text(onnx.load_from_string(_file())) == ""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("nnode", "NodeProto.name"),
        ("ggraph", "GraphProto.name"),
        ("bbatch", "Dimension.dim_param"),
        ("wwin", "NodeProto.input|TensorProto.name"),
        ("yyout", "NodeProto.output|ValueInfoProto.name"),
    ],
)
def test_what_is_no_text_is_named_with_its_place(text: str, place: str) -> None:
    damaged = _file().replace(text.encode(), text[:-1].encode() + b"\xff")
    # Some releases of protobuf refuse such a file as a whole, others hand the bytes out.
    refusal = rf"(({place}) b'.+ is not text in UTF-8; it is damaged|damaged)"
    with pytest.raises(ModelError, match=refusal):
        _ = model_from_bytes(damaged, name="m").graph


def test_what_people_wrote_may_be_in_any_encoding() -> None:
    damaged = _file().replace(b"vvalue", b"vvalu\xe9").replace(b"ddoc", b"ddo\xe9")
    model = model_from_bytes(damaged, name="m")
    assert model.metadata["kkey"].startswith("vvalu")
    assert model.graph.graph.num_nodes() == 1
