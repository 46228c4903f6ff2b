"""Several requests in one run of a span: only where what it reads and makes can be told apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from coinfer.api import Engine
from coinfer.backends.base import Placement, Tensor, Tensors
from coinfer.backends.values import Values
from coinfer.graph.partition_options import Mode
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.runtime.span_io import SpanIO, span_ios_of
from coinfer.runtime.span_run import run_span
from coinfer.testing.models import model_from_text
from planner.cut_models import cut
from runtime.all_at_once import AllAtOnce

WAIT_S = 20.0

BATCH_BEHIND = """g (float[N,4] x) => (float[N,4] y)
    { a = Relu(x) t = Transpose<perm = [1, 0]>(a) b = Neg(t)
      u = Transpose<perm = [1, 0]>(b) y = Tanh(u) }"""
"""`t` and `b` have the batch behind."""

BATCH_IN_A_VALUE = """g (float[N,2,3] x) => (float[N,6] y)
    <int64[1] first = {0}, int64[1] rest = {-1}>
    { a = Relu(x) s = Shape(a) n = Gather(s, first) t = Concat<axis = 0>(n, rest)
      b = Tanh(a) y = Reshape(b, t) }"""
"""`s`, `n` and `t` have no batch axis, and say how large the batch is."""

BATCH_FOLDED = """g (float[N,4,3] x) => (float[N,12] y)
    <int64[2] rows = {-1, 3}, int64[2] back = {-1, 12}>
    { a = Relu(x) r = Reshape(a, rows) b = Tanh(r) y = Reshape(b, back) }"""
"""`r` and `b` have four rows for each of the batch."""

BESIDE_THE_BATCH = """g (float[N,4] x, float[4] scale) => (float[N,4] y, float[4] e)
    { e = Exp(scale) a = Mul(x, e) q = Neg(e) b = Tanh(a) y = Add(b, q) }"""
"""`e` and `q` have nothing to do with the batch."""

TEXTS = {
    "batch behind": BATCH_BEHIND,
    "batch in a value": BATCH_IN_A_VALUE,
    "batch folded": BATCH_FOLDED,
    "beside the batch": BESIDE_THE_BATCH,
}
UNITS = {"batch behind": 5, "batch in a value": 6, "batch folded": 4, "beside the batch": 5}


def cut_everywhere(text: str, units: int) -> Any:
    model = model_from_text(text, name="g")
    return cut(model, range(1, units), ["p0"], mode=Mode.UNIT)


def stacking(text: str, units: int) -> list[int]:
    span_ios = span_ios_of(cut_everywhere(text, units))
    return [span.first for span, span_io in sorted(span_ios.items()) if span_io.stacks]


def test_a_span_at_whose_borders_the_batch_is_not_in_front_takes_one_request_at_a_time() -> None:
    assert stacking(BATCH_BEHIND, 5) == [0, 4]
    assert stacking(BATCH_FOLDED, 4) == [0]


def test_a_span_whose_borders_tell_the_size_of_the_batch_takes_one_request_at_a_time() -> None:
    # Relu and Tanh know nothing of the shape; who makes or reads it does.
    assert stacking(BATCH_IN_A_VALUE, 6) == [0, 4]


def test_a_span_is_stacked_beside_values_that_cannot_depend_on_the_batch() -> None:
    span_ios = span_ios_of(cut_everywhere(BESIDE_THE_BATCH, 5))
    assert all(span_io.stacks for span_io in span_ios.values())
    assert span_ios[Span(1, 1)].batched == {"x"}
    assert span_ios[Span(0, 0)].batched_writes == frozenset()
    assert span_ios[Span(4, 4)].batched_writes == {"y"}


def feeds_of(model: Model, number: int) -> list[dict[str, Tensor]]:
    return [model.sample_inputs(seed=seed, batch=1 + seed % 3) for seed in range(number)]


@pytest.mark.parametrize("name", TEXTS)
def test_requests_that_start_together_get_their_own_outputs(name: str) -> None:
    parted = cut_everywhere(TEXTS[name], UNITS[name])
    policy = AllAtOnce()
    processor = Processor(name="p0", backend="onnxruntime", units=frozenset({"p0"}))
    feeds = feeds_of(parted.model, 30)
    with Engine({"m": parted}, processors=[processor], policy=policy) as engine:
        futures = [engine.submit("m", feed) for feed in feeds]
        together = [future.result(WAIT_S) for future in futures]
        alone = [engine.infer("m", feed) for feed in feeds]
    assert policy.largest > 1
    for outputs, expected in zip(together, alone, strict=True):
        for key, value in expected.items():
            np.testing.assert_allclose(outputs[key], value, rtol=1e-6)


class Doubling:
    """Doubles `x`, and gives `s` back; counts its runs."""

    def __init__(self) -> None:
        self.runs: list[Tensors] = []

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        self.runs.append(inputs)
        return {"y": 2 * inputs["x"] + inputs["s"], "s2": inputs["s"]}

    def placement(self) -> Placement:
        return Placement(operators={}, precision="fp32", threads=1)

    def close(self) -> None: ...


SPAN_IO = SpanIO(
    reads=("x", "s"),
    keeps=("y", "s2"),
    batched=frozenset({"x"}),
    batched_writes=frozenset({"y"}),
    stacks=True,
    is_last=True,
    is_whole=False,
)


def values(shared: Iterable[float]) -> list[Values]:
    return [
        {"x": np.full((at + 1, 2), at, np.float32), "s": np.array([s], np.float32)}
        for at, s in enumerate(shared)
    ]


def test_requests_that_share_the_rest_run_at_once_and_get_their_rows() -> None:
    session = Doubling()
    parts = run_span(session, SPAN_IO, values([5, 5, 5]), [1, 2, 3])
    assert len(session.runs) == 1
    assert [part["y"].tolist() for part in parts] == [
        [[5.0, 5.0]],
        [[7.0, 7.0]] * 2,
        [[9.0, 9.0]] * 3,
    ]
    assert all(part["s2"].tolist() == [5.0] for part in parts)
    parts[0]["s2"][:] = parts[0]["y"][:] = 0.0
    assert [part["s2"].tolist() for part in parts[1:]] == [[5.0]] * 2, "callers own their answers"
    assert parts[1]["y"].tolist() == [[7.0, 7.0]] * 2


@pytest.mark.parametrize(
    ("shared", "span_io"), [([5, 5, 6], SPAN_IO), ([5, 5, 5], SPAN_IO._replace(stacks=False))]
)
def test_requests_that_cannot_be_stacked_run_one_by_one(
    shared: list[float], span_io: SpanIO
) -> None:
    session = Doubling()
    parts = run_span(session, span_io, values(shared), [1, 2, 3])
    assert len(session.runs) == 3
    assert [part["s2"].tolist() for part in parts] == [[float(s)] for s in shared]
    assert [len(part["y"]) for part in parts] == [1, 2, 3]
