"""Whatever a graph looks like, its cost is a count or unknown, and no exception."""

from __future__ import annotations

import json
import random
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from cli.program import Program
from coinfer.errors import ModelError
from coinfer.graph.cost import operator_costs, total
from coinfer.graph.operators import Operators
from coinfer.graph.shapes import bind_shapes
from coinfer.graph.weights import stored_weights
from graph.mutations import models, mutated

N_SEEDS = 12
N_EACH = 40


@pytest.mark.parametrize("seed", range(N_SEEDS))
def test_mutated_models_are_counted_or_unknown(seed: int) -> None:
    chance, originals, counted = random.Random(seed), models(), 0
    for _ in range(N_EACH):
        proto = mutated(chance.choice(originals), chance, chance.choice((1, 1, 2, 3)))
        try:
            model = ir.from_proto(proto)
        except Exception:  # noqa: BLE001 - `onnx_ir` cannot read it: there is nothing to count
            continue
        counted += 1
        sums = total(operator_costs(model), stored_weights(model))
        assert sums.parameters >= 0
        assert sums.known_macs >= 0
        try:
            Operators.of(model)
        except ModelError:
            continue
    assert counted > N_EACH / 2


@pytest.mark.parametrize("seed", range(3))
def test_inspect_shows_them_or_says_in_one_line_what_is_wrong(seed: int, program: Program) -> None:
    chance, originals, path = random.Random(seed), models(), program.folder / "m.onnx"
    for _ in range(N_EACH):
        proto = mutated(chance.choice(originals), chance, chance.choice((0, 1, 1, 2)))
        path.write_bytes(proto.SerializeToString())
        outcome = program("inspect", path, "--json", "-")
        if outcome.status:
            assert outcome.status == 2, outcome
            assert outcome.complaint
        else:
            assert json.loads(outcome.out)["known_macs"] >= 0


def cost_of(op_type: str, shapes: list[list[int]], **attributes: object):
    names = [f"i{at}" for at in range(len(shapes))]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip(names, shapes, strict=True)
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
    node = helper.make_node(op_type, names, ["y"], **attributes)
    proto = helper.make_model(helper.make_graph([node], "g", inputs, [output]))
    return operator_costs(ir.from_proto(proto))[0]


@pytest.mark.parametrize(
    ("op_type", "shapes", "attributes"),
    [
        ("MatMul", [[], [2, 2]], {}),
        ("MatMul", [], {}),
        ("Gemm", [[4], [4, 2]], {}),
        ("Gemm", [[2, 2], [2, 2]], {"transA": "text"}),
        ("Conv", [[1, 1, 4, 4]], {}),
        ("QLinearConv", [[1, 1, 4, 4]] * 2, {}),
        ("LSTM", [[2, 2, 2]], {}),
        ("Attention", [[], []], {}),
        ("Einsum", [[2, 2]], {"equation": 7}),
        ("Einsum", [[2, 2]], {"equation": "ij,jk->ik"}),
        ("If", [], {"then_branch": 3}),
        ("Loop", [], {"body": "text"}),
        ("Scan", [], {"body": 1.5}),
        ("If", [], {"then_branch": helper.make_graph([], "t", [], [])}),
        ("Scan", [], {"body": helper.make_graph([], "b", [], []), "num_scan_inputs": 9}),
    ],
    ids=lambda value: str(value)[:24],
)
def test_an_operator_whose_inputs_or_attributes_are_not_its_own_is_unknown(
    op_type: str, shapes: list[list[int]], attributes: dict[str, object]
) -> None:
    known = {"If", "Loop", "Scan"}
    macs = cost_of(op_type, shapes, **attributes).macs
    assert macs is None or (op_type in known and macs == 0)


def test_what_has_no_type_has_no_size() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.UNDEFINED, [2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.UNDEFINED, [2, 2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    weight = onnx.TensorProto(name="w", dims=[3])
    graph.initializer.append(weight)
    model = ir.from_proto(helper.make_model(graph))
    [cost] = operator_costs(model)
    assert (cost.input_bytes, cost.macs) == (None, 0)
    sums = total([cost], stored_weights(model))
    assert (sums.parameters, sums.weight_bytes) == (3, None)


def test_a_function_of_another_opset_is_unknown_and_cannot_be_put_in_place() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 23, "my": 1]>
        g (float[2,3] x, float[3,4] z) => (float[2,4] y) { q = my.f(x)  y = MatMul(q, z) }
        <domain: "my", opset_import: ["": 20]> f (a) => (b) { b = Relu(a) }"""
    )
    model = ir.from_proto(proto)
    called, product = operator_costs(model)
    assert called.macs is None
    assert product.macs is None or product.macs == 24
    assert stored_weights(model) == ()
    with pytest.raises(ModelError, match="functions cannot be put in place"):
        Operators.of(model)


def test_shapes_of_a_call_that_gives_too_much_are_refused_in_one_line() -> None:
    model = ir.from_proto(
        onnx.parser.parse_model(
            """<ir_version: 10, opset_import: ["": 20, "my": 1]>
            g (float[2,3] x) => (float[2,3] y) { y = my.f(x, x) }
            <domain: "my", opset_import: ["": 20]> f (a) => (b) { b = Relu(a) }"""
        )
    )
    with pytest.raises(ModelError, match=r"graph 'g': its shapes cannot be inferred: .+inlined"):
        bind_shapes(model)
    [cost] = operator_costs(model)
    assert cost.macs is None


@pytest.mark.parametrize("outside", [False, True])
def test_references_to_attributes_are_no_problem(program: Program, outside: bool) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20, "my": 1]>
        g (float[2,3] x) => (float[3,3] y) { y = my.f<turned = 1>(x) }
        <domain: "my", opset_import: ["": 20]> f <turned> (a) => (b)
        { b = Gemm<transA: int = @turned>(a, a) }"""
    )
    if outside:  # then nothing says what it refers to
        node = proto.graph.node.add(op_type="Gemm", input=["x", "x"], output=["z"])
        node.attribute.append(proto.functions[0].node[0].attribute[0])
    path = program.folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    outcome = program("inspect", path, "--json", "-")
    assert outcome.status == 0, outcome
    assert json.loads(outcome.out)["known_macs"] >= 18


@pytest.fixture
def program(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Program:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    return Program(capsys, tmp_path)
