"""Requests of unequal lengths share runs where the user names the axis, and get their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from coinfer.api import Engine
from coinfer.core.commands import Run
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.machine.processor import Processor
from coinfer.plan.plan_folder import load_plan, save_plan
from coinfer.plan.work import Axis, SizeClasses, Work
from coinfer.planner.padding import settled_padding
from coinfer.testing.models import model_from_text
from coinfer.workload.batch_spec import BatchSpec
from coinfer.workload.request_shapes import request_sizes
from coinfer.workload.scenario_file import parse_scenario

WAIT_S = 20.0
CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))

MASKED = model_from_text(
    """agraph (float[N,S,3] x, float[N,S] mask) => (float[N,S,3] y, float[N,3] mean)
    <int64[1] last = {2}, int64[1] axis = {1}>
    { m = Unsqueeze(mask, last) y = Mul(x, m)
      total = ReduceSum<keepdims = 0>(y, axis) count = ReduceSum<keepdims = 0>(m, axis)
      mean = Div(total, count) }""",
    name="m",
)
"""The mean over what the mask lets through, and that."""

MEAN = model_from_text(
    """agraph (float[N,S,3] x) => (float[N,3] y) <int64[1] axis = {1}>
    { y = ReduceMean<keepdims = 0>(x, axis) }""",
    name="m",
)
"""The mean over all of the sequence: what is padded changes it."""


def feed(length: int, seed: int) -> dict[str, Any]:
    x = np.random.default_rng(seed).normal(size=(1, length, 3)).astype(np.float32)
    return {"x": x, "mask": np.ones((1, length), np.float32)}


class Lengths:
    """Observer that notes how many requests each execution serves."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def observe(self, event: Any, commands: Any, now: float) -> None:
        self.seen += [len(c.execution.requests) for c in commands if type(c) is Run]


@pytest.mark.parametrize("pad", [["S"], {"S": {"x": 7, "mask": 0}}, {"x": 7}])
def test_requests_of_unequal_lengths_share_and_get_their_own(pad: Any) -> None:
    seen, feeds = Lengths(), [feed(8 + at % 7, at) for at in range(28)]
    wish = {"max": 8, "max_delay": 0.05, "pad": pad}
    samples = {"m": [feed(10, 1)]}
    with Engine(
        {"m": MASKED}, processors=[CPU], batch=wish, observer=seen, samples=samples
    ) as engine:
        assert list(engine.plan.models["m"].padding) == ["S"]
        futures = [engine.submit("m", each) for each in feeds]
        for given, future in zip(feeds, futures, strict=True):
            found = future.result(WAIT_S)
            np.testing.assert_allclose(found["y"], given["x"], rtol=1e-6)
            np.testing.assert_allclose(found["mean"], given["x"].mean(axis=1), rtol=1e-5, atol=1e-6)
    assert sum(seen.seen) == 28
    assert max(seen.seen) > 4  # only four of each length wait


def test_without_being_named_they_do_not_share() -> None:
    seen, feeds = Lengths(), [feed(8 + at, at) for at in range(7)]
    wish = {"max": 8, "max_delay": 0.02}
    with Engine(
        {"m": MASKED}, processors=[CPU], batch=wish, observer=seen, samples={"m": [feed(10, 1)]}
    ) as engine:
        for future in [engine.submit("m", each) for each in feeds]:
            future.result(WAIT_S)
    assert seen.seen == [1] * 7


def test_a_model_whose_answers_change_by_padding_is_refused_with_a_warning() -> None:
    wish = {"max": 8, "pad": ["S"]}
    sample = {"x": feed(10, 1)["x"]}
    with Engine({"m": MEAN}, processors=[CPU], batch=wish, samples={"m": [sample]}) as engine:
        assert not engine.plan.models["m"].padding
        [warning] = [each for each in engine.plan.warnings if "padded" in each]
        assert "m: requests are not padded along S: on cpu0 answers of a padded" in warning
        assert "pad with a value that the model ignores" in warning
        found = engine.infer("m", {"x": sample["x"]})
    np.testing.assert_allclose(found["y"], sample["x"].mean(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pad", [["T"], {"S": {"z": 1}}])
def test_what_is_not_there_is_said(pad: Any) -> None:
    with pytest.raises(UnknownNameError, match="dimension"):
        Engine(
            {"m": MASKED}, processors=[CPU], batch={"pad": pad}, samples={"m": [feed(10, 1)]}
        ).close()


@pytest.mark.parametrize(
    ("dtype", "fill", "is_held"),
    [
        ("int64", 1, True),
        ("int64", 1.5, False),
        ("uint8", -1, False),
        ("uint8", 300, False),
        ("bool", 1, True),
        ("bool", 2, False),
        ("float", 0.1, True),
        ("float", 1e39, False),
        ("string", 0, False),
    ],
)
def test_what_an_input_cannot_hold_is_refused(dtype: str, fill: float, is_held: bool) -> None:
    text = f"agraph ({dtype}[N,S] ids) => ({dtype}[N,S] y) {{ y = Identity(ids) }}"
    model, spec = model_from_text(text, name="m"), BatchSpec.of({"pad": {"S": fill}})
    if is_held:
        assert settled_padding(model, spec) == {"S": {"ids": fill}}
    else:
        with pytest.raises(ConfigurationError, match=r"m: input 'ids' of \w+ cannot be padded"):
            settled_padding(model, spec)


@pytest.mark.parametrize("pad", ["S", 3, {"S": "x"}, {"S": float("nan")}, [3]])
def test_nonsense_is_refused(pad: Any) -> None:
    with pytest.raises(ConfigurationError, match="batch"):
        BatchSpec.of({"pad": pad})


def test_a_saved_plan_pads_too(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    ir.save(MASKED.graph, path)
    wish = {"max": 8, "max_delay": 0.05, "pad": {"S": {"x": 7}}}
    with Engine({"m": path}, processors=[CPU], batch=wish, samples={"m": [feed(10, 1)]}) as engine:
        save_plan(engine.plan, tmp_path / "plan")
    planned = load_plan(tmp_path / "plan").plan.models["m"]
    assert planned.padding == {"S": {"x": 7.0, "mask": 0.0}}
    assert planned.work is not None
    assert planned.work.padded == ("S",)
    seen, feeds = Lengths(), [feed(10 + at, at) for at in range(3)]
    with Engine(tmp_path / "plan", observer=seen) as engine:
        for given, future in [(each, engine.submit("m", each)) for each in feeds]:
            np.testing.assert_allclose(future.result(WAIT_S)["y"], given["x"], rtol=1e-6)
    assert len(seen.seen) < 3


def test_padded_sizes_count_as_equal_in_simulations() -> None:
    work = Work({"s": Axis("x", 1), "w": Axis("x", 2)}, {("s", "w"): 1.0}, 64.0, ("s",))
    classes = SizeClasses(work)
    [(one, first), (two, second), (_, third)] = [
        classes({"x": np.zeros((1, *shape))}) for shape in [(9, 8), (14, 8), (9, 9)]
    ]
    assert one == two == 3
    assert first == second != third
    asked = parse_scenario(
        """
        models: {m: {source: m.onnx, dims: {s: [4, 6], w: [8]}, batch: {pad: [s]}}}
        arrivals: {m: {poisson: 5/s}}
        """
    )
    assert request_sizes(asked) == {}
    unpadded = Work(work.axes, work.terms, work.base)
    assert len(set(request_sizes(asked, {"m": unpadded})["m"])) == 2
