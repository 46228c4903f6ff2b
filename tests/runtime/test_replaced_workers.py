"""Workers that die are replaced one at a time: no thread is started twice, no processor is lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from coinfer.api import Engine
from coinfer.backends.null import NullBackend
from coinfer.errors import CoinferError
from coinfer.machine.profile import Profile
from runtime.engines import FEED, MODEL, cpus, null_engine

WAIT_S = 20.0
DEATHS = 300


@pytest.fixture
def hectic() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Deadly(NullBackend):
    """Every second run ends its thread."""

    def __init__(self) -> None:
        super().__init__()
        self.deaths = 0
        self._runs = 0

    def load(self, model, processor):
        session = super().load(model, processor)
        run = session.run

        def deadly(inputs):
            self._runs += 1
            if self._runs % 2:
                self.deaths += 1
                raise SystemExit
            return run(inputs)

        session.run = deadly
        return session


@pytest.mark.usefixtures("hectic")
def test_loads_beside_deaths_lose_no_processor() -> None:
    backend = Deadly()
    failures: list[BaseException] = []
    ended = threading.Event()
    profile = Profile.from_seconds({"m": {"p0": 1e-4, "p1": 1e-4}})
    engine = Engine(
        {"m": MODEL},
        processors=cpus("p0", "p1"),
        profile=profile,
        backends={"null": backend},
        pin=False,
    )

    def load_and_unload() -> None:
        extra = Profile.from_seconds({"extra": {"p0": 1e-4, "p1": 1e-4}})
        while not ended.is_set():
            try:
                engine.load("extra", MODEL, extra)
                engine.unload("extra")
            except BaseException as error:  # noqa: BLE001 - any is a failure
                failures.append(error)

    with engine:
        loader = threading.Thread(target=load_and_unload, daemon=True)
        loader.start()
        while backend.deaths < DEATHS:
            for future in [engine.submit("m", FEED) for _ in range(8)]:
                error = future.exception(WAIT_S)
                assert error is None or isinstance(error, CoinferError)
        ended.set()
        loader.join(WAIT_S)
        assert engine.drain(WAIT_S)
        assert all(outage.is_over for outage in engine.outages)
        names = [t.name for t in threading.enumerate() if t.name.startswith("coinfer-p")]
        for _ in range(50):  # one that died may still be on its way out
            if sorted(names) == ["coinfer-p0", "coinfer-p1"]:
                break
            engine.drain(0.02)
            names = [t.name for t in threading.enumerate() if t.name.startswith("coinfer-p")]
        assert sorted(names) == ["coinfer-p0", "coinfer-p1"]
    assert failures == []


def test_a_processor_without_a_thread_left_is_out_of_service_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with null_engine("p0", "p1") as engine:
        engine.infer("m", FEED)
        pool = engine._event_loop.worker_pool

        def no_thread(worker):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(pool, "replace", no_thread)
        engine._event_loop.died(pool.workers["p0"], "its worker died: test")
        for _ in range(5):
            assert engine.submit("m", FEED).exception(WAIT_S) is None
        assert any("stays out of service" in warning for warning in engine.warnings)
