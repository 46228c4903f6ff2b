"""Where models have no budget, a limit of memory that is lowered later gives them one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from coinfer import Engine
from coinfer.errors import ExecutionError
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.metrics.memory_track import ProcessMemory
from coinfer.model import load_model
from coinfer.opening import held_on_host
from coinfer.plan import Plan
from coinfer.runtime import clock, limit_watch, memory_watch
from coinfer.runtime.limit_watch import LimitWatch

MIB = 2**20
CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core0"}))


NAMES = ("a", "bb", "ccc")


def test_it_looks_until_the_limit_is_too_low_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, limits, begun = [0.0], [1000], list[tuple[int | None, int]]()
    monkeypatch.setattr(clock, "now", lambda: now[0])
    monkeypatch.setattr(limit_watch, "process_memory", lambda: held[-1])
    held = [ProcessMemory(300, 200)]
    answers = [True, False]

    def begin(first: int | None, rest: int) -> bool:
        begun.append((first, rest))
        return answers.pop()

    watch = LimitWatch(lambda: limits[-1], lambda: 400, begin)
    assert watch.due_in_s() == 1.0
    once, twice = [(1000, 100)], [(1000, 100)] * 2  # at first it cannot begin
    for limit, expected in ((2000, []), (600, []), (499, once), (300, twice), (300, twice)):
        limits.append(limit)
        held.append(ProcessMemory(300, 200 if limit >= 1000 else 0))
        now[0] += 1.0
        if watch.due_in_s() <= 0:
            watch.look()
        assert begun == expected, limit
    assert watch.due_in_s() == float("inf")


def large(path: Path) -> Path:
    """Write a model of 4 MiB, another one for each name."""
    weights = np.random.default_rng(len(path.stem)).standard_normal((1024, 1024))
    tensor = numpy_helper.from_array(weights.astype(np.float32), "w")
    names = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1024]) for name in "xy"
    }
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [names["x"]], [names["y"]], [tensor])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.mark.parametrize("has_file", [True, False])
def test_what_is_loaded_later_is_evicted_and_made_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_file: bool
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    limits: list[int | None] = [None]
    monkeypatch.setattr("coinfer.api.engine.memory_limit_bytes", lambda: limits[-1])
    monkeypatch.setattr("coinfer.runtime.limit_watch.PERIOD_S", 0.01)
    monkeypatch.setattr("coinfer.runtime.memory_watch._LIMIT_PERIOD_S", 0.01)
    monkeypatch.setattr("coinfer.runtime.memory_watch.PERIOD_S", 0.01)
    for watch in (limit_watch, memory_watch):
        monkeypatch.setattr(watch, "process_memory", lambda: None)
    paths = [large(tmp_path / f"{name}.onnx") for name in NAMES]
    models = {path.stem: load_model(path) for path in paths}
    alike = models["a"] if has_file else models["a"].with_graph(models["a"].graph.clone())
    entry = Measurement(seconds=(1e-4,), load_s=1e-3, resident_bytes=10 * MIB)
    profile = Profile({ProfileKey(name, "cpu"): entry for name in (*NAMES, "new", "alike")})
    inputs = models["a"].sample_inputs()
    with Engine(models, processors=[CPU], profile=profile, pin=False) as running:
        limits.append(25 * MIB)  # two of them

        def ask_until(loads: int, *names: str) -> None:
            until_s = clock.now() + 20.0
            while running.stats().memory.loads < loads:
                assert clock.now() < until_s
                for name in names:
                    running.infer(name, inputs, timeout_s=20.0)

        ask_until(3, *NAMES)
        running.load("alike", alike, profile=profile)  # the same sessions as of "a"
        running.load("new", load_model(large(tmp_path / "dddd.onnx")), profile=profile)
        ask_until(20, *NAMES, "alike", "new")
        memory = running.stats().memory
        assert memory.budget_bytes == memory.resident_bytes == {"host": 20 * MIB}
        limits.append(None)
        until_s = clock.now() + 20.0
        while running.stats().memory.resident_bytes != {"host": 40 * MIB}:
            assert clock.now() < until_s
            for name in (*NAMES, "alike", "new"):
                running.infer(name, inputs, timeout_s=20.0)


def test_a_model_is_made_again_of_its_file_unless_that_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    limits: list[int | None] = [None]
    monkeypatch.setattr("coinfer.api.engine.memory_limit_bytes", lambda: limits[-1])
    monkeypatch.setattr("coinfer.runtime.limit_watch.PERIOD_S", 0.01)
    for watch in (limit_watch, memory_watch):
        monkeypatch.setattr(watch, "process_memory", lambda: None)
    paths = [large(tmp_path / f"{name}.onnx") for name in NAMES]
    models = {path.stem: load_model(path) for path in paths}
    models["ccc"] = models["ccc"].with_graph(models["ccc"].graph.clone())  # of no file
    entry = Measurement(seconds=(1e-4,), load_s=1e-3, resident_bytes=10 * MIB)
    profile = Profile({ProfileKey(name, "cpu"): entry for name in NAMES})
    inputs = models["a"].sample_inputs()
    with Engine(models, processors=[CPU], profile=profile, pin=False) as running:
        expected = running.infer("bb", inputs)
        held = held_on_host(running.plan, running._model_store.can_load_again)
        assert (sorted(held.places), held.others) == (["a", "bb"], 10 * MIB)
        paths[0].rename(tmp_path / "away")
        assert not running._model_store.can_load_again("a")
        (tmp_path / "away").rename(paths[0])
        limits.append(30 * MIB)  # one stays, and one of the two others beside it
        for _ in range(1000):
            found = {name: running.infer(name, inputs, timeout_s=20.0) for name in NAMES}
            if running.stats().memory.loads > 2:
                break
        else:
            raise AssertionError("the limit is not followed")
        for name, value in expected.items():
            np.testing.assert_array_equal(found["bb"][name], value)
        assert running.stats().memory.budget_bytes == {"host": 14 * MIB}
        running.unload("ccc")
        until_s = clock.now() + 20.0
        while running.stats().memory.budget_bytes != {"host": 20 * MIB}:
            assert clock.now() < until_s
        running.infer("a", inputs, timeout_s=20.0)
        limits.append(15 * MIB)
        while running.stats().memory.resident_bytes != {"host": 10 * MIB}:
            assert clock.now() < until_s
        running.infer("bb", inputs, timeout_s=20.0)
        paths[0].write_bytes(b"something else")
        running.infer("bb", inputs, timeout_s=20.0)
        with pytest.raises(ExecutionError, match=r"a\.onnx is not the file that it was"):
            running.infer("a", inputs, timeout_s=20.0)
        running.infer("bb", inputs, timeout_s=20.0)


def test_what_is_loaded_is_found_by_one_walk_through_the_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = Measurement(seconds=(1e-4,), resident_bytes=10)
    profile = Profile({ProfileKey(name, "cpu"): entry for name in NAMES})
    plan = Plan.of(Machine(processors=(CPU,), profile=profile))
    walks = list[Plan]()
    monkeypatch.setattr(Plan, "profile", property(lambda mine: walks.append(mine) or profile))
    held = held_on_host(plan, lambda name: name != "a")
    assert (sorted(held.places), held.movable, held.others) == (["bb", "ccc"], 20, 10)
    assert len(walks) == 1
