"""Dense layers as convolutions in blocks of channels: the same sums, and nothing to prepare."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import coinfer.artefacts.store
from coinfer.artefacts import default_store
from coinfer.backends import artefact_parts, get_backend
from coinfer.backends.artefact_check import is_near
from coinfer.backends.artefact_making import prepare
from coinfer.machine.processor import Processor
from coinfer.model import Model, model_from_ir

dense = pytest.importorskip("coinfer.backends.onnxruntime.dense", exc_type=ImportError)
compiling = pytest.importorskip("coinfer.backends.onnxruntime.compiling", exc_type=ImportError)
packing = pytest.importorskip("coinfer.backends.onnxruntime.packing", exc_type=ImportError)
pytestmark = pytest.mark.skipif(
    not packing.block_size(), reason="convolutions of this processor are not in blocks"
)

CPU = Processor(name="p", backend="onnxruntime", units=frozenset({"core0"}))
SIZES = (700, 520, 401)
"""Of weights of 1.4 and 0.8 MiB: only the first layer is large, where 1 MiB is."""
LARGE = (1500, 2000, 401)
"""Of weights of 11 and 3 MiB: both are large in another process, too."""


def layers(
    *,
    rows: str | int = "batch",
    opset: int = 17,
    turned: bool = True,
    bias: bool = True,
    shared: bool = False,
    sizes: tuple[int, ...] = SIZES,
) -> Model:
    """Make two dense layers with a Relu between them."""
    rng = np.random.default_rng(3)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([rows, sizes[0]]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": opset}, name="layers")
    value = x
    for number, (before, after) in enumerate(pairwise(sizes)):
        shape = (after, before) if turned else (before, after)
        arrays = {f"w{number}": rng.standard_normal(shape, np.float32) / np.float32(before**0.5)}
        if bias:
            arrays[f"b{number}"] = rng.standard_normal(after, np.float32)
        given = [
            ir.val(n, ir.DataType.FLOAT, a.shape, const_value=ir.tensor(a, name=n))
            for n, a in arrays.items()
        ]
        for each in given:
            graph.register_initializer(each)
        node = ir.node("Gemm", [value, *given], {"transB": int(turned)})
        graph.append(node)
        if not number:
            last = ir.node("Relu", [node.outputs[0]])
            graph.append(last)
            if shared:
                graph.append(ir.node("Neg", [given[0]], name="reader"))
                other = graph[-1].outputs[0]
                other.name, other.type = "other", x.type
                other.shape = ir.Shape(shape)
                graph.outputs.append(other)
            value = last.outputs[0]
    [made] = node.outputs
    made.name, made.type, made.shape = "y", x.type, ir.Shape([rows, sizes[-1]])
    graph.outputs.append(made)
    return model_from_ir(ir.Model(graph, ir_version=8), name="layers")


def edited(model: Model) -> tuple[Model, int]:
    """Edit a copy of a graph whose values have shapes."""
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model.graph))
    graph = ir.from_proto(proto)
    count = dense.dense_to_convolutions(graph, packing.block_size())
    return model.with_graph(graph), count


@pytest.fixture(autouse=True)
def all_models_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COINFER_ARTEFACTS")
    monkeypatch.setattr(artefact_parts, "LEAST_WEIGHT_BYTES", 0)
    monkeypatch.setattr(dense, "_LEAST_WEIGHT_BYTES", 2**20)
    monkeypatch.setattr(coinfer.artefacts.store, "_warned", set())


@pytest.mark.parametrize("rows", ["batch", 1, 5])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_an_edited_graph_computes_the_same(
    rows: str | int, *, turned: bool, bias: bool, shared: bool
) -> None:
    model = layers(rows=rows, turned=turned, bias=bias, shared=shared)
    before = model.graph
    other, count = edited(model)
    assert count == 1
    assert [node.op_type for node in before.graph] == [
        node.op_type for node in model.graph.graph
    ]  # the graph that was given stays as it is
    backend = get_backend("onnxruntime")
    one, two = backend.load(model, CPU), backend.load(other, CPU)
    for batch in (1, 2, 7, 70) if rows == "batch" else (1,):
        inputs = model.sample_inputs(batch=batch)
        expected, got = one.run(inputs), two.run(inputs)
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            assert value.shape == got[name].shape
            # 700 products of fp32 in another order
            assert np.linalg.norm(value - got[name]) <= 2e-6 * np.linalg.norm(value)
    one.close()
    two.close()


def test_no_rows_are_no_rows() -> None:
    backend = get_backend("onnxruntime")
    with closing(backend.load(edited(layers())[0], CPU)) as session:
        found = session.run({"x": np.zeros((0, SIZES[0]), np.float32)})
    assert found["y"].shape == (0, SIZES[2])


TRANSFORMER = """
agraph (float[batch, S, 512] x) => (float[batch, S, 512] y, float[batch, S, 1024] middle)
    <float[512, 512] q, float[512, 512] k, float[512] bq, float[512, 1024] w, float[1024] b,
     float[1024, 512] v>
{
    a = MatMul(x, q)
    c = MatMul(x, k)
    d = Add(c, bq)
    e = Mul(a, d)
    f = MatMul(e, w)
    middle = com.microsoft.BiasGelu(f, b)
    g = MatMul(middle, v)
    y = Add(g, x)
}
"""


def transformer(*, keeps_middle: bool) -> ir.Model:
    """Make what a transformer has of dense layers, with all that can follow one."""
    text = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>' + TRANSFORMER
    if not keeps_middle:
        text = text.replace(", float[batch, S, 1024] middle)", ")")
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(4)
    for value in list(proto.graph.value_info):
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = rng.standard_normal(shape, np.float32) / np.float32(shape[0] ** 0.5)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del proto.graph.value_info[:]
    return ir.from_proto(proto)


@pytest.mark.parametrize("keeps_middle", [True, False])
def test_what_follows_a_product_becomes_part_of_it(keeps_middle: bool) -> None:
    model = model_from_ir(transformer(keeps_middle=keeps_middle), name="t")
    graph = model.graph.clone()
    assert dense.dense_to_convolutions(graph, packing.block_size()) == 4
    kinds = Counter(node.op_type for node in graph.graph)
    # x comes into blocks once for two layers; what is between the last two stays there.
    assert kinds["ReorderInput"] == 2
    assert kinds["ReorderOutput"] == 3 + keeps_middle
    assert kinds["Add"] == 1  # that of x
    assert not {"MatMul", "BiasGelu"} & kinds.keys()
    assert all(value.uses() for value in graph.graph.initializers.values())
    backend = get_backend("onnxruntime")
    one, two = backend.load(model, CPU), backend.load(model.with_graph(graph), CPU)
    for batch, length in ((1, 1), (1, 37), (5, 8), (0, 3), (2, 0)):
        inputs = {"x": np.random.default_rng(1).standard_normal((batch, length, 512), np.float32)}
        expected, got = one.run(inputs), two.run(inputs)
        for name, value in expected.items():
            assert value.shape == got[name].shape
            # 1,024 products of fp32 in another order
            assert np.linalg.norm(value - got[name]) <= 2e-6 * np.linalg.norm(value)
    one.close()
    two.close()


def test_a_bias_for_each_place_stays_an_operator_of_its_own() -> None:
    ir_model = transformer(keeps_middle=True)
    bias = ir_model.graph.initializers["bq"]
    bias.const_value = ir.tensor(np.ones((1, 1, 1, 512), np.float32), name="bq")
    bias.shape = ir.Shape((1, 1, 1, 512))  # the sum has an axis more than the product
    dense.dense_to_convolutions(ir_model, packing.block_size())
    assert Counter(node.op_type for node in ir_model.graph)["Add"] == 2


def test_what_is_small_or_of_other_numbers_or_operators_stays() -> None:
    block = packing.block_size()
    assert edited(layers(sizes=(512, 511, 512)))[1] == 0  # below 1 MiB
    assert edited(layers(sizes=(702, 520, 401)))[1] == 0  # no multiple of four
    assert edited(layers(opset=11))[1] == 0
    assert edited(layers(opset=12))[1] == 1
    assert dense.dense_to_convolutions(layers().graph.clone(), block) == 1
    assert dense.dense_to_convolutions(layers().graph.clone(), 0) == 0
    for attribute in (ir.AttrInt64("transA", 1), ir.AttrString("activation", "Elu")):
        graph = layers().graph.clone()
        node = graph.graph[0]
        node.op_type, node.domain = "FusedGemm", "com.microsoft"
        node.attributes.add(attribute)
        assert dense.dense_to_convolutions(graph, block) == 0


@pytest.mark.parametrize("function", ["Relu", "Tanh", "Sigmoid"])
def test_factors_and_functions_are_kept(function: str) -> None:
    model = layers()
    graph = model.graph.clone()
    graph.graph.opset_imports["com.microsoft"] = 1
    node = graph.graph[0]
    node.op_type, node.domain = "FusedGemm", "com.microsoft"
    node.attributes.add(ir.AttrString("activation", function))
    node.attributes.add(ir.AttrFloat32("alpha", 0.5))
    node.attributes.add(ir.AttrFloat32("beta", 2.0))
    before = model.with_graph(graph.clone())
    assert dense.dense_to_convolutions(graph, packing.block_size()) == 1
    backend = get_backend("onnxruntime")
    one, two = backend.load(before, CPU), backend.load(model.with_graph(graph), CPU)
    assert is_near(model, one, two)
    one.close()
    two.close()


def test_weights_are_in_the_artefact_once() -> None:
    model = layers(sizes=LARGE)
    backend = get_backend("onnxruntime")
    prepare(backend, model, CPU)
    [entry] = default_store().entries()
    filled_up = 4 * LARGE[1] * packing.block_size()  # the last block of outputs
    assert model.weight_bytes <= entry.size < model.weight_bytes + filled_up + 2**18
    opened = backend.load(model, CPU)
    assert opened.lease is not None
    direct = backend.load(edited(model)[0], CPU)
    plain_operators = opened.placement().operators
    assert sum(plain_operators.values()) == 3  # as the model has them
    assert is_near(model, direct, opened)
    opened.close()
    direct.close()


def test_weights_never_pass_through_a_message_that_holds_2_gib(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    create, sizes = compiling.create, list[int]()

    def noted(source: bytes | str, *args: Any) -> Any:
        if isinstance(source, str) and Path(source).stem == "blocked":
            sizes.append(Path(source).stat().st_size)
        return create(source, *args)

    monkeypatch.setattr(compiling, "create", noted)
    made = get_backend("onnxruntime").make_artefact(layers(sizes=LARGE), CPU, tmp_path)
    assert made.refused == ""
    [size] = sizes
    assert size < 2**17  # the graph, and no weights


def test_without_large_layers_there_is_one_session_to_write_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once more with nothing changed, it would take as long again, and runs to compare."""
    monkeypatch.setattr(dense, "_LEAST_WEIGHT_BYTES", 2**25)
    backend, model = get_backend("onnxruntime"), layers()
    monkeypatch.setattr("coinfer.backends.onnxruntime.backend.is_near", None)
    made = backend.make_artefact(model, CPU, tmp_path)
    assert made.refused == ""
    kept = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert [node.op_type for node in kept.graph.node] == ["FusedGemm", "Gemm"]
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "weights.bin"}


def test_what_does_not_compute_the_same_is_kept_as_the_library_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wrong(graph: ir.Model, _block: int) -> int:
        for value in graph.graph.initializers.values():
            if value.name == "b0":
                value.const_value = ir.tensor(np.zeros(SIZES[1], np.float32), name="b0")
        return 1

    monkeypatch.setattr(dense, "dense_to_convolutions", wrong)
    backend = get_backend("onnxruntime")
    model = layers()
    folder = tmp_path / "made"
    folder.mkdir()
    made = backend.make_artefact(model, CPU, folder)
    assert made.refused == ""
    kept = onnx.load(folder / "model.onnx", load_external_data=False)
    assert [node.op_type for node in kept.graph.node] == ["FusedGemm", "Gemm"]


def test_rounding_is_near_and_anything_else_is_not() -> None:
    class Fixed:
        def __init__(self, value: np.ndarray) -> None:
            self.value = value

        def run(self, inputs: object) -> dict[str, np.ndarray]:
            return {"y": self.value}

    model, one = layers(), np.linspace(1, 2, 100, dtype=np.float32)

    def near(value: np.ndarray, other: np.ndarray) -> bool:
        return is_near(model, Fixed(value), Fixed(other))  # type: ignore[arg-type]

    assert near(one, one * np.float32(1 + 1e-6))
    assert not near(one, one * np.float32(1 + 1e-4))
    assert not near(one, one[:50])
    assert not near(one, one.astype(np.float64))
    assert near(np.arange(3), np.arange(3))
    assert not near(np.arange(3), np.arange(1, 4))
    hole = one.copy()
    hole[3] = np.nan
    assert near(hole, hole.copy())
    assert not near(hole, one)
    assert not near(one, hole)
