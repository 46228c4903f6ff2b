"""The standard interface: what `coinfer.onnx_backend` takes, gives and refuses."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser
from onnx.backend.base import Backend, BackendRep

from coinfer import onnx_backend
from coinfer.errors import (
    BackendError,
    ClosedError,
    ConfigurationError,
    InputError,
    ModelError,
)
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.onnx_backend import CoinferBackend, PreparedModel

X = np.array([[-1.0, 2.0]], np.float32)


def chain(length: int = 4) -> onnx.ModelProto:
    """`v{i+1}` = Tanh or Neg of `v{i}`, in turn."""
    nodes = "".join(f" v{i + 1} = {('Tanh', 'Neg')[i % 2]}(v{i})" for i in range(length))
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> chain (float[N, 2] v0) => '
        f"(float[N, 2] v{length}) {{{nodes} }}"
    )


def reference(length: int = 4) -> np.ndarray[Any, Any]:
    value = X
    for i in range(length):
        value = -value if i % 2 else np.tanh(value)
    return value


def processor(name: str, **options: Any) -> Processor:
    return Processor(name=name, backend="onnxruntime", units=frozenset({name}), **options)


def test_it_is_a_backend_of_the_standard() -> None:
    assert issubclass(CoinferBackend, Backend)
    assert issubclass(PreparedModel, BackendRep)
    assert onnx_backend.is_compatible(chain())
    assert onnx_backend.supports_device("CPU")
    assert not onnx_backend.supports_device("TOASTER")


def test_importing_it_loads_no_inference_library() -> None:
    text = "import sys, coinfer.onnx_backend; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert "coinfer.onnx_backend.backend" in done.stdout.split()
    assert {"onnxruntime", "openvino", "torch"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("inputs", [[X], (X,), X, {"v0": X}], ids=["list", "tuple", "one", "names"])
def test_inputs_come_in_order_or_by_name(inputs: Any) -> None:
    outputs = onnx_backend.run_model(chain(), inputs)
    np.testing.assert_allclose(outputs[0], reference(), rtol=1e-6)
    np.testing.assert_array_equal(outputs[0], outputs.v4)
    np.testing.assert_array_equal(outputs[0], outputs["v4"])


def test_a_prepared_model_runs_again_and_again_until_it_is_closed() -> None:
    with onnx_backend.prepare(chain()) as prepared:
        for rows in (1, 3):
            assert prepared.run([np.repeat(X, rows, axis=0)])[0].shape == (rows, 2)
    prepared.close()
    with pytest.raises(ClosedError):
        prepared.run([X])


def test_a_prepared_model_that_is_forgotten_ends_its_threads() -> None:
    before = set(threading.enumerate())
    prepared = onnx_backend.prepare(chain(), cuts=2)
    prepared.run([X])
    assert set(threading.enumerate()) - before
    del prepared
    gc.collect()
    deadline = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_cuts_are_where_and_as_many_as_asked_for() -> None:
    for cuts, parts in ((0, 1), (1, 2), (2, 3), (3, 4), (99, 4)):
        with onnx_backend.prepare(chain(), cuts=cuts) as prepared:
            assert [span for span, _ in prepared.route.steps] == [Span(i, i) for i in range(parts)]
            np.testing.assert_allclose(prepared.run([X])[0], reference(), rtol=1e-6)


def test_equal_seeds_draw_the_same_route_and_others_another() -> None:
    def route(seed: int) -> Any:
        with onnx_backend.prepare(chain(30), cuts=10, seed=seed) as prepared:
            np.testing.assert_allclose(prepared.run([X])[0], reference(30), rtol=1e-5)
            pieces = prepared.route.cut.pieces.values()
            return prepared.route.steps, [piece.model.inputs[0].name for piece in pieces]

    assert route(1) == route(1)
    assert len({str(route(seed)) for seed in range(4)}) == 4
    assert {name for _, name in route(1)[0]} == {"p0", "p1"}


def test_what_a_processor_does_not_support_goes_to_another() -> None:
    no_neg = processor("no_neg", unsupported_ops=frozenset({"Neg"}))
    only_neg = processor("only_neg", supported_ops=frozenset({"Neg"}))
    with onnx_backend.prepare(chain(), processors=[no_neg, only_neg]) as prepared:
        assert [name for _, name in prepared.route.steps] == ["no_neg", "only_neg"] * 2
        np.testing.assert_allclose(prepared.run([X])[0], reference(), rtol=1e-6)
    with pytest.raises(BackendError, match=r"none of only_neg runs operator .*Tanh.*; add a proc"):
        onnx_backend.prepare(chain(), processors=[only_neg])


def test_models_without_operators_run_whole_however_often_they_are_cut() -> None:
    text = '<ir_version: 10, opset_import: ["": 20]> g () => (float[2] y) {'
    constant = parser.parse_model(text + " y = Constant <value = float[2] {1, 2}> () }")
    for cuts in (0, 5):
        assert onnx_backend.run_model(constant, [], cuts=cuts).y.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "takes 1 inputs but got 0: v0: float32"),
        ([X, X], "takes 1 inputs but got 2"),
        ({"other": X}, "missing 'v0'"),
        ([X.astype(np.float64)], "takes float32 but got float64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: Any, message: str) -> None:
    with onnx_backend.prepare(chain()) as prepared, pytest.raises(InputError, match=message):
        prepared.run(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "TOASTER"}, "no device 'TOASTER', only CPU"),
        ({"cutz": 3}, "no option 'cutz'; it has processors, cuts and seed"),
        ({"cuts": -1}, "cuts must not be negative"),
        ({"processors": []}, "there are no processors"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        onnx_backend.prepare(chain(), **options)


def test_run_has_no_options() -> None:
    with (
        onnx_backend.prepare(chain()) as prepared,
        pytest.raises(ConfigurationError, match="run has no option 'logid'"),
    ):
        prepared.run([X], logid="x")


def test_a_model_that_is_not_valid_is_refused() -> None:
    broken = chain()
    broken.graph.node[1].op_type = "Nonsense"
    assert not onnx_backend.is_compatible(broken)
    with pytest.raises(ModelError, match="Nonsense"):
        onnx_backend.prepare(broken)


def test_run_node_infers_what_comes_out() -> None:
    node = helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)
    a, b = onnx_backend.run_node(node, [np.arange(6, dtype=np.float32).reshape(2, 3)])
    assert (a.tolist(), b.tolist()) == ([[0, 1], [3, 4]], [[2], [5]])


def test_run_node_takes_no_inputs_for_those_left_out() -> None:
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    (y,) = onnx_backend.run_node(node, [X, np.array(1.0, np.float32)])
    assert y.tolist() == [[-1.0, 1.0]]
    with pytest.raises(InputError, match="operator Clip reads 2 values but got 1 inputs"):
        onnx_backend.run_node(node, [X])


def test_run_node_takes_an_operator_as_an_opset_defines_it() -> None:
    softmax = helper.make_node("Softmax", ["x"], ["y"])
    x = np.zeros((1, 2, 2), np.float32)
    assert onnx_backend.run_node(softmax, x, opset_version=11)[0].max() == 0.25  # axes flattened
    assert onnx_backend.run_node(softmax, x, opset_version=13)[0].max() == 0.5
    assert onnx_backend.run_node(softmax, x)[0].max() == 0.5


def test_run_node_goes_into_branches() -> None:
    def branch(value: float) -> onnx.GraphProto:
        tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [value])
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
        return helper.make_graph(
            [helper.make_node("Constant", [], ["out"], value=tensor)], "branch", [], [out]
        )

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch(1), else_branch=branch(2))
    assert onnx_backend.run_node(node, [np.array(False)])[0].tolist() == [2.0]


def test_run_node_wants_to_be_told_what_cannot_be_inferred() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(ModelError, match=r"no operator 'Gelu' of com\.microsoft; give opset"):
        onnx_backend.run_node(node, [X])
    info = [(np.dtype(np.float32), X.shape)]
    (y,) = onnx_backend.run_node(node, [X], outputs_info=info, opset_version=1)
    np.testing.assert_allclose(y, [[-0.158655, 1.9545]], rtol=1e-4)
