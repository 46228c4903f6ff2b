"""Dense layers whose weights are the left operand: the same sums, and nothing to prepare."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

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

CPU = Processor(name="p", backend="onnxruntime", units=frozenset({"core0"}))
SIZES = (700, 520, 401)
"""Of weights of 1.4 and 0.8 MiB: only the first layer is large, where 1 MiB is."""
LARGE = (4200, 2000, 401)
"""Of weights of 32 and 3 MiB: the first is large in another process, too."""


def layers(
    *,
    rows: str | int = "batch",
    turned: bool = True,
    bias: bool = True,
    shared: bool = False,
    sizes: tuple[int, ...] = SIZES,
) -> Model:
    """Make two dense layers with a Relu between them."""
    rng = np.random.default_rng(3)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([rows, sizes[0]]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 17}, name="layers")
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
    count = dense.weights_to_the_left(graph)
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
    for batch in (1, 2, 7) if rows == "batch" else (1,):
        inputs = model.sample_inputs(batch=batch)
        expected, got = one.run(inputs), two.run(inputs)
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            assert value.shape == got[name].shape
            # 700 products of fp32 in another order
            assert np.linalg.norm(value - got[name]) <= 2e-6 * np.linalg.norm(value)
    one.close()
    two.close()


def test_what_has_many_rows_or_small_weights_or_an_unknown_size_stays() -> None:
    assert edited(layers(rows=65))[1] == 0
    assert edited(layers(rows=64))[1] == 1
    model = layers()
    assert dense.weights_to_the_left(model.graph.clone()) == 1
    unknown = model.graph.clone()
    unknown.graph.inputs[0].shape = None
    assert dense.weights_to_the_left(unknown) == 0


@pytest.mark.parametrize(("width", "swapped"), [(2048, 0), (2896, 0), (2897, 1)])
def test_weights_that_are_prepared_soon_stay_at_the_right(
    width: int, swapped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With them to the left a run of two rows would take as long as one of sixteen."""
    monkeypatch.undo()
    graph = layers().graph.clone()
    [weight] = [v for v in graph.graph.initializers.values() if v.name == "w0"]
    weight.const_value = ir.tensor(np.zeros((width, width), np.float32), name="w0")
    graph.graph.initializers["b0"].const_value = ir.tensor(np.zeros(width, np.float32), name="b0")
    assert dense.weights_to_the_left(graph) == swapped


def test_weights_are_in_the_artefact_once() -> None:
    model = layers(sizes=LARGE)
    backend = get_backend("onnxruntime")
    prepare(backend, model, CPU)
    [entry] = default_store().entries()
    small = 4 * LARGE[1] * LARGE[2]  # has both forms
    assert model.weight_bytes <= entry.size < model.weight_bytes + small + 2**18
    opened = backend.load(model, CPU)
    assert opened.lease is not None
    direct = backend.load(edited(model)[0], CPU)
    plain_operators = opened.placement().operators
    assert sum(plain_operators.values()) == 3  # as the model has them
    assert is_near(model, direct, opened)
    opened.close()
    direct.close()


def test_without_large_layers_there_is_one_session_to_write_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once more with nothing swapped, it would take as long again, and runs to compare."""
    monkeypatch.undo()  # 32 MiB are large
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
    def wrong(graph: ir.Model) -> int:
        for value in graph.graph.initializers.values():
            if value.name == "b0":
                value.const_value = ir.tensor(np.zeros(SIZES[1], np.float32), name="b0")
        return 1

    monkeypatch.setattr(dense, "weights_to_the_left", wrong)
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
