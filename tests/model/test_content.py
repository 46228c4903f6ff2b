"""What a model from a file holds, and what it builds only when it is asked."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from coinfer import zoo
from coinfer.errors import ModelError
from coinfer.model import Model, load_model, model_from_bytes, model_from_ir
from coinfer.model.content import Content, Encoded, Summary
from coinfer.runtime.process_memory import process_memory
from model.onnx_files import dense, external, model, saved


def graphs() -> int:
    """How many graphs there are in this process."""
    gc.collect()
    return sum(isinstance(each, ir.Model) for each in gc.get_objects())


def test_no_graph_is_built_for_who_runs_a_model_from_a_file(tmp_path: Path) -> None:
    path = saved(dense(), tmp_path / "m.onnx")
    before = graphs()
    loaded = load_model(path)
    assert loaded.to_bytes() == path.read_bytes()
    assert loaded.check_inputs(loaded.sample_inputs(batch=2)) == 2
    assert loaded.weight_bytes == 48
    assert loaded.summary.op_types == {"MatMul", "LeakyRelu"}
    assert graphs() == before


def test_a_fingerprint_keeps_no_graph(tmp_path: Path) -> None:
    path = saved(dense(), tmp_path / "m.onnx")
    before = graphs()
    loaded = load_model(path)
    assert loaded.fingerprint.structure
    assert graphs() == before


def test_a_graph_is_built_once_whoever_asks(tmp_path: Path) -> None:
    loaded = load_model(saved(dense(), tmp_path / "m.onnx"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: loaded.graph, range(8)))
    assert {id(graph) for graph in found} == {id(loaded.graph)}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("is_built", [False, True])
def test_a_model_can_be_copied_and_pickled(
    tmp_path: Path, copied: Callable[[Model], Model], is_built: bool
) -> None:
    loaded = load_model(saved(dense(), tmp_path / "m.onnx"))
    if is_built:
        assert loaded.graph is not None
    other = copied(loaded)
    assert other.fingerprint == loaded.fingerprint
    assert other.content is not loaded.content
    assert other.check_inputs(loaded.sample_inputs(batch=2)) == 2


def test_nothing_depends_on_whether_the_graph_is_built(tmp_path: Path) -> None:
    [path] = zoo.export(["tiny_encoder"], tmp_path)  # with shapes inside, and metadata
    lazy, built = load_model(path), load_model(path)
    assert built.graph is not None
    assert lazy.summary == built.summary
    assert lazy.content.metadata == built.content.metadata != {}
    assert any(value.shape for node in built.graph.graph for value in node.outputs)
    assert lazy.fingerprint == built.fingerprint
    assert model_from_bytes(built.to_bytes(), name="m").fingerprint == lazy.fingerprint


def test_a_file_is_not_needed_once_it_is_loaded(tmp_path: Path) -> None:
    path = saved(dense(seed=3), tmp_path / "m.onnx")
    loaded = load_model(path)
    path.write_bytes(dense(seed=4).SerializeToString())
    assert loaded.fingerprint != load_model(path).fingerprint
    path.unlink()
    [weight] = [value.const_value for value in loaded.graph.graph.initializers.values()]
    assert weight is not None
    expected = np.random.default_rng(3).standard_normal((4, 3), dtype=np.float32)
    np.testing.assert_array_equal(weight.numpy(), expected)


def test_external_weights_count_without_being_read(tmp_path: Path) -> None:
    _, path = external(dense(), tmp_path / "there")
    loaded = load_model(path)
    assert loaded.weight_bytes == 48
    (tmp_path / "there" / "weights.bin").unlink()
    assert loaded.weight_bytes == 48


def test_what_is_in_branches_and_attributes_counts(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 4] x, bool c) => (float[N, 4] y) <float[4] w = {1.0, 2.0, 3.0, 4.0}> {
            y = If(c) <
                then_branch = t () => (float[N, 4] a) <int8[4] q = {1, 2, 3, 4}> {
                    k = Constant<value = float[2] {1.0, 2.0}>()
                    a = Mul(x, w)
                },
                else_branch = e () => (float[N, 4] b) { b = Relu(x) }
            >
        }
    """)
    lazy = load_model(saved(proto, tmp_path / "m.onnx"))
    assert lazy.summary.op_types == {"If", "Mul", "Constant", "Relu"}
    assert lazy.summary.weight_elements == {"FLOAT": 4}
    assert lazy.weight_bytes == 4 * 4 + 4 + 2 * 4
    assert model_from_ir(ir.from_proto(proto), name="m").summary == lazy.summary


def nothing_makes_the_output() -> onnx.ModelProto:
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in ("y", "z")]
    return model([helper.make_node("Relu", ["x"], ["y"])], outputs=outputs)


def test_an_output_that_nothing_makes_is_refused(tmp_path: Path) -> None:
    proto = nothing_makes_the_output()
    with pytest.raises(ModelError, match=r"'z' is not an output of any node"):
        load_model(saved(proto, tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"^model 'm' is not a valid graph: .*'z'"):
        model_from_ir(ir.from_proto(proto), name="m")


def test_a_function_that_calls_itself_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N, 4] x) => (float[N, 4] y) { y = local.f(x) }
        <opset_import: ["" : 17, "local" : 1], domain: "local">
        f (a) => (b) { b = local.f(a) }
    """)
    with pytest.raises(ModelError, match=r"local::f -> local::f"):
        load_model(saved(proto, tmp_path / "m.onnx"))


def test_what_cannot_be_read_as_a_graph_says_so_when_it_is_asked_for(tmp_path: Path) -> None:
    proto = dense()
    proto.graph.value_info.append(
        helper.make_tensor_value_info("h", TensorProto.FLOAT, ["rows", 3])
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString().replace(b"rows", b"row\xff"))  # not UTF-8
    loaded = load_model(path)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"^model file .*m\.onnx' is not a valid model"):
            _ = loaded.graph


@pytest.mark.parametrize("from_file", [True, False])
def test_a_paged_model_is_the_same_and_holds_none_of_its_bytes(
    from_file: bool, tmp_path: Path
) -> None:
    path = saved(dense(), tmp_path / "m.onnx")
    loaded = load_model(path)
    fingerprint = loaded.fingerprint
    if not from_file:
        loaded = model_from_ir(loaded.graph, name="m")
    content = loaded.content.paged(tmp_path)
    assert not list(tmp_path.glob("tmp*")), "its file has no name"
    assert content.to_bytes() == loaded.content.detached().to_bytes()
    assert content.summary == loaded.summary
    assert content.fingerprint == fingerprint
    assert content.paged(tmp_path) is content
    assert content.held_bytes == 0 < loaded.content.held_bytes
    again = pickle.loads(pickle.dumps(content))
    assert again.to_bytes() == content.to_bytes()
    assert ir.to_proto(content.graph).graph.node[0].op_type == "MatMul"


def test_reading_a_paged_model_leaves_nothing_of_it_in_memory(tmp_path: Path) -> None:
    before = process_memory()
    if before is None:
        pytest.skip("this system does not tell what is mapped")
    data = bytes(range(256)) * 2**17
    encoded = Encoded(data, {}, Summary(frozenset(), {}, len(data)), {}, "it")
    content = Content("m", encoded).paged(tmp_path)
    assert content.to_bytes() == data
    after = process_memory()
    assert after is not None
    assert after.mapped - before.mapped < len(data) / 4


def test_a_model_in_its_file_is_the_same_until_the_file_changes(tmp_path: Path) -> None:
    path = saved(dense(), tmp_path / "m.onnx")
    loaded = load_model(path)
    fingerprint = loaded.fingerprint
    content = loaded.content.in_file(path)
    assert content is not None
    assert content.to_bytes() == path.read_bytes()
    assert content.fingerprint == fingerprint
    assert content.summary == loaded.summary
    assert loaded.content.in_file(tmp_path / "other.onnx") is None
    assert model_from_ir(loaded.graph, name="m").content.in_file(path) is None
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"m\.onnx is not the file that it was"):
        content.to_bytes()
    path.unlink()
    with pytest.raises(ModelError, match="put the file back, or load the model again"):
        content.to_bytes()
