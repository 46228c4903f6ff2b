"""Inputs that may be left out, and `infer` with all that `submit` takes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from coinfer import onnx_backend
from coinfer.api import Engine
from coinfer.backends.null import Faults
from coinfer.errors import ConfigurationError, DroppedError, InputError
from coinfer.graph.partition_options import Mode
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model, model_from_bytes
from planner.cut_models import cut
from runtime.all_at_once import AllAtOnce
from runtime.engines import FEED, null_engine

TEXT = """g (float[N,3] x, float[3] shift = {1, 2, 3}, float[1,3] gate = {1, 0, 1})
    => (float[N,2] y) <float[3,2] w = {1, 0, 0, 1, 1, 1}, float[2] b = {5, 6}>
    { a = Add(x, shift)  g = Mul(a, gate)  p = MatMul(g, w)  y = Add(p, b) }"""
W = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
B = np.array([5, 6], np.float32)


def net() -> Model:
    proto = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]>' + TEXT)
    proto.graph.input[2].type.tensor_type.shape.dim[0].dim_param = "N"
    return model_from_bytes(proto.SerializeToString(), name="net")


def expected(inputs: dict[str, Any]) -> np.ndarray:
    known = {**net().defaults, **inputs}
    return ((known["x"] + known["shift"]) * known["gate"]) @ W + B


def feeds() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    return [
        {"x": noise(1, 3)},
        {"x": noise(2, 3), "shift": noise(3)},
        {"x": noise(2, 3), "gate": noise(2, 3)},
        {"x": noise(3, 3), "shift": noise(3), "gate": noise(3, 3)},
        {"x": noise(0, 3)},
        {"x": noise(1, 3)},
    ]


def engine(model: Any, backend: str = "onnxruntime", **options: Any) -> Engine:
    processor = Processor(name="p0", backend=backend, units=frozenset({"p0"}))
    profile = Profile.from_seconds({"net": {"p0": 1e-3}}) if isinstance(model, Model) else None
    return Engine({"net": model}, processors=[processor], profile=profile, pin=False, **options)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_backend_gets_the_default_of_what_is_left_out(backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    with engine(net(), backend) as running:
        for feed in feeds():
            answer = running.infer("net", feed)["y"]
            np.testing.assert_allclose(answer, expected(feed), rtol=1e-5)
        running.warm_up("net", feeds()[0])
        with pytest.raises(InputError, match="missing 'x'"):
            running.submit("net", {"shift": np.zeros(3, np.float32)})


def test_a_model_that_is_cut_gets_them_too() -> None:
    pieces = cut(net(), [1, 2, 3], ["p0"], mode=Mode.UNIT)
    with engine(pieces) as running:
        for feed in feeds():
            answer = running.infer("net", feed)["y"]
            np.testing.assert_allclose(answer, expected(feed), rtol=1e-5)


@pytest.mark.parametrize("is_cut", [False, True])
def test_requests_in_one_run_keep_their_own(is_cut: bool) -> None:
    model = cut(net(), [1, 2, 3], ["p0"], mode=Mode.UNIT) if is_cut else net()
    with engine(model, policy=AllAtOnce()) as running:
        futures = [running.submit("net", feed) for feed in feeds() * 5]
        for future, feed in zip(futures, feeds() * 5, strict=True):
            np.testing.assert_allclose(future.result(20)["y"], expected(feed), rtol=1e-5)


def test_the_onnx_interface_takes_them_in_order_or_by_name() -> None:
    proto = ir.to_proto(net().graph)
    for name, value in net().defaults.items():
        proto.graph.initializer.append(ir.to_proto(ir.tensor(value, name=name)))
    x, shift, gate = np.ones((2, 3), np.float32), np.zeros(3, np.float32), np.ones((2, 3), "f4")
    for inputs in ([x], {"x": x}):
        np.testing.assert_allclose(onnx_backend.run_model(proto, inputs)[0], expected({"x": x}))
    given = {"x": x, "shift": shift, "gate": gate}
    for every in ([x, shift, gate], given):
        np.testing.assert_allclose(onnx_backend.run_model(proto, every)[0], expected(given))
    with pytest.raises(InputError, match="takes 1 inputs but got 2"):
        onnx_backend.run_model(proto, [x, shift])


def test_infer_takes_what_submit_takes() -> None:
    with null_engine("p0") as running:
        seen: list[Any] = []

        class Watching:
            def observe(self, event: Any, _commands: Any, _now: float) -> None:
                seen.append(getattr(event, "request", None))

        running.attach(Watching())
        running.infer("m", FEED, deadline_s=60.0, priority=3, on_late="run", due_s=1.0)
        [request] = [each for each in seen if each is not None]
        assert (request.priority, request.arrival_s, request.deadline_s) == (3, 1.0, 61.0)
        with pytest.raises(DroppedError):
            running.infer("m", FEED, deadline_s=1e-9, on_late="drop", due_s=1.0)
        with pytest.raises(ConfigurationError, match="deadline_s"):
            running.infer("m", FEED, deadline_s=0.0)


def test_infer_waits_no_longer_than_it_is_told() -> None:
    faults = Faults()
    faults.hang()
    with null_engine("p0", faults=faults) as running:
        hanging = threading.Thread(target=running.infer, args=("m", FEED))
        hanging.start()
        assert faults.wait_until_hanging()
        with pytest.raises(TimeoutError, match="model 'm' gave no answer within"):
            running.infer("m", FEED, timeout_s=0.01)
        assert running.n_unanswered == 1  # what had not started is cancelled
        faults.release()
        hanging.join()
        assert running.infer("m", FEED, timeout_s=20.0)
