"""Models whose file fixes the batch: runs are filled up, and each request gets its own answer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from coinfer.api import Engine
from coinfer.backends.filled_session import FilledSession
from coinfer.core.commands import Run
from coinfer.errors import ConfigurationError
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor
from coinfer.plan.plan_folder import load_plan, save_plan
from coinfer.testing.models import model_from_text

WAIT_S = 20.0
CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))

LOGS = model_from_text(
    """agraph (float[4,3] x) => (float[4,3] y, float[4] z)
    <float one = {1}, int64[1] axes = {1}>
    { a = Mul(x, x) b = Add(a, one) y = Log(b) z = ReduceSum<keepdims = 0>(y, axes) }""",
    name="m",
)
"""Four samples."""


def answers(x: Any) -> dict[str, Any]:
    y = np.log(x * x + 1)
    return {"y": y, "z": y.sum(axis=1)}


class Sizes:
    """Observer that notes how many samples each execution serves."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def observe(self, event: Any, commands: Any, now: float) -> None:
        self.seen += [c.execution.batch for c in commands if type(c) is Run]


def feeds(*counts: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return [{"x": rng.normal(size=(n, 3)).astype(np.float32)} for n in counts]


def test_requests_of_fewer_samples_share_a_run_and_get_their_own() -> None:
    sizes, given = Sizes(), feeds(*[1] * 20, 2, 4, 3, 9, 1)
    wish = {"max": 16, "max_delay": 0.05}
    with Engine({"m": LOGS}, processors=[CPU], batch=wish, observer=sizes) as engine:
        assert engine.plan.models["m"].filling == 4
        assert engine.plan.models["m"].batching == Batching(4, 0.05)
        futures = [engine.submit("m", feed) for feed in given]
        for feed, future in zip(given, futures, strict=True):
            expected = answers(**feed)
            found = future.result(WAIT_S)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
    assert sum(sizes.seen) == sum(len(feed["x"]) for feed in given)
    assert 4 in sizes.seen


def test_what_is_free_is_filled_with_a_sample_and_not_with_what_may_warn() -> None:
    seen = []

    class Session:
        def run(self, inputs: Any) -> Any:
            seen.append(inputs["x"])
            return answers(**inputs)

    session = FilledSession(Session(), LOGS.with_filling(4))  # type: ignore[arg-type]
    [feed] = feeds(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = session.run(feed)
    np.testing.assert_array_equal(found["y"], answers(**feed)["y"])
    assert [len(x) for x in seen] == [4, 4]
    np.testing.assert_array_equal(seen[1][1:], np.repeat(feed["x"][5:], 3, axis=0))


def test_what_all_share_is_handed_on_as_it_is() -> None:
    scaled = model_from_text(
        "agraph (float[4,3] x, float[3] t) => (float[4,3] y) { y = Mul(x, t) }", name="m"
    )
    [feed] = feeds(1)
    with Engine({"m": scaled}, processors=[CPU]) as engine:
        given = {**feed, "t": np.array([1, 2, 3], np.float32)}
        np.testing.assert_allclose(engine.infer("m", given)["y"], given["x"] * given["t"])
        [why] = [each for each in engine.plan.models["m"].choices if each.by == "batching"]
    assert "the first axis of input 't' is not the batch" in str(why)


def test_none_of_no_samples() -> None:
    with Engine({"m": LOGS}, processors=[CPU]) as engine:
        [empty] = feeds(0)
        assert {n: v.shape for n, v in engine.infer("m", empty).items()} == {"y": (0, 3), "z": (0,)}


def test_a_saved_plan_fills_up_too(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    ir.save(LOGS.graph, path)
    with Engine({"m": path}, processors=[CPU]) as engine:
        save_plan(engine.plan, tmp_path / "plan")
    assert load_plan(tmp_path / "plan").plan.models["m"].filling == 4
    [feed] = feeds(1)
    with Engine(tmp_path / "plan") as engine:
        assert engine.plan.models["m"].batching == Batching(4)
        np.testing.assert_allclose(engine.infer("m", feed)["y"], answers(**feed)["y"], rtol=1e-5)
    text = (tmp_path / "plan" / "plan.yaml").read_text()
    (tmp_path / "plan" / "plan.yaml").write_text(text.replace("filling: 4", "filling: 8"))
    with pytest.raises(ConfigurationError, match="no fixed batch of 8"):
        Engine(tmp_path / "plan").close()


def test_one_that_is_cut_is_not_filled_up() -> None:
    with Engine(
        {"m": LOGS}, processors=[CPU], partition=PartitionOptions(mode=Mode.MERGED)
    ) as engine:
        assert engine.plan.models["m"].filling == 0
        [feed] = feeds(4)
        np.testing.assert_allclose(engine.infer("m", feed)["y"], answers(**feed)["y"], rtol=1e-5)
