"""Express processors in an engine: once one is used, all others lose their priority."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest

from coinfer.api import Engine
from coinfer.backends.base import Session, Tensor, Tensors
from coinfer.backends.null import NullBackend
from coinfer.backends.onnxruntime import OnnxRuntimeBackend
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.testing.models import tiny_linear
from coinfer.threads.priority import LOWEST

MODEL = tiny_linear().model
FEED = MODEL.sample_inputs()
PATIENCE_S = 30.0
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")


def cpus(backend: str = "null") -> tuple[Processor, ...]:
    return (
        Processor(name="cpu0", backend=backend, units=frozenset({"core0"})),
        Processor(name="npu", backend=backend, units=frozenset({"npu"})),
        Processor(
            name="cpu0+",
            backend=backend,
            units=frozenset({"core0+"}),
            overlays=frozenset({"core0"}),
        ),
    )


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class Noting(NullBackend):
    """Notes with what niceness sessions are created and run; runs of `slow` wait to be let go."""

    def __init__(self) -> None:
        super().__init__()
        self.creates: dict[str, int] = {}
        self.runs: dict[str, list[int]] = {}
        self.began = threading.Event()
        self.go_on = threading.Event()

    def sharing_key(self, processor: Processor) -> str:
        return processor.name

    def load(self, model: Model, processor: Processor) -> Session:
        self.creates[processor.name] = niceness()
        return _Session(super().load(model, processor), self, processor.name)


class _Session:
    def __init__(self, session: Session, noting: Noting, name: str) -> None:
        self._session, self._noting, self._name = session, noting, name
        self.placement, self.close = session.placement, session.close

    def run(self, feeds: Tensors) -> Mapping[str, Tensor]:
        noting = self._noting
        noting.runs[self._name] = [niceness()]
        if self._name == "cpu0":
            noting.began.set()
            assert noting.go_on.wait(PATIENCE_S)
            noting.runs[self._name].append(niceness())
        return self._session.run(feeds)


def overtake(engine: Engine, backend: Noting) -> None:
    """Let an urgent request be answered while another one runs on its core."""
    slow = engine.submit("slow", FEED)
    assert backend.began.wait(PATIENCE_S)
    engine.submit("quick", FEED, deadline_s=5.0).result(PATIENCE_S)
    assert not slow.done()
    backend.go_on.set()
    slow.result(PATIENCE_S)


@linux
def test_an_urgent_request_overtakes_what_runs_on_its_core() -> None:
    backend = Noting()
    seconds = {"slow": {"cpu0": 10.0}, "quick": {"cpu0": 1e-3}}
    with Engine(
        {"slow": MODEL, "quick": MODEL},
        processors=cpus(),
        profile=Profile.from_seconds(seconds),
        backends={"null": backend},
        pin=False,
    ) as engine:
        overtake(engine, backend)
        before = niceness()
        assert backend.runs == {"cpu0": [before, LOWEST], "cpu0+": [before]}
        assert backend.creates == {"cpu0": before, "cpu0+": before}
        engine.load("late", MODEL, Profile.from_seconds({"late": {"cpu0": 1e-3}}))
        assert backend.creates == {"cpu0": LOWEST, "cpu0+": before}
        engine.infer("late", FEED)
        assert backend.runs["cpu0"] == [LOWEST, LOWEST]


@linux
def test_on_a_gpu_no_thread_gives_way() -> None:
    backend = Noting()
    seconds = {"slow": {"cpu0": 10.0}, "quick": {"cpu0": 1e-3}}
    with Engine(
        {"slow": MODEL, "quick": MODEL},
        processors=[replace(each, device="CUDA:0") for each in cpus()],
        profile=Profile.from_seconds(seconds),
        backends={"null": backend},
        pin=False,
    ) as engine:
        overtake(engine, backend)
        before = niceness()
        assert backend.runs == {"cpu0": [before, before], "cpu0+": [before]}


@linux
def test_a_pool_that_a_session_made_before_gives_way_too() -> None:
    class Pooling(Noting):
        """Has a thread of its own, as libraries have, made where the session is created."""

        def __init__(self) -> None:
            super().__init__()
            self.pools: dict[str, threading.Thread] = {}
            self.ended = threading.Event()

        def load(self, model: Model, processor: Processor) -> Session:
            thread = threading.Thread(target=self.ended.wait, args=(PATIENCE_S,), daemon=True)
            thread.start()
            self.pools[processor.name] = thread
            return super().load(model, processor)

    backend = Pooling()
    backend.go_on.set()
    with Engine(
        {"m": MODEL},
        processors=cpus(),
        profile=Profile.from_seconds({"m": {"cpu0": 1e-3}}),
        backends={"null": backend},
        pin=False,
    ) as engine:

        def pool_niceness() -> dict[str, int]:
            ids = {name: thread.native_id for name, thread in backend.pools.items()}
            return {n: os.getpriority(os.PRIO_PROCESS, number) for n, number in ids.items()}

        before = niceness()
        assert pool_niceness() == {"cpu0": before, "cpu0+": before}
        backend.go_on.clear()
        engine.submit("m", FEED)
        assert backend.began.wait(PATIENCE_S)
        engine.submit("m", FEED, priority=1).result(PATIENCE_S)
        assert pool_niceness() == {"cpu0": LOWEST, "cpu0+": before}
        backend.go_on.set()
    backend.ended.set()


@linux
def test_without_express_processors_nobody_yields() -> None:
    backend = Noting()
    backend.go_on.set()
    with Engine(
        {"m": MODEL},
        processors=cpus()[:2],
        profile=Profile.from_seconds({"m": {"cpu0": 1e-3}}),
        backends={"null": backend},
        pin=False,
    ) as engine:
        engine.infer("m", FEED)
    assert backend.creates == {"cpu0": niceness()}
    assert backend.runs == {"cpu0": [niceness(), niceness()]}


def test_onnxruntime_shares_one_session_with_the_processor_below() -> None:
    loads: list[str] = []

    class Counting(OnnxRuntimeBackend):
        def load(self, model: Model, processor: Processor) -> Session:
            loads.append(processor.name)
            return super().load(model, processor)

    with Engine(
        {"m": MODEL},
        processors=cpus("onnxruntime"),
        profile=Profile.from_seconds({"m": {"cpu0": 1e-3}}),
        backends={"onnxruntime": Counting()},
        pin=False,
    ) as engine:
        engine.infer("m", FEED)
        assert engine.placement("m").keys() == {"cpu0", "cpu0+"}
    assert loads == ["cpu0"]
