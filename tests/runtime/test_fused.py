"""Fused variants on real sessions: everybody gets what he would get alone, whatever fails."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coinfer
from coinfer.artefacts.settings import VARIABLE as ARTEFACTS
from coinfer.backends.base import Session, Tensors
from coinfer.backends.patience import HangError
from coinfer.backends.registry import get_backend
from coinfer.cache_folder import VARIABLE as CACHE
from coinfer.core.commands import Run
from coinfer.core.dispatcher import Limits
from coinfer.errors import BackendError, ConfigurationError, ExecutionError, UnknownNameError
from coinfer.graph.fusing.member import members_of
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.model import Model
from coinfer.plan import Plan
from coinfer.plan.fused_plan import FusedPlan
from coinfer.plan.variant import GraphFile
from coinfer.planner.fusing import graphs
from coinfer.planner.model_source import resolve_model
from coinfer.runtime.engine import Engine
from coinfer.testing.models import tiny_linear, two_inputs

WAIT_S = 20.0
CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))
NAMES = ("a", "b", "c", "d")
FREE = Limits(max_blocking_s=math.inf)


class Watch:
    """Notes what runs."""

    def __init__(self) -> None:
        self.fused: list[str] = []
        self.variants: list[str] = []
        self.alone = 0

    def observe(self, event: Any, commands: Any, now: float) -> None:
        for command in commands:
            if type(command) is Run:
                requests = command.execution.requests
                self.variants.append(command.execution.variant)
                if command.execution.is_fused:
                    self.fused.append("".join(sorted(r.model for r in requests)))
                else:
                    self.alone += 1


class Gate:
    """A session that waits before it runs, or fails, as the test wants."""

    def __init__(
        self,
        session: Session,
        gate: threading.Event,
        entered: threading.Event,
        broken: list[str],
    ) -> None:
        self._session, self._gate, self._broken = session, gate, broken
        self._entered = entered
        self.placement, self.close = session.placement, session.close

    def run(self, inputs: Tensors) -> dict[str, Any]:
        self._entered.set()
        assert self._gate.wait(WAIT_S)
        is_fused = any("/" in name for name in inputs)
        if is_fused and self._broken:
            raise RuntimeError(self._broken[0])
        return self._session.run(inputs)


class Gated:
    """onnxruntime behind a gate: nothing runs before it opens."""

    def __init__(self, *, refuses: str = "") -> None:
        self._real: Any = get_backend("onnxruntime")
        self.gate, self.broken, self._refuses = threading.Event(), list[str](), refuses
        self.entered = threading.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        if name in ("artefact_parts", "make_artefact"):
            raise AttributeError(name)
        return getattr(self._real, name)

    def load(self, model: Model, processor: Processor, *args: Any, **options: Any) -> Session:
        if self._refuses and model.name == self._refuses:
            raise BackendError("no room")
        session = self._real.load(model, processor, *args, **options)
        return Gate(session, self.gate, self.entered, self.broken)


class Counting:
    """onnxruntime that notes what is loaded."""

    def __init__(self) -> None:
        self._real: Any = get_backend("onnxruntime")
        self.loaded: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def load(self, model: Model, processor: Processor, *args: Any, **options: Any) -> Any:
        self.loaded.append(model.name)
        return self._real.load(model, processor, *args, **options)


def models(example: str = "zoo:tiny_cnn") -> dict[str, Model]:
    return {n: resolve_model(f"{example}?seed={at}", name=n) for at, n in enumerate(NAMES)}


def made(
    members: Mapping[str, Model],
    backend: Any,
    watch: Watch | None = None,
    memory: int = 0,
    above: tuple[Processor, ...] = (),
) -> Engine:
    """An engine with a fused variant that the profile likes; members take 100 bytes each."""
    fused = coinfer.fuse(list(members.values()), name="all").model
    each_s = 1.0 if above else 1e-3  # what is short is not preempted
    seconds = {**dict.fromkeys(members, each_s), "all": 1.2 * each_s}
    sizes = {**dict.fromkeys(members, 100), "all": 100 * len(members)}
    entries = {
        ProfileKey(name, "cpu0"): Measurement(
            seconds=(each,), load_s=0.01, resident_bytes=sizes[name]
        )
        for name, each in seconds.items()
    }
    machine = Machine(processors=(CPU, *above), profile=Profile(entries))
    plan = Plan.of(machine, models=members)
    plan = dataclasses.replace(plan, memory={"host": memory} if memory else {})
    plan = plan.with_fused(
        "all", FusedPlan(models=tuple(members), graph=GraphFile("", ""), processors=("cpu0",))
    )
    engine = Engine(
        plan,
        {**members, "all": fused},
        backends={"onnxruntime": backend},
        observer=watch,
        limits=FREE,
    )
    backend.gate.clear()
    backend.entered.clear()
    return engine


@pytest.fixture
def backend() -> Gated:
    return Gated()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def engine(backend: Gated, watch: Watch) -> Iterator[Engine]:
    with made(models(), backend, watch) as engine:
        try:
            yield engine
        finally:
            backend.gate.set()


def alone(name: str, feed: Tensors) -> dict[str, Any]:
    session = get_backend("onnxruntime").load(models()[name], CPU)
    try:
        return session.run(feed)
    finally:
        session.close()


def feed(name: str, seed: int = 0) -> dict[str, Any]:
    return models()[name].sample_inputs(seed=seed)


def close_to(outputs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-6)


class TestAnswers:
    def test_everybody_gets_his_own(self, engine: Engine, backend: Gated, watch: Watch) -> None:
        first = engine.submit("a", feed("a", 9))  # keeps the processor while the others come
        assert backend.entered.wait(WAIT_S)
        futures = {name: engine.submit(name, feed(name, at)) for at, name in enumerate(NAMES)}
        backend.gate.set()
        for at, (name, future) in enumerate(futures.items()):
            close_to(future.result(WAIT_S), alone(name, feed(name, at)))
        first.result(WAIT_S)
        assert watch.fused == ["abcd"]

    def test_absent_members_are_padded(self, engine: Engine, backend: Gated, watch: Watch) -> None:
        first = engine.submit("a", feed("a"))
        assert backend.entered.wait(WAIT_S)
        futures = {name: engine.submit(name, feed(name, 3)) for name in "cb"}
        backend.gate.set()
        for name, future in futures.items():
            close_to(future.result(WAIT_S), alone(name, feed(name, 3)))
        first.result(WAIT_S)
        assert watch.fused == ["bc"]

    def test_no_input_reaches_another_answer(self, engine: Engine, backend: Gated) -> None:
        def answers(poison: float | None) -> dict[str, Any]:
            backend.gate.clear()
            first = engine.submit("a", feed("a"))
            assert backend.entered.wait(WAIT_S)
            feeds = {name: feed(name, 5) for name in NAMES}
            if poison is not None:
                feeds["b"] = {n: np.full_like(x, poison) for n, x in feeds["b"].items()}
            futures = {name: engine.submit(name, each) for name, each in feeds.items()}
            backend.gate.set()
            first.result(WAIT_S)
            return {name: future.result(WAIT_S) for name, future in futures.items()}

        clean = answers(None)
        for poison in (math.nan, math.inf, 1e30):
            spoilt = answers(poison)
            for name in "acd":
                for output, value in clean[name].items():
                    np.testing.assert_array_equal(spoilt[name][output], value)

    def test_names_of_inputs_may_differ(self, backend: Gated, watch: Watch) -> None:
        one = two_inputs().model
        members = {"a": one.renamed("a"), "b": one.renamed("b")}
        with made(members, backend, watch) as engine:
            feeds = {name: one.sample_inputs(seed=at) for at, name in enumerate(members)}
            first = engine.submit("a", feeds["a"])
            assert backend.entered.wait(WAIT_S)
            futures = {name: engine.submit(name, each) for name, each in feeds.items()}
            backend.gate.set()
            first.result(WAIT_S)
            for name, future in futures.items():
                close_to(future.result(WAIT_S), two_inputs().reference(feeds[name]))
        assert watch.fused == ["ab"]

    def test_batches_of_one_size_share_a_run(
        self, engine: Engine, backend: Gated, watch: Watch
    ) -> None:
        member = models()["a"]
        first = engine.submit("a", feed("a"))
        assert backend.entered.wait(WAIT_S)
        inputs = {name: member.sample_inputs(seed=at, batch=3) for at, name in enumerate("bcd")}
        futures = {name: engine.submit(name, each) for name, each in inputs.items()}
        backend.gate.set()
        first.result(WAIT_S)
        for name, future in futures.items():
            close_to(future.result(WAIT_S), alone(name, inputs[name]))
        assert watch.fused == ["bcd"]


class TestFaults:
    def test_riders_of_a_failed_run_are_answered_alone(
        self, engine: Engine, backend: Gated, watch: Watch
    ) -> None:
        backend.broken.append("kaputt")
        first = engine.submit("a", feed("a"))
        assert backend.entered.wait(WAIT_S)
        futures = {name: engine.submit(name, feed(name, 1)) for name in NAMES}
        backend.gate.set()
        for name, future in futures.items():
            close_to(future.result(WAIT_S), alone(name, feed(name, 1)))
        first.result(WAIT_S)
        assert watch.fused == ["abcd"]
        assert any("kaputt" in str(warning) for warning in engine.warnings)
        assert not engine.outages

    def test_what_one_member_cannot_run_fails_for_it_alone(
        self, backend: Gated, watch: Watch
    ) -> None:
        members = {
            name: resolve_model(f"zoo:tiny_encoder?seed={at}", name=name)
            for at, name in enumerate(NAMES)
        }
        with made(members, backend, watch) as engine:
            good = {name: model.sample_inputs(seed=1) for name, model in members.items()}
            bad = {n: np.full_like(x, 10**6) for n, x in good["b"].items()}
            first = engine.submit("a", good["a"])
            assert backend.entered.wait(WAIT_S)
            futures = {n: engine.submit(n, bad if n == "b" else good[n]) for n in NAMES}
            backend.gate.set()
            first.result(WAIT_S)
            with pytest.raises(ExecutionError, match="'b'"):
                futures["b"].result(WAIT_S)
            for name in "acd":
                assert futures[name].result(WAIT_S)
        assert watch.fused == ["abcd"]

    def test_a_cancelled_rider_disturbs_nobody(self, engine: Engine, backend: Gated) -> None:
        first = engine.submit("a", feed("a"))
        assert backend.entered.wait(WAIT_S)
        futures = {name: engine.submit(name, feed(name, 1)) for name in NAMES}
        assert futures["b"].cancel()
        backend.gate.set()
        first.result(WAIT_S)
        for name in "acd":
            close_to(futures[name].result(WAIT_S), alone(name, feed(name, 1)))

    def test_one_that_cannot_be_loaded_is_left_out(self, watch: Watch) -> None:
        backend = Gated(refuses="all")
        with made(models(), backend, watch) as engine:
            backend.gate.set()
            assert any("are not fused: " in str(warning) for warning in engine.warnings)
            assert not engine.plan.fused
            assert engine.infer("a", feed("a"))


class TestBudget:
    def test_a_member_that_is_not_loaded_is_answered_by_the_fused_network_alone(self) -> None:
        backend, watch = Gated(), Watch()
        engine = made(models(), backend, watch, memory=500)
        with engine:
            backend.gate.set()
            assert engine.stats().memory.resident_bytes == {"host": 500}, "one member, and all"
            for name in NAMES:
                outputs = engine.infer(name, feed(name), timeout_s=WAIT_S)
                close_to(outputs, alone(name, feed(name)))
            assert watch.variants == ["a", "all", "all", "all"]
            assert engine.stats().memory.loads == 2

    def test_where_it_has_no_room_members_are_loaded_in_turn(self) -> None:
        backend, watch = Gated(), Watch()
        engine = made(models(), backend, watch, memory=100)
        with engine:
            backend.gate.set()
            for name in NAMES:
                outputs = engine.infer(name, feed(name), timeout_s=WAIT_S)
                close_to(outputs, alone(name, feed(name)))
            assert watch.variants == list(NAMES)


class TestMembers:
    def test_the_others_go_on_when_one_is_unloaded(
        self, engine: Engine, backend: Gated, watch: Watch
    ) -> None:
        engine.unload("b")
        first = engine.submit("a", feed("a"))
        assert backend.entered.wait(WAIT_S)
        futures = {name: engine.submit(name, feed(name, 1)) for name in "acd"}
        backend.gate.set()
        for name, future in futures.items():
            close_to(future.result(WAIT_S), alone(name, feed(name, 1)))
        first.result(WAIT_S)
        assert watch.fused == ["acd"]
        with pytest.raises(UnknownNameError):
            engine.submit("all", {})

    def test_its_sessions_are_closed_with_the_last_but_one(self, backend: Gated) -> None:
        with made(models(), backend) as engine:
            backend.gate.set()
            store = engine._model_store
            for name in "ab":
                engine.unload(name)
            assert store.items("all")
            engine.unload("c")
            assert not store.items("all")
            assert engine.infer("d", feed("d"))

    def test_one_comes_and_one_goes_while_the_other_groups_answer(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Nothing is built for it but the session of the one that comes."""
        monkeypatch.setenv(ARTEFACTS, "100MiB")
        monkeypatch.setenv(CACHE, str(tmp_path))
        groups = [[f"t{at}" for at in range(start, start + 3)] for start in (0, 3, 6)]
        tenants = [name for group in groups for name in group]
        sources = {name: f"zoo:tiny_mlp?seed={at}" for at, name in enumerate(tenants)}
        counting, graphs_made, make = Counting(), list[str](), graphs._made

        def counted(name: str, *rest: Any) -> Any:
            graphs_made.append(name)
            return make(name, *rest)

        monkeypatch.setattr(graphs, "_made", counted)
        feeds = {
            name: resolve_model(source, name=name).sample_inputs(seed=at)
            for at, (name, source) in enumerate(sources.items())
        }
        with coinfer.Engine(
            sources, processors=[CPU], fuse=groups, backends={"onnxruntime": counting}, measure_s=60
        ) as engine:
            assert [list(each.models) for each in engine.plan.fused.values()] == groups
            assert len(graphs_made) == 3
            loaded, others = len(counting.loaded), tenants[3:]
            expected = {name: engine.infer(name, feeds[name]) for name in others}
            stop, answered = threading.Event(), list[int]()

            def ask() -> None:
                while not stop.is_set():
                    futures = {name: engine.submit(name, feeds[name]) for name in others}
                    for name, future in futures.items():
                        close_to(future.result(WAIT_S), expected[name])
                    answered.append(len(futures))

            with ThreadPoolExecutor(1) as pool:
                asking = pool.submit(ask)
                engine.unload("t0")
                new = resolve_model("zoo:tiny_mlp?seed=99", name="new")
                engine.load("new", new, Profile.from_seconds({"new": {"cpu0": 1e-4}}))
                count = len(answered)
                engine.infer("new", new.sample_inputs())
                while len(answered) < count + 3 and not asking.done():
                    time.sleep(0.001)
                stop.set()
                asking.result(WAIT_S)
            assert len(graphs_made) == 3
            assert counting.loaded[loaded:] == ["new"]

    def test_its_name_is_taken(self, engine: Engine, backend: Gated) -> None:
        with pytest.raises(ConfigurationError, match="'all' is loaded"):
            engine._model_store.check_free("all")

    def test_a_graph_of_other_models_is_refused(self) -> None:
        fused = coinfer.fuse(["zoo:tiny_cnn", "zoo:tiny_cnn?seed=1"]).model
        with pytest.raises(coinfer.errors.ModelError, match="inputs and outputs of the models"):
            members_of(fused, models())
        with pytest.raises(coinfer.errors.ModelError, match="inputs and outputs of the models"):
            members_of(fused, {"a": tiny_linear().model})


def test_stats_count_what_it_holds(engine: Engine, backend: Gated) -> None:
    backend.gate.set()
    engine.infer("a", feed("a"))
    assert "all" in engine.stats().processors["cpu0"].loaded


class TestOnTop:
    """On an express processor: a library that hangs there."""

    class HangsOnTop(Gated):
        """Loads what it is asked for, but for the fused variant on the express processor."""

        def sharing_key(self, processor: Processor) -> str:
            return processor.name

        def load(self, model: Model, processor: Processor, *args: Any, **options: Any) -> Session:
            if processor.overlays and model.name == "all":
                raise HangError("it hangs")
            if processor.overlays:
                return self._real.load(model, processor, *args, **options)
            return super().load(model, processor, *args, **options)

    def test_a_variant_that_cannot_be_loaded_there_runs_nowhere_on_that_core(self) -> None:
        backend, watch, members = self.HangsOnTop(), Watch(), models()
        express = Processor(
            name="cpu0+",
            backend="onnxruntime",
            units=frozenset({"core0+"}),
            overlays=frozenset({"core0"}),
        )
        with made(members, backend, watch, above=(express,)) as engine:
            first = engine.submit("a", feed("a"))  # a long run, as is measured
            assert backend.entered.wait(WAIT_S)
            futures = [engine.submit(name, feed(name), deadline_s=10.0) for name in "bcd"]
            for name, future in zip("bcd", futures, strict=True):
                close_to(future.result(WAIT_S), alone(name, feed(name)))
            backend.gate.set()
            first.result(WAIT_S)
            assert engine.fault is None
            assert any("it hangs" in warning for warning in engine.warnings)
        assert watch.fused == []
