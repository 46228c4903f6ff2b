"""Operators cost what their shapes say, unknown stays unknown, and shared weights count once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coinfer.errors import UnknownNameError
from coinfer.graph.cost import ModelCost, OperatorCost, TensorSize, operator_costs, total
from coinfer.graph.count_range import CountRange
from coinfer.graph.shapes import bind_shapes
from coinfer.graph.weights import stored_weights

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
        name=name,
        op_type="Relu",
        mac_range=CountRange.exactly(0),
        weights=(),
        reads=sizes(reads),
        writes=sizes(writes),
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


def ones(*shape: int) -> str:
    """ONNX text of an initializer or a constant: `float[SHAPE] NAME = {1, ...}`, without type."""
    return "{" + ", ".join(["1"] * int(np.prod(shape))) + "}"


def counted(body: str, **options) -> ModelCost:
    model = parse(body)
    return total(operator_costs(model, **options), stored_weights(model))


@pytest.mark.parametrize(
    ("body", "trainable", "stored"),
    [
        pytest.param(
            "g (float[2,16] x) => (float[2,8] y) {"
            f" w = Constant<value = float[16,8] {ones(16, 8)}>()"
            f" b = Constant<value = float[8] {ones(8)}>() y = Gemm(x, w, b) }}",
            136,
            136,
            id="weight and bias in Constant nodes",
        ),
        pytest.param(
            "g (float[2,20] x) => (float[2,20] y)"
            f"{{ w = Constant<value_floats = [{', '.join(['1.0'] * 20)}]>() y = Mul(x, w) }}",
            20,
            20,
            id="weight in value_floats",
        ),
        pytest.param(
            "g (float[2,3] x) => (float[3,2] y)"
            "{ s = Constant<value_ints = [3, 2]>() k = Constant<value_float = 2.0>()"
            " a = Mul(x, k) y = Reshape(a, s) }",
            0,
            3,
            id="shape and scalar in Constant nodes",
        ),
        pytest.param(
            f"g (bool c, float[2,8] x) => (float[2,6] y) {{ y = If (c) <"
            f"then_branch = t () => (float[2,6] a) <float[8,6] W = {ones(8, 6)}>"
            " { a = MatMul(x, W) },"
            f"else_branch = e () => (float[2,6] b) <float[8,6] W = {ones(8, 6)}>"
            " { h = Relu(x) b = MatMul(h, W) }> }",
            96,
            96,
            id="a weight of the same name in each branch",
        ),
        pytest.param(
            "g (float[3] x) => (float[3] y)"
            f"<float[3] W = {ones(3)}, int64 n = {{5}}, bool c = {{1}}>"
            "{ z = Add(x, W) y = Loop(n, c, z) <body = b (int64 i, bool ci, float[3] s)"
            f" => (bool co, float[3] t) <float[3] W = {ones(3)}>"
            " { co = Identity(ci) t = Add(s, W) }> }",
            6,
            8,
            id="a weight of the same name in a body",
        ),
        pytest.param(
            "g (bool c, float[2] x) => (float[2] y)"
            "{ y = If (c) <then_branch = t () => (float[2] w)"
            " { w = Constant<value_floats = [1.0, 2.0]>() },"
            " else_branch = e () => (float[2] b) { b = Neg(x) }> }",
            2,
            2,
            id="a weight that a branch returns as it is",
        ),
        pytest.param(
            f"g (float[3] x) => (float[3] y) <float[100] W = {ones(100)}> {{ y = Relu(x) }}",
            0,
            100,
            id="an unused initializer",
        ),
        pytest.param(
            f"g (float[3] x) => (float[3] y) <float[3] W = {ones(3)}>"
            f"{{ u = Constant<value = float[3] {ones(3)}>() y = Add(x, W) }}",
            3,
            6,
            id="an unused Constant",
        ),
        pytest.param(
            f"g (uint8[1,3,4,4] x) => (uint8[1,16,4,4] y) <float xs = {{1}}, uint8 z = {{0}},"
            f" int8[16,3,1,1] w = {ones(16, 3)}, float[16] ws = {ones(16)},"
            f" int8[16] wz = {ones(16)}, float ys = {{1}}>"
            "{ y = QLinearConv(x, xs, z, w, ws, wz, ys, z) }",
            0,
            1 + 1 + 48 + 16 + 16 + 1,
            id="scales of QLinearConv",
        ),
        pytest.param(
            f"g (uint8[2,3] x) => (uint8[2,4] y) <float[1] xs = {{1}}, uint8 z = {{0}},"
            f" uint8[3,4] w = {ones(3, 4)}, float[4] ws = {ones(4)}, uint8[4] wz = {ones(4)},"
            " float[1] ys = {1}>"
            "{ y = QLinearMatMul(x, xs, z, w, ws, wz, ys, z) }",
            0,
            1 + 1 + 12 + 4 + 4 + 1,
            id="scales of QLinearMatMul",
        ),
        pytest.param(
            f"g (float[2,4] x) => (float[2,4] y) <float[4] s = {ones(4)}, int8[4] z = {ones(4)}>"
            "{ q = QuantizeLinear<axis = 1>(x, s, z) y = DequantizeLinear<axis = 1>(q, s, z) }",
            0,
            8,
            id="scales of QuantizeLinear and DequantizeLinear",
        ),
        pytest.param(
            "g (uint8[2,3] x) => (uint8[2,3] y) <float[1] s = {1}, uint8[1] z = {0},"
            f" uint8[3] w = {ones(3)}>"
            "{ y = com.microsoft.QLinearAdd(x, s, z, w, s, z, s, z) }",
            0,
            5,
            id="scales of QLinearAdd",
        ),
        pytest.param(
            f"g (uint8[2,3] x) => (float[2,4] y) <float[1] s = {{1}}, uint8[1] z = {{0}},"
            f" uint8[4,3] w = {ones(4, 3)}, float[4] ws = {ones(4)}, uint8[4] wz = {ones(4)},"
            f" int32[4] b = {ones(4)}>"
            "{ y = com.microsoft.QGemm<transB = 1>(x, s, z, w, ws, wz, b, s, z) }",
            0,
            2 + 12 + 4 + 4 + 4,
            id="scales of QGemm",
        ),
        pytest.param(
            "g (uint8[2,3] x, uint8[2,3] v) => (uint8[4,3] y) <float[1] s = {1}, uint8[1] z = {0}>"
            "{ y = com.microsoft.QLinearConcat<axis = 0>(s, z, x, s, z, v, s, z) }",
            0,
            2,
            id="scales of QLinearConcat",
        ),
        pytest.param(
            "g (float[2,3] x) => (float[2,4] y)"
            f"<uint8[3,4] w = {ones(3, 4)}, float[4] s = {ones(4)}, uint8[4] z = {ones(4)},"
            f" float[4] b = {ones(4)}>"
            "{ y = com.microsoft.DynamicQuantizeMatMul(x, w, s, z, b) }",
            4,
            24,
            id="scales of DynamicQuantizeMatMul, whose bias is a parameter",
        ),
    ],
)  # fmt: skip
def test_each_stored_tensor_counts_once(body: str, trainable: int, stored: int) -> None:
    summed = counted(body)
    assert (summed.trainable_parameters, summed.parameters) == (trainable, stored)


LOOP = (
    "g (float[3,3] x, int64 given, bool wanted) => (float[3,3] y)"
    "<int64 n = {{7}}, bool yes = {{1}}, bool no = {{0}}>"
    "{{ y = Loop({trips}, {first}, x) <body = b (int64 i, bool go, float[3,3] s)"
    " => (bool on, float[3,3] t) {{ {on} t = MatMul(s, s) }}> }}"
)


@pytest.mark.parametrize(
    ("trips", "first", "on", "least", "most"),
    [
        pytest.param("n", "yes", "on = Identity(go)", 7 * 27, 7 * 27, id="constant"),
        pytest.param("n", "", "on = Identity(go)", 7 * 27, 7 * 27, id="no condition"),
        pytest.param("n", "yes", "on = Identity(yes)", 7 * 27, 7 * 27, id="true from outside"),
        pytest.param("n", "yes", "on = Not(go)", 27, 7 * 27, id="may end"),
        pytest.param("n", "wanted", "on = Identity(go)", 0, 7 * 27, id="condition is given"),
        pytest.param("n", "no", "on = Identity(go)", 0, 0, id="never begins"),
        pytest.param("given", "yes", "on = Identity(go)", 0, None, id="trip count is given"),
        pytest.param("", "yes", "on = Not(go)", 27, None, id="no trip count"),
    ],
)
def test_macs_of_a_loop(trips: str, first: str, on: str, least: int, most: int | None) -> None:
    summed = counted(LOOP.format(trips=trips, first=first, on=on))
    assert summed.mac_range == CountRange(least, most)


def test_a_loop_whose_trip_count_stands_for_none_has_no_limit() -> None:
    body = LOOP.replace("{{7}}", "{{9223372036854775807}}")
    summed = counted(body.format(trips="n", first="yes", on="on = Not(go)"))
    assert summed.mac_range == CountRange(27, None)
    assert summed.unknown_operators == ("Loop_0",)


def carried(step: str) -> ir.Model:
    """A Loop of four runs of a body that states no shape of what it carries on."""
    model = parse(
        "g (float[3,3] x, float[3,3] w) => (float[a,b] y) <int64 n = {4}> { y = Loop(n, , x)"
        " <body = b (int64 i, bool go, float[3,3] s) => (bool on, float[3,3] t)"
        f" {{ on = Identity(go) h = MatMul(s, w) {step} }}> }}"
    )
    body = model.graph[0].attributes["body"].as_graph()
    for value in (body.inputs[2], body.outputs[1]):
        value.shape = None
    return model


def test_a_loop_that_states_no_shapes_has_those_that_it_begins_with_and_keeps() -> None:
    (cost,) = operator_costs(carried("t = Relu(h)"))
    assert cost.macs == 4 * 27


def test_a_loop_whose_values_grow_is_unknown() -> None:
    (cost,) = operator_costs(carried("t = Concat<axis = 0>(h, h)"))
    assert cost.mac_range == CountRange(0, None)


IF = (
    "g ({given} float[n,3] x, float[3,3] w, float[3,5] v) => (float[n,k] y) {constant}"
    "{{ y = If (c) <then_branch = t () => (float[n,3] a) {{ a = MatMul(x, w) }},"
    " else_branch = e () => (float[n,5] b) {{ h = Relu(x) b = MatMul(h, v) }}> }}"
)


def test_macs_of_an_if_are_between_those_of_its_branches() -> None:
    body = IF.format(given="bool c,", constant="")
    assert counted(body, batch=2).mac_range == CountRange(2 * 9, 2 * 15)


def test_macs_of_an_if_with_a_constant_condition_are_those_of_a_branch() -> None:
    assert counted(IF.format(given="", constant="<bool c = {0}>"), batch=2).macs == 2 * 15
    assert counted(IF.format(given="", constant="<bool c = {1}>"), batch=2).macs == 2 * 9


def test_macs_of_a_scan_are_those_of_its_body_per_slice() -> None:
    body = (
        "g (float[4,4] h, float[4,n,4] x, float[4,4] w) => (float[4,4] y, float[7,n,4] z)"
        "{ y, z = Scan<num_scan_inputs = 1, scan_input_axes = [1], body = b (float[4,4] s,"
        " float[4,4] e) => (float[4,4] t, float[4,4] u) { t = MatMul(s, e) u = MatMul(t, w) }>"
        "(h, x) }"
    )
    assert counted(body, dims={"n": 7}).macs == 7 * 2 * 64
    assert counted(body).mac_range == CountRange(0, None)


def test_macs_of_control_flow_inside_of_control_flow() -> None:
    body = (
        "g (bool c, float[3,3] x) => (float[3,3] y) <int64 n = {4}, bool yes = {1}>"
        "{ y = If (c) <then_branch = t () => (float[3,3] a) { a = Loop(n, yes, x) <body = b"
        " (int64 i, bool go, float[3,3] s) => (bool on, float[3,3] r)"
        " { on = Identity(go) r = MatMul(s, s) }> },"
        " else_branch = e () => (float[3,3] b) { b = Relu(x) }> }"
    )
    assert counted(body).mac_range == CountRange(0, 4 * 27)


def test_macs_of_a_sequence_map_are_unknown_unless_its_body_has_none() -> None:
    body = (
        "g (seq(float[2,3]) x, float[3,4] w) => (seq(float[2,4]) y) {{ y = SequenceMap<body = b"
        " (float[2,3] e) => (float[2,4] r) {{ {inner} }}>(x) }}"
    )
    assert counted(body.format(inner="r = MatMul(e, w)")).mac_range == CountRange(0, None)
    assert counted(body.format(inner="r = Relu(e)")).macs == 0


@pytest.mark.parametrize(
    ("equation", "left", "right", "expected"),
    [
        ("...ij,...jk->...ik", "2,3,5,8", "2,3,8,6", 1440),
        ("...ij,...jk->...ik", "3,5,8", "2,1,8,6", 1440),
        ("...ij,jk->...ik", "2,3,5,8", "8,6", 1440),
        ("bi...,ij->bj...", "2,3,7,4", "3,5", 2 * 3 * 7 * 4 * 5),
        ("... , ...", "2,3", "3", 6),
    ],
)
def test_macs_of_an_einsum_with_an_ellipsis(
    equation: str, left: str, right: str, expected: int
) -> None:
    body = (
        f"g (float[{left}] x, float[{right}] w) => (float[q] y)"
        f'{{ y = Einsum<equation="{equation}">(x, w) }}'
    )
    assert macs(body) == expected
