"""Two real processors of different support run one network together: its outputs are the same.

Each lacks what the other has, so nothing runs whole; onnxruntime uncut is the reference. Inception
v3 rounds worse than the tolerance in one library alone, so it is cut within that one and compared
with what optimising the uncut graph changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from coinfer.api import Engine
from coinfer.backends.base import Tensors
from coinfer.backends.registry import get_backend
from coinfer.graph.cut_model import CutModel
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.planner.model_source import resolve_model
from coinfer.planner.span_selection import prepare
from coinfer.policies import policy_names
from coinfer.profiling import Effort, Profiler
from coinfer.testing.models import int_gather, model_from_text

WAIT_S = 60.0
QUICK = Effort(warmup_runs=1, min_runs=2, max_runs=2)
TOLERANCE = 1e-5
"""Largest relative error: fp32 on both sides, sums in another order."""

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NETWORKS = [
    "zoo:tiny_cnn",
    "zoo:squeezenet1_1",
    *(
        pytest.param(source, marks=pytest.mark.slow)
        for source in (
            "zoo:mobilenet_v2",
            "zoo:tiny_encoder",
            *(str(path) for path in sorted(LIGHT.glob("light_*.onnx"))),
        )
    ),
]

PROCESSORS = (
    Processor(
        name="convolver",
        backend="openvino",
        units=frozenset({"a"}),
        unsupported_ops=frozenset({"AveragePool", "GlobalAveragePool", "MaxPool", "Softmax"}),
    ),
    Processor(
        name="rest",
        backend="onnxruntime",
        units=frozenset({"b"}),
        unsupported_ops=frozenset({"Conv", "MatMul"}),
    ),
)


def backends() -> dict[str, Any]:
    return {name: get_backend(name) for name in ("openvino", "onnxruntime")}


def cut_in_two(model: Model, processors: Sequence[Processor]) -> CutModel:
    options = PartitionOptions(minimum_subgraph_size=1)
    return prepare(model, processors, options, Profiler(effort=QUICK))


def uncut(model: Model, feeds: Sequence[Tensors]) -> list[dict[str, Any]]:
    alone = Processor(name="alone", backend="onnxruntime", units=frozenset({"c"}))
    session = backends()["onnxruntime"].load(model, alone)
    outputs = [session.run(feed) for feed in feeds]
    session.close()
    return outputs


def relative_error(value: Any, reference: Any) -> float:
    size = np.linalg.norm(reference)
    assert size > 0, "a network whose outputs are zero proves nothing"
    return float(np.linalg.norm(value - reference) / size)


def assert_same(
    outputs: Mapping[str, Any], reference: Mapping[str, Any], tolerance: float = TOLERANCE
) -> None:
    assert list(outputs) == list(reference)
    for name, expected in reference.items():
        assert relative_error(outputs[name], expected) <= tolerance, name


def assert_cut_equals_uncut(
    model: Model, processors: Sequence[Processor], tolerance: float = TOLERANCE
) -> None:
    cut = cut_in_two(model, processors)
    assert set(cut.profile.processors()) == {"convolver", "rest"}
    feeds = [model.sample_inputs(seed=seed) for seed in range(2)]
    with Engine({"m": cut}, processors=processors, backends=backends()) as engine:
        futures = [engine.submit("m", feed) for feed in feeds]
        for future, reference in zip(futures, uncut(model, feeds), strict=True):
            assert_same(future.result(WAIT_S), reference, tolerance)


@pytest.mark.parametrize("source", NETWORKS, ids=lambda source: Path(source).stem)
def test_outputs_equal_those_of_the_whole_network(source: str) -> None:
    assert_cut_equals_uncut(resolve_model(source, name="m"), PROCESSORS)


@pytest.mark.slow
def test_a_deep_network_of_many_branches_is_cut_within_one_library() -> None:
    model = resolve_model("zoo:inception_v3", name="m")
    one_library = [dataclasses.replace(p, backend="onnxruntime") for p in PROCESSORS]
    noise = rounding_noise(model)
    assert noise < 1e-4
    assert_cut_equals_uncut(model, one_library, max(noise, TOLERANCE))


def rounding_noise(model: Model) -> float:
    """How far optimising the graph moves the outputs of the uncut network."""
    feed = model.sample_inputs()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(model.to_bytes(), options).run(None, feed)
    optimised = uncut(model, [feed])[0].values()
    return max(relative_error(a, b) for a, b in zip(plain, optimised, strict=True))


@pytest.fixture(scope="module")
def tiny() -> tuple[CutModel, list[Tensors], list[dict[str, Any]]]:
    model = resolve_model("zoo:tiny_cnn", name="m")
    feeds = [model.sample_inputs(seed=seed, batch=1 + seed % 3) for seed in range(6)]
    return cut_in_two(model, PROCESSORS), feeds, uncut(model, feeds)


@pytest.mark.parametrize("policy", [name for name in policy_names() if name != "fixed"])
def test_under_load_from_many_threads_with_every_policy(
    tiny: tuple[CutModel, list[Tensors], list[dict[str, Any]]], policy: str
) -> None:
    cut, feeds, expected = tiny

    def ask(number: int) -> None:
        outputs = engine.submit("m", feeds[number % 6]).result(WAIT_S)
        assert_same(outputs, expected[number % 6])

    with (
        Engine({"m": cut}, processors=PROCESSORS, backends=backends(), policy=policy) as engine,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(ask, range(120)))


def test_an_engine_partitions_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path))
    model = resolve_model("zoo:tiny_mlp", name="m")
    options = PartitionOptions(mode=Mode.UNIT, minimum_subgraph_size=1)
    feed = model.sample_inputs()
    with Engine({"net": model}, processors=PROCESSORS, partition=options) as engine:
        assert set(engine.placement("net")) == {"convolver", "rest"}
        assert_same(engine.infer("net", feed), uncut(model, [feed])[0])
        engine.load("another", model)
        assert_same(engine.infer("another", feed), uncut(model, [feed])[0])


@pytest.mark.parametrize("whole", [False, True], ids=["cut", "whole"])
@pytest.mark.parametrize(
    "choose", ["i = ArgMax<axis = 1>(x)", "v, i = TopK(x, k)"], ids=["ArgMax", "TopK"]
)
def test_integers_of_one_library_go_into_the_other(choose: str, whole: bool) -> None:
    # onnxruntime gives int64 by another character of numpy than openvino takes.
    model = model_from_text(
        f"""g (float[n, 5] x) => (int64[n, 1] y) <int64[1] k = {{1}}, int64 two = {{2}}>
        {{ {choose} y = Add(i, two) }}""",
        name="m",
    )
    feed = model.sample_inputs(batch=3)
    expected = feed["x"].argmax(axis=1, keepdims=True) + 2
    chooser, adder = PROCESSORS[1], PROCESSORS[0]
    chooser = dataclasses.replace(chooser, unsupported_ops=frozenset({"Add"}))
    adder = dataclasses.replace(adder, unsupported_ops=frozenset({"ArgMax", "TopK"}))
    if whole:
        first, second = (
            model_from_text(text, name="m")
            for text in (
                f"g (float[n, 5] x) => (int64[n, 1] i) <int64[1] k = {{1}}> {{ {choose} }}",
                "g (int64[n, 1] i) => (int64[n, 1] y) <int64 two = {2}> { y = Add(i, two) }",
            )
        )
        with Engine({"m": first}, processors=[chooser], profile=times("rest")) as engine:
            chosen = engine.infer("m", feed)
        with Engine({"m": second}, processors=[adder], profile=times("convolver")) as engine:
            outputs = engine.infer("m", {"i": chosen["i"]})
    else:
        cut = cut_in_two(model, [adder, chooser])
        assert set(cut.profile.processors()) == {"convolver", "rest"}
        with Engine({"m": cut}, processors=[adder, chooser], backends=backends()) as engine:
            outputs = engine.infer("m", feed)
    assert outputs["y"].tolist() == expected.tolist()


def times(processor: str) -> Profile:
    return Profile.from_seconds({"m": {processor: 0.001}})


def test_a_caller_may_give_integers_of_either_character() -> None:
    example = int_gather()
    alone = dataclasses.replace(PROCESSORS[0], unsupported_ops=frozenset())
    ids = np.array([[1, 2, 3]], np.longlong)
    with Engine({"m": example.model}, processors=[alone], profile=times("convolver")) as engine:
        assert np.array_equal(
            engine.infer("m", {"ids": ids})["rows"], example.reference({"ids": ids})["rows"]
        )
