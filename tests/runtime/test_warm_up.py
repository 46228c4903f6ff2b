"""Warm-up: each session runs once, on the right values, and the scheduler learns nothing of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinfer.api import Engine
from coinfer.backends.base import Session
from coinfer.backends.null import Faults, NullBackend
from coinfer.backends.values import Values, to_host
from coinfer.core.events import Arrived, Event, Finished
from coinfer.errors import (
    ClosedError,
    ExecutionError,
    InputError,
    UnknownNameError,
)
from coinfer.graph.partition_options import Mode
from coinfer.hardware import default_processors, find_cores
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.runtime import warm_up as module
from coinfer.runtime.span_io import SpanIO
from coinfer.runtime.span_run import run_span
from hardware.fake_machines import server
from planner.cut_models import chain_with_skip, cut
from runtime.engines import FEED, MODEL, cpus, null_engine

WAIT_S = 20.0


class Runs:
    """What ran on null processors, and what the core was told."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str, int]] = []
        self.events: list[Event] = []

    def service_s(self, model: str, processor: str, batch: int) -> float:
        self.ran.append((model, processor, batch))
        return 0.0

    def observe(self, event: Event, _commands: Any, _now: float) -> None:
        self.events.append(event)


def test_each_processor_runs_it_once_and_the_core_does_not_know() -> None:
    runs = Runs()
    with Engine(
        {"m": MODEL, "other": MODEL},
        processors=cpus("p0", "p1", "p2"),
        profile=Profile.from_seconds(
            {"m": {"p0": 0.1, "p2": 0.1}, "other": dict.fromkeys(("p0", "p1"), 0.1)}
        ),
        backends={"null": NullBackend(runs.service_s)},
        pin=False,
        observer=runs,
    ) as engine:
        engine.warm_up("m", FEED)
        assert sorted(runs.ran) == [("m", "p0", 1), ("m", "p2", 1)]
        assert not [event for event in runs.events if isinstance(event, Arrived | Finished)]
        assert engine.n_unanswered == 0


def test_processors_that_share_a_session_run_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain_with_skip().model
    processors = tuple(
        Processor(name=n, backend="onnxruntime", units=frozenset({n})) for n in ("p0", "p1")
    )
    profile = Profile.from_seconds({"m": {"p0": 0.1, "p1": 0.1}})
    ran: list[Session] = []
    with Engine({"m": model}, processors=processors, profile=profile, pin=False) as engine:
        session = engine._model_store.items("m")[0][2]
        run = session.run

        def noted(feed: Any) -> Any:
            ran.append(session)
            return run(feed)

        monkeypatch.setattr(session, "run", noted)
        engine.warm_up("m", model.sample_inputs())
    assert len(ran) == 1


class _LikeOnnxRuntime(NullBackend):
    """One session for all processors of one thread; the worker of a wide one has its first core."""

    def sharing_key(self, processor: Processor) -> Hashable:
        return processor.threads == 1 or processor.name

    def caller_cores(self, processor: Processor) -> tuple[int, ...]:
        return processor.cores[:1] if processor.threads > 1 else processor.cores


def test_memory_is_first_touched_where_the_worker_of_the_session_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server of two sockets: there is its NUMA node. What all share may lie on any."""
    cores = find_cores(root=server(tmp_path), affinity=range(64))
    found = default_processors(["onnxruntime"], cores=cores)
    names = ("cpu0", "cpu32", "cpu2-3", "cpu32-35", "cpu32-63")
    processors = [replace(p, backend="null") for p in found if p.name in names]
    assert len(processors) == len(names)
    placed: list[tuple[int, ...]] = []

    @contextmanager
    def noted(cores: Collection[int]) -> Iterator[None]:
        placed.append(tuple(cores))
        yield

    monkeypatch.setattr(module, "placed_on", noted)
    with Engine(
        {"m": MODEL},
        processors=processors,
        profile=Profile.from_seconds({"m": dict.fromkeys(names, 0.1)}),
        backends={"null": _LikeOnnxRuntime(0.0)},
    ) as engine:
        placed.clear()  # it warms up when it starts, too
        engine.warm_up("m", FEED)
    assert sorted(placed) == [(), (1,), (1,), (4,)]


@pytest.mark.parametrize("mode", [Mode.UNIT, Mode.MERGED])
@pytest.mark.parametrize("batch", [1, 3])
def test_spans_read_what_those_before_them_made(
    mode: Mode, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = chain_with_skip()
    feed = chain.model.sample_inputs(batch=batch)
    expected = chain.reference(feed)
    ran: list[SpanIO] = []
    checked: set[str] = set()

    def noted(
        session: Session, span_io: SpanIO, values: Sequence[Values], sizes: Sequence[int]
    ) -> Sequence[Values]:
        ran.append(span_io)
        assert list(sizes) == [batch]
        made = run_span(session, span_io, values, sizes)
        for name in made[0].keys() & expected.keys():
            np.testing.assert_allclose(to_host(made[0])[name], expected[name], rtol=1e-5, atol=1e-6)
            checked.add(name)
        return made

    monkeypatch.setattr(module, "run_span", noted)
    processors = tuple(
        Processor(name=n, backend="onnxruntime", units=frozenset({n})) for n in ("p0", "p1")
    )
    model = cut(chain.model, (1, 2, 3, 4), ["p0", "p1"], mode=mode)
    with Engine({"m": model}, processors=processors, pin=False) as engine:
        engine.warm_up("m", feed)
        sessions = {id(session) for _, _, session in engine._model_store.items("m")}
    assert len(ran) == len(sessions)
    assert checked == set(expected)


def test_a_failure_is_told_and_the_engine_goes_on() -> None:
    faults = Faults()
    with null_engine("p0", faults=faults) as engine:
        faults.fail()
        with pytest.raises(ExecutionError, match=r"Faults\.fail says so"):
            engine.warm_up("m", FEED)
        assert engine.submit("m", FEED).result(WAIT_S)


def test_what_makes_no_sense_is_refused() -> None:
    with null_engine("p0") as engine:
        with pytest.raises(UnknownNameError, match="model 'n'"):
            engine.warm_up("n", FEED)
        with pytest.raises(InputError, match="it takes"):
            engine.warm_up("m", {})
    with pytest.raises(ClosedError):
        engine.warm_up("m", FEED)


def test_stop_ends_it_and_closes_no_session_that_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults()
    engine = null_engine("p0", "p1", faults=faults)
    store = engine._model_store
    close, order = store.close, list[str]()

    def warm() -> None:
        with pytest.raises(ClosedError, match="stopping"):
            engine.warm_up("m", FEED)
        order.append("warm-up ended")

    def noted() -> None:
        order.append("sessions closed")
        close()

    monkeypatch.setattr(store, "close", noted)
    faults.hang()
    warming, stopping = threading.Thread(target=warm), threading.Thread(target=engine.stop)
    warming.start()
    assert faults.wait_until_hanging()
    stopping.start()
    while engine._event_loop.worker_pool.workers["p0"].join(0.01) is False:
        time.sleep(0.001)
    faults.release()
    warming.join(WAIT_S)
    stopping.join(WAIT_S)
    assert order == ["warm-up ended", "sessions closed"]
