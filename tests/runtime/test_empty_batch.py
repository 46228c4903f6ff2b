"""A request without samples is answered as the library answers it, alone or beside others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.blocked_parts import Network, needs_blocks
from coinfer import onnx_backend
from coinfer.api import Engine
from coinfer.graph.partition_options import Mode
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.policies import policy_names
from coinfer.testing.models import model_from_text
from planner.cut_models import cut
from runtime.all_at_once import AllAtOnce

WAIT_S = 20.0

SUMS = model_from_text(
    """g (float[N,4] x) => (float[N,4] y, float[1,4] total) <int64[1] axis = {0}>
    { y = Exp(x)  total = ReduceSum(x, axis) }""",
    name="g",
)
"""`total` has no batch in front, and is there without one too."""


def engine(model: Any, **options: Any) -> Engine:
    names = ("p0", "p1")
    processors = [Processor(name=n, backend="onnxruntime", units=frozenset({n})) for n in names]
    return Engine({"g": model}, processors=processors, pin=False, **options)


def profile() -> Profile:
    return Profile.from_seconds({"g": {"p0": 1e-3, "p1": 1e-3}})


def feed(batch: int) -> dict[str, Any]:
    return {"x": np.ones((batch, 4), np.float32)}


SIZES = [0, 2, 0, 0, 1, 3] * 4


@pytest.mark.parametrize("policy", sorted(set(policy_names()) - {"fixed"}))
def test_every_policy_serves_empty_batches(policy: str) -> None:
    with engine(SUMS, profile=profile(), policy=policy) as running:
        futures = [running.submit("g", feed(size), deadline_s=WAIT_S) for size in SIZES]
        for size, future in zip(SIZES, futures, strict=True):
            answer = future.result(WAIT_S)
            assert answer["y"].shape == (size, 4)
            assert answer["total"].tolist() == [[size] * 4]


def test_runs_of_several_requests_keep_empty_ones_apart() -> None:
    linear = model_from_text(
        "g (float[N,4] x) => (float[N,4] y) { a = Exp(x) y = Neg(a) }", name="g"
    )
    for model in (linear, cut(linear, [1], ["p0", "p1"], mode=Mode.UNIT)):
        options = {} if model is not linear else {"profile": profile()}
        with engine(model, policy=AllAtOnce(), **options) as running:
            futures = [running.submit("g", feed(size)) for size in SIZES]
            found = [future.result(WAIT_S)["y"].shape for future in futures]
            assert found == [(size, 4) for size in SIZES]


@needs_blocks
def test_values_in_blocks_may_be_of_an_empty_batch() -> None:
    net = Network(3)
    net.conv("a", "x", 24, kernel=3)
    net.node("r", "Relu(a)", 24)
    net.conv("y", "r", 8)
    model = net.model("y")
    some = model.sample_inputs(batch=2)
    pieces = cut(model, [2], ["p0", "p1"], mode=Mode.UNIT).renamed("g")
    with engine(pieces) as running:
        for size in (0, 2, 0):
            answer = running.infer("g", {"x": some["x"][:size]})["y"]
            assert answer.shape[:2] == (size, 8)


def test_the_onnx_interface_takes_them() -> None:
    import onnx_ir as ir

    y, total = onnx_backend.run_model(ir.to_proto(SUMS.graph), [feed(0)["x"]], cuts=1)
    assert (y.shape, total.tolist()) == ((0, 4), [[0] * 4])
