"""Operators cost what their shapes say, unknown stays unknown, and shared weights count once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coinfer.errors import UnknownNameError
from coinfer.graph.cost import OperatorCost, TensorSize, operator_costs, total
from coinfer.graph.shapes import bind_shapes

HEADER = '<ir_version: 10, opset_import: ["": 20, "com.example": 1]>'


def parse(body: str) -> ir.Model:
    return ir.from_onnx_text(f"{HEADER}\n{body}")


def macs(body: str, **options) -> int | None:
    (cost,) = operator_costs(parse(body), **options)
    return cost.macs


def with_initializers(body: str, **arrays: np.ndarray) -> ir.Model:
    """Turn graph inputs into stored weights."""
    model = parse(body)
    for value in list(model.graph.inputs):
        if value.name in arrays:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(arrays[value.name], name=value.name)
            model.graph.register_initializer(value)
    return model


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            "g (float[1,4,8,8] x, float[6,4,3,3] w) => (float[1,6,8,8] y)"
            "{ y = Conv<pads=[1,1,1,1]>(x, w) }",
            6 * 64 * 4 * 9,
            id="conv",
        ),
        pytest.param(
            "g (float[1,4,8,8] x, float[4,1,3,3] w) => (float[1,4,6,6] y)"
            "{ y = Conv<group=4>(x, w) }",
            4 * 36 * 9,
            id="depthwise conv",
        ),
        pytest.param(
            "g (float[2,4,10] x, float[6,4,3] w) => (float[2,6,a] y) { y = Conv(x, w) }",
            2 * 6 * 8 * 4 * 3,
            id="conv over one dimension",
        ),
        pytest.param(
            "g (float[1,4,5,6,7] x, float[2,4,1,1,1] w) => (float[1,2,a,b,c] y) { y = Conv(x, w) }",
            2 * 5 * 6 * 7 * 4,
            id="conv over three dimensions",
        ),
        pytest.param(
            "g (float[1,4,5,5] x, float[4,3,2,2] w) => (float[1,6,a,b] y)"
            "{ y = ConvTranspose<strides=[2,2], group=2>(x, w) }",
            4 * 25 * 3 * 4,
            id="transposed conv",
        ),
        pytest.param(
            "g (float[7,3] x, float[7,5] w) => (float[3,5] y) { y = Gemm<transA=1>(x, w) }",
            3 * 5 * 7,
            id="gemm, left operand transposed",
        ),
        pytest.param(
            "g (float[2,8,3,4] x, float[8,4,5] w) => (float[2,8,3,5] y) { y = MatMul(x, w) }",
            2 * 8 * 3 * 5 * 4,
            id="batched matmul with broadcast",
        ),
        pytest.param(
            "g (float[4] x, float[4] w) => (float y) { y = MatMul(x, w) }", 4, id="dot product"
        ),
        pytest.param(
            "g (float[9,2,4] x, float[1,12,4] w, float[1,12,3] r) => (float[9,1,2,3] y)"
            "{ y = LSTM<hidden_size=3>(x, w, r) }",
            9 * 2 * 12 * (4 + 3),
            id="lstm",
        ),
        pytest.param(
            "g (float[9,2,4] x, float[2,9,4] w, float[2,9,3] r) => (float[9,2,2,3] y)"
            '{ y = GRU<hidden_size=3, direction="bidirectional">(x, w, r) }',
            9 * 2 * 2 * 9 * (4 + 3),
            id="gru in two directions",
        ),
        pytest.param(
            "g (float[2,3,4] x, float[2,4,5] w) => (float[2,3,5] y)"
            '{ y = Einsum<equation="bij,bjk->bik">(x, w) }',
            2 * 3 * 4 * 5,
            id="einsum",
        ),
        pytest.param(
            "g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }", 0, id="elementwise"
        ),
    ],
)  # fmt: skip
def test_macs_of_one_operator(body: str, expected: int) -> None:
    assert macs(body) == expected


def test_macs_scale_with_the_batch() -> None:
    body = "g (float[batch,3] x, float[3,5] w) => (float[batch,5] y) { y = MatMul(x, w) }"
    assert [macs(body, batch=n) for n in (1, 2, 8)] == [15, 30, 120]


def test_other_symbolic_dimensions_are_bound_by_name() -> None:
    body = "g (float[n,t,3] x, float[3,5] w) => (float[n,t,5] y) { y = MatMul(x, w) }"
    assert macs(body, batch=2, dims={"t": 7}) == 2 * 7 * 15
    assert macs(body, batch=2, dims={"t": 7, "n": 4}) == 4 * 7 * 15


def test_unbound_dimension_gives_unknown_and_not_zero() -> None:
    body = "g (float[n,t,3] x, float[3,5] w) => (float[n,t,5] y) { y = MatMul(x, w) }"
    (cost,) = operator_costs(parse(body))
    assert cost.macs is None
    assert cost.input_bytes is None
    assert cost.output_bytes is None
    summed = total([cost])
    assert summed.macs is None
    assert summed.peak_activation_bytes_estimate is None


def test_name_of_no_dimension_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown dimension 'time'"):
        macs("g (float[n,3] x) => (float[n,3] y) { y = Relu(x) }", dims={"time": 3})


def test_foreign_operator_is_unknown_and_named() -> None:
    model = parse(
        "g (float[2,3] x, float[3,3] w) => (float[2,3] y)"
        "{ a = MatMul(x, w) b = com.example.Magic(a) y = Relu(b) }"
    )
    costs = operator_costs(model)
    assert [cost.macs for cost in costs] == [18, None, 0]
    summed = total(costs)
    assert (summed.macs, summed.known_macs) == (None, 18)
    assert summed.unknown_operators == (costs[1].name,)


def test_shapes_computed_by_the_graph_are_followed() -> None:
    model = parse(
        "g (float[n,4,6] x, float[24,5] w) => (float[n,5] y)"
        "{ s = Constant<value = int64[2] {0, -1}>() f = Reshape(x, s) y = MatMul(f, w) }"
    )
    assert [cost.macs for cost in operator_costs(model, batch=3)] == [0, 3 * 24 * 5]


def test_constants_are_no_operators_but_large_ones_are_weights() -> None:
    values = ", ".join("1.0" for _ in range(20))
    model = parse(
        "g (float[1,4] x) => (float[1,5] y)"
        f"{{ w = Constant<value = float[4,5] {{{values}}}>() y = MatMul(x, w) }}"
    )
    (cost,) = operator_costs(model)
    assert (cost.op_type, cost.parameters, cost.weight_bytes) == ("MatMul", 20, 80)


def test_local_functions_are_looked_into() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 20, "local": 1]>'
        "g (float[n,3] x, float[3,5] w) => (float[n,5] y) { y = local.twice(x, w) }"
        '<domain: "local", opset_import: ["": 20]>'
        "twice (a, b) => (c) { d = Relu(a) c = MatMul(d, b) }"
    )
    assert total(operator_costs(model, batch=2)).macs == 2 * 15


def test_control_flow_is_unknown_but_its_weights_count() -> None:
    model = with_initializers(
        "g (bool c, float[2,3] x, float[3,3] w) => (float[2,3] y)"
        "{ y = If (c) <then_branch = t () => (float[2,3] a) { a = MatMul(x, w) },"
        " else_branch = e () => (float[2,3] b) { b = Relu(x) }> }",
        w=np.ones((3, 3), np.float32),
    )
    (cost,) = operator_costs(model)
    assert cost.macs is None
    assert cost.parameters == 9
    assert {tensor.name for tensor in cost.reads} == {"c", "x"}


def test_shared_weights_count_once_in_the_total() -> None:
    model = with_initializers(
        "g (float[2,3] x, float[3,3] w) => (float[2,3] y) { a = MatMul(x, w) y = MatMul(a, w) }",
        w=np.ones((3, 3), np.float32),
    )
    costs = operator_costs(model)
    assert [cost.parameters for cost in costs] == [9, 9]
    summed = total(costs)
    assert (summed.parameters, summed.trainable_parameters, summed.weight_bytes) == (9, 9, 36)
    assert summed.macs == 2 * 18


def test_statistics_bounds_scalars_and_integers_are_not_trainable() -> None:
    ones = np.ones(4, np.float32)
    model = with_initializers(
        "g (float[n,4] x, float[4] s, float[4] b, float[4] m, float[4] v, float lo, float k,"
        " int64[2] shape) => (float[n,4] y)"
        "{ a = BatchNormalization(x, s, b, m, v) c = Clip(a, lo) d = Mul(c, k)"
        " y = Reshape(d, shape) }",
        s=ones, b=ones, m=ones, v=ones, lo=np.float32(0), k=np.float32(2),
        shape=np.array([-1, 4]),
    )  # fmt: skip
    summed = total(operator_costs(model))
    assert summed.trainable_parameters == 8
    assert summed.parameters == 16 + 1 + 1 + 2
    assert summed.weight_bytes == 18 * 4 + 2 * 8


def test_bytes_follow_the_element_type() -> None:
    model = parse("g (float16[n,3] x) => (float16[n,3] y) { y = Relu(x) }")
    (cost,) = operator_costs(model, batch=5)
    assert (cost.input_bytes, cost.output_bytes) == (30, 30)


def operator(name: str, reads: dict[str, int], writes: dict[str, int]) -> OperatorCost:
    def sizes(tensors: dict[str, int]) -> tuple[TensorSize, ...]:
        return tuple(TensorSize(name=key, bytes=size) for key, size in tensors.items())

    return OperatorCost(
        name=name, op_type="Relu", macs=0, weights=(), reads=sizes(reads), writes=sizes(writes)
    )


def test_peak_counts_what_is_alive_together() -> None:
    costs = [
        operator("a", {"x": 10}, {"p": 100}),
        operator("b", {"p": 100}, {"q": 50}),  # p stays for c, x is gone
        operator("c", {"p": 100, "q": 50}, {"y": 5}),
    ]
    assert total(costs).peak_activation_bytes_estimate == 155


def test_costs_leave_the_model_as_it_was() -> None:
    model = with_initializers(
        "g (float[n,3] x, float[3,3] w) => (float[n,3] y) { a = MatMul(x, w) y = Relu(a) }",
        w=np.ones((3, 3), np.float32),
    )
    before = ir.to_proto(model).SerializeToString()
    operator_costs(model, batch=4)
    assert ir.to_proto(model).SerializeToString() == before


def test_bound_copy_shares_its_weights() -> None:
    model = with_initializers(
        "g (float[n,3] x, float[3,3] w) => (float[n,3] y) { y = MatMul(x, w) }",
        w=np.ones((3, 3), np.float32),
    )
    copy = bind_shapes(model, batch=4)
    assert list(copy.graph.inputs[0].shape) == [4, 3]
    assert copy.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
