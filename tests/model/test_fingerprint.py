from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from coinfer import zoo
from coinfer.errors import ModelError
from coinfer.model import Fingerprint, load_model, model_from_ir
from model.onnx_files import dense, external, model, saved, weight


def fingerprint(proto: onnx.ModelProto) -> Fingerprint:
    return model_from_ir(ir.from_proto(proto), name="m").fingerprint


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + text)


BRANCHY = parsed("""
    g (float[N, 4] x, float[N, 4] z) => (float[N, 4] y)
    <float[4] a = {1.0, 2.0, 3.0, 4.0}, float[4] b = {5.0, 6.0, 7.0, 8.0}> {
        p = Mul(x, a)
        q = Mul(z, b)
        r = Relu(p)
        s = Tanh(q)
        y = Sub(r, s)
    }
""")


def renamed(proto: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """Rename everything but the graph's inputs and outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    fixed = {info.name for info in (*copy.graph.input, *copy.graph.output)}
    for node in copy.graph.node:
        node.name = f"{prefix}{node.name}"
        node.doc_string = prefix
        for names in (node.input, node.output):
            names[:] = [name if name in fixed else prefix + name for name in names]
    for tensor in copy.graph.initializer:
        tensor.name = prefix + tensor.name
        tensor.doc_string = prefix
    copy.graph.name, copy.doc_string, copy.producer_name = prefix, prefix, prefix
    return copy


@given(st.text("abcdefgh_", min_size=1, max_size=8))
def test_names_and_comments_do_not_count(prefix: str) -> None:
    assert fingerprint(renamed(BRANCHY, prefix)) == fingerprint(BRANCHY)


def test_the_order_of_nodes_and_initializers_in_the_file_does_not_count() -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(BRANCHY)
    nodes, weights = list(copy.graph.node), list(copy.graph.initializer)
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(nodes[index] for index in (1, 3, 0, 2, 4))
    copy.graph.initializer.extend(reversed(weights))
    assert fingerprint(copy) == fingerprint(BRANCHY)


def test_names_of_symbols_do_not_count_but_where_they_recur_does() -> None:
    def with_dims(first: str, second: str) -> onnx.ModelProto:
        return parsed(
            f"g (float[{first}] x, float[{second}] z) => (float[K] y){{ y = Concat<axis=0>(x, z) }}"
        )

    assert fingerprint(with_dims("N", "M")) == fingerprint(with_dims("A", "B"))
    assert fingerprint(with_dims("N", "N")) != fingerprint(with_dims("A", "B"))


def test_unused_initializers_and_nodes_do_not_count() -> None:
    proto = dense()
    proto.graph.initializer.append(weight("unused", seed=3))
    proto.graph.node.append(helper.make_node("Relu", ["h"], ["dead"]))
    assert fingerprint(proto) == fingerprint(dense())


def test_a_constant_node_counts_as_an_initializer() -> None:
    proto = dense()
    tensor = proto.graph.initializer.pop()
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    assert fingerprint(proto) == fingerprint(dense())


def test_where_the_weights_are_stored_does_not_count(tmp_path: Path) -> None:
    _, outside = external(dense(), tmp_path / "e")
    typed = dense()
    values = numpy_helper.to_array(typed.graph.initializer[0])
    typed.graph.initializer[0].CopyFrom(
        helper.make_tensor("w", TensorProto.FLOAT, [4, 3], values.ravel().tolist())
    )
    inside = load_model(saved(dense(), tmp_path / "m.onnx")).fingerprint
    assert load_model(outside).fingerprint == inside
    assert fingerprint(typed) == inside


def test_saving_a_graph_made_in_memory_keeps_its_fingerprint(tmp_path: Path) -> None:
    made = model_from_ir(zoo.build("tiny_encoder"), name="m")
    path = tmp_path / "m.onnx"
    path.write_bytes(made.to_bytes())
    assert load_model(path).fingerprint == made.fingerprint


@pytest.mark.parametrize("network", ["tiny_mlp", "tiny_cnn", "tiny_branchy", "tiny_encoder"])
def test_seeds_of_a_network_share_structure_and_not_weights(network: str) -> None:
    first, again, other = (
        model_from_ir(zoo.build(network, seed=seed), name=f"{network}{i}").fingerprint
        for i, seed in enumerate((1, 1, 2))
    )
    assert first == again
    assert first.structure == other.structure
    assert first.weights != other.weights


def test_networks_of_the_zoo_differ_in_structure() -> None:
    names = ("tiny_mlp", "tiny_cnn", "tiny_branchy", "tiny_encoder", "lenet")
    found = {model_from_ir(zoo.build(name), name=name).fingerprint.structure for name in names}
    assert len(found) == len(names)


def attribute(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].attribute[0].f = 0.2


def operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type = "Elu"


def opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 16


def input_name(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "image"


def output_name(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = proto.graph.node[1].output[0] = "logits"


def weight_shape(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(weight(shape=(4, 5)))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5


def fixed_batch(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8


def topology(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Add", ["h", "act"], ["y"]))
    proto.graph.node[1].output[0] = "act"


@pytest.mark.parametrize(
    "edit",
    [
        attribute,
        operator,
        opset,
        input_name,
        output_name,
        weight_shape,
        fixed_batch,
        topology,
    ],
)
def test_what_the_network_computes_is_structure(edit: Callable[[onnx.ModelProto], None]) -> None:
    proto = dense()
    edit(proto)
    assert fingerprint(proto).structure != fingerprint(dense()).structure


def test_another_weight_is_the_same_structure() -> None:
    assert fingerprint(dense(seed=1)).structure == fingerprint(dense()).structure
    assert fingerprint(dense(seed=1)).weights != fingerprint(dense()).weights


def test_swapping_two_weights_of_one_shape_changes_the_weights() -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(BRANCHY)
    first, second = copy.graph.initializer
    first.name, second.name = second.name, first.name
    assert fingerprint(copy).structure == fingerprint(BRANCHY).structure
    assert fingerprint(copy).weights != fingerprint(BRANCHY).weights


def test_one_shared_weight_is_not_two_equal_weights() -> None:
    def scaled(second: str) -> onnx.ModelProto:
        return parsed(f"""g (float[N, 1] x) => (float[N, 1] y)
            <float[1] a = {{2.0}}, float[1] b = {{2.0}}> {{
                h = Mul(x, a)
                y = Mul(h, {second})
            }}""")

    assert fingerprint(scaled("a")).structure != fingerprint(scaled("b")).structure


def constant(array: np.ndarray, op: str = "Reshape") -> Fingerprint:
    """Fingerprint of `op(x, c)` with the constant c."""
    info = helper.make_tensor_value_info
    outputs = [info("y", TensorProto.FLOAT, None)]
    outputs[0].type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto())
    node = helper.make_node(op, ["x", *([""] if op == "Resize" else []), "c"], ["y"])
    return fingerprint(
        model([node], outputs=outputs, initializers=[numpy_helper.from_array(array, "c")])
    )


def test_integer_constants_are_structure() -> None:
    first, second = constant(np.array([2, -1])), constant(np.array([4, -1]))
    assert first.structure != second.structure
    assert first.weights == second.weights


def test_the_scales_of_a_resize_are_structure() -> None:
    first = constant(np.array([1, 2], dtype=np.float32), "Resize")
    second = constant(np.array([1, 4], dtype=np.float32), "Resize")
    assert first.structure != second.structure


def test_quantised_weights_and_biases_are_weights() -> None:
    def quantised(kernel: int, bias: int) -> Fingerprint:
        proto = parsed(f"""g (float[N, 2] x) => (float[N, 2] y)
            <float s = {{0.5}}, int8[2] k = {{1, {kernel}}}, int32[2] b = {{3, {bias}}}> {{
                kf = DequantizeLinear(k, s)  bf = DequantizeLinear(b, s)
                h = Mul(x, kf)  y = Add(h, bf) }}""")
        return fingerprint(proto)

    base = quantised(1, 1)
    for other in (quantised(2, 1), quantised(1, 2)):
        assert other.structure == base.structure
        assert other.weights != base.weights


def conditional(*, then: str = "Relu", value: float = 1.0, captured: str = "h") -> onnx.ModelProto:
    return parsed(f"""g (bool c, float[N] x) => (float[N] y) <float[1] k = {{3.0}}> {{
        h = Neg(x)
        e = Exp(x)
        y = If (c) <
            then_branch = t () => (float[N] a)
                <float[1] w = {{{value}}}> {{
                    a0 = {then}({captured})
                    a1 = Mul(a0, w)
                    a = Add(a1, k)
                }},
            else_branch = f () => (float[N] b) {{ b = Identity(e) }}
        >
    }}""")


def test_subgraphs_and_what_they_capture_count() -> None:
    base = fingerprint(conditional())
    assert fingerprint(conditional()) == base
    assert fingerprint(conditional(then="Tanh")).structure != base.structure
    assert fingerprint(conditional(captured="e")).structure != base.structure
    heavier = fingerprint(conditional(value=2.0))
    assert heavier.structure == base.structure
    assert heavier.weights != base.weights


def test_each_captured_value_counts_where_it_is_used() -> None:
    def capturing(first: str, second: str, third: str) -> str:
        proto = parsed(f"""g (bool c, float[N] x) => (float[N] y) {{
            h = Neg(x)
            e = Exp(x)
            y = If (c) <
                then_branch = t () => (float[N] a) {{
                    d = Sub({first}, {second})
                    a = Mul(d, {third})
                }},
                else_branch = f () => (float[N] b) {{ b = Sub(h, e) }}
            >
        }}""")
        return fingerprint(proto).structure

    uses = [("h", "e", "h"), ("h", "e", "e"), ("e", "h", "e"), ("e", "h", "h"), ("h", "h", "h")]
    assert len({capturing(*use) for use in uses}) == len(uses)


def test_names_inside_subgraphs_do_not_count() -> None:
    proto = conditional()
    copy = onnx.ModelProto.FromString(
        proto.SerializeToString().replace(b"a0", b"zz").replace(b"a1", b"qq")
    )
    assert fingerprint(copy) == fingerprint(proto)


def with_function(*, body: str = "Relu", name: str = "act", value: float = 1.0) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[N] x) => (float[N] y) {{ h = own.{name}(x)  y = own.{name}(h) }}
        <domain: "own", opset_import: ["" : 17]>
        {name} (a) => (b) {{
            k = Constant<value = float {{{value}}}>()
            c = Mul(a, k)
            b = {body}(c)
        }}
    """)


def test_functions_count_by_their_body_and_not_by_their_name() -> None:
    base = fingerprint(with_function())
    assert fingerprint(with_function(name="other")) == base
    assert fingerprint(with_function(body="Tanh")).structure != base.structure
    heavier = fingerprint(with_function(value=2.0))
    assert heavier.structure == base.structure
    assert heavier.weights != base.weights


def test_a_function_that_calls_itself_is_refused() -> None:
    proto = with_function()
    proto.functions[0].opset_import.append(helper.make_opsetid("own", 1))
    proto.functions[0].node[2].CopyFrom(helper.make_node("act", ["c"], ["b"], domain="own"))
    with pytest.raises(ModelError, match=r"(?i)act.*itself|recurs|cycl"):
        fingerprint(proto)


def test_deep_graphs_do_not_exhaust_the_stack() -> None:
    names = ["x", *(f"v{i}" for i in range(3000)), "y"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])]
    assert fingerprint(model(nodes, outputs=outputs)).structure


def test_full_and_short_name_both_digests() -> None:
    found = fingerprint(dense())
    assert found.full == f"{found.structure}-{found.weights}"
    assert found.short == f"{found.structure[:8]}-{found.weights[:8]}"


def test_each_constant_counts_by_its_own_value() -> None:
    """A digest that is kept must not be found again by the address of a tensor that is gone."""
    found = set()
    for values in product(range(3), repeat=3):
        reads = " ".join(
            f"c{i} = Constant<value_ints = [{value}]>() s{i} = Gather(x, c{i})"
            for i, value in enumerate(values)
        )
        text = f"g (float[9] x) => (float[1] y) {{ {reads} y = Sum(s0, s1, s2) }}"
        found.add(fingerprint(parsed(text)).structure)
    assert len(found) == 27
