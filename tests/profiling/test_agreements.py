"""What counts as agreeing: near ties do, wrong choices do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from coinfer.backends.base import Tensors
from coinfer.backends.null import NullBackend
from coinfer.backends.onnxruntime import OnnxRuntimeBackend
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling.agreement import Agreement
from coinfer.profiling.agreements import agreements
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.error import gap
from coinfer.profiling.probe_inputs import large
from coinfer.testing.models import model_from_text, tiny_linear

OTHER = Processor(name="other", backend="other", units=frozenset({"u"}))
TIES = {"x": np.ones((3, 5), np.float32)}


class Changed(OnnxRuntimeBackend):
    """onnxruntime with inputs or outputs changed."""

    name = "other"

    def __init__(
        self,
        inputs: Callable[[Tensors], Tensors] = dict,
        outputs: Callable[[Tensors], Tensors] = dict,
    ) -> None:
        self.inputs, self.outputs = inputs, outputs

    def versions(self) -> Mapping[str, str]:
        return {"other": "1"}

    def load(self, model: Model, processor: Processor) -> Any:
        session = super().load(model, processor)
        run = session.run
        session.run = lambda feed: dict(self.outputs(run(dict(self.inputs(feed)))))  # type: ignore[method-assign]
        return session


def rounded_otherwise(feed: Tensors) -> Tensors:
    """Move floats by about what sums in another order do."""
    rng = np.random.default_rng(0)
    return {
        name: array * (1 + 1e-6 * rng.standard_normal(array.shape).astype(np.float32))
        if array.dtype == np.float32
        else array
        for name, array in feed.items()
    }


def agreed(
    text: str, backend: Changed, sample: Tensors = TIES, tolerance: float = 1e-3
) -> Agreement:
    model = model_from_text(text, name="m")
    found = agreements(model, [OTHER], tolerance, feeds=[sample], backends={"other": backend})
    return found["other"]


ARG_MAX = "g (float[n, 5] x) => (int64[n, 1] i) { e = Exp(x)  i = ArgMax<axis = 1>(e) }"
ARG_MIN_FLAT = """g (float[n, 5] x) => (int64[n] i)
    { e = Exp(x)  i = ArgMin<axis = 1, keepdims = 0>(e) }"""
TOP_K = """g (float[n, 5] x, float[n, 5] y) => (float[n, 2] z)
    <int64[1] k = {2}> { v, i = TopK(x, k)  z = GatherElements<axis = 1>(y, i) }"""
TOP_K_FEED = {**TIES, "y": np.arange(15, dtype=np.float32).reshape(3, 5)}


@pytest.mark.parametrize("text", [ARG_MAX, ARG_MIN_FLAT], ids=["ArgMax", "ArgMin"])
def test_a_near_tie_may_be_decided_otherwise(text: str) -> None:
    found = agreed(text, Changed(rounded_otherwise))
    assert found.why == ""
    assert 0 < found.error < 1e-5


def test_floats_that_follow_from_a_near_tie_may_differ() -> None:
    assert agreed(TOP_K, Changed(rounded_otherwise), TOP_K_FEED).why == ""


def test_a_near_tie_within_no_tolerance_is_none() -> None:
    found = agreed(ARG_MAX, Changed(rounded_otherwise), tolerance=1e-9)
    assert "differs from that of onnxruntime in" in found.why


def wrong_choice(outputs: Tensors) -> Tensors:
    changed = dict(outputs)
    changed["i"] = (changed["i"] + 1) % 5
    return changed


def test_a_wrong_choice_is_no_near_tie() -> None:
    clear = {"x": np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)}
    found = agreed(ARG_MAX, Changed(outputs=wrong_choice), clear)
    assert found.error == np.inf
    assert found.why == "its output 'i' differs from that of onnxruntime in 3 of 3 elements"


def test_floats_that_follow_from_the_same_choice_must_agree() -> None:
    def spoilt(outputs: Tensors) -> Tensors:
        return {n: a * np.float32(1.5) if n == "z" else a for n, a in outputs.items()}

    clear = {n: a + np.arange(5, dtype=np.float32) for n, a in TOP_K_FEED.items()}
    assert agreed(TOP_K, Changed(outputs=spoilt), clear).why.startswith("its output 'z' is 0.5 off")


def test_rounding_to_steps_excuses_no_float() -> None:
    text = """g (float[n, 5] x) => (float[n, 5] y) <float scale = {1}, int8 zero = {0}>
        { q = QuantizeLinear(x, scale, zero)  y = DequantizeLinear(q, scale, zero) }"""
    half = {"x": np.full((3, 5), 2.5, np.float32)}
    assert "off that of onnxruntime" in agreed(text, Changed(rounded_otherwise), half).why


def test_a_texts_model_is_compared_too() -> None:
    text = "g (string[n] s) => (string[n] t) { t = Identity(s) }"
    sample = {"s": np.array(["a", "b"], object)}
    assert agreed(text, Changed(), sample).error == 0.0


def test_a_backend_that_computes_nothing_is_not_compared() -> None:
    null = Processor(name="n", backend="null", units=frozenset({"u"}))
    assert agreements(tiny_linear().model, [null], 1e-3, backends={"null": NullBackend()}) == {}


def test_what_fails_on_the_samples_is_not_used() -> None:
    def fails(_: Tensors) -> Tensors:
        raise ValueError("no")

    found = agreed(ARG_MAX, Changed(fails))
    assert (found.error, found.why) == (np.inf, "it fails on the samples: no")


def test_other_weights_or_samples_are_compared_anew(tmp_path: Any) -> None:
    cache = ProfileCache(tmp_path)

    def compared(value: float, sample: float) -> list[Tensors]:
        runs: list[Tensors] = []
        backend = Changed(lambda feed: runs.append(feed) or feed)  # type: ignore[func-returns-value]
        text = f"g (float[n, 2] x) => (float[n, 2] y) <float w = {{{value}}}> {{ y = Mul(x, w) }}"
        feeds = [{"x": np.full((1, 2), sample, np.float32)}]
        model = model_from_text(text, name="m")
        agreements(model, [OTHER], 1e-3, feeds=feeds, cache=cache, backends={"other": backend})
        return runs

    assert compared(1.0, 1.0)
    assert not compared(1.0, 1.0)
    assert compared(2.0, 1.0)
    assert compared(1.0, 2.0)


def test_gaps_of_what_is_not_alike_are_infinite() -> None:
    ones = np.ones(2, np.float32)
    assert gap(ones, np.ones(3, np.float32)) == np.inf
    assert gap(ones, np.ones(2)) == np.inf
    assert gap(np.array([1]), np.array([1])) == 0.0


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64"])
def test_large_integers_fit_their_type(dtype: str) -> None:
    for feed in large({"i": np.zeros((2, 3), dtype)}, ("i",), {}):
        assert feed["i"].dtype == dtype
        assert feed["i"].shape == (2, 3)
        assert (feed["i"] > 0).all()
