"""An engine keeps its processors' cores awake if it is asked to, as long as it lives."""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager

import psutil
import pytest

from coinfer.api import Engine
from coinfer.backends.null import NullBackend
from coinfer.hardware.cgroup import cpu_quota
from coinfer.hardware.cores import available_cores
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from runtime.engines import FEED, MODEL

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        sys.platform != "linux" or cpu_quota() is not None,
        reason="needs a scheduling class of Linux, and all of the processor time",
    ),
]
CORE = available_cores()[0]


def engine(*, keep_awake: bool, cores: tuple[int, ...] = (CORE,)) -> Engine:
    processors = [
        Processor(name=name, backend="null", units=frozenset({"core"}), cores=cores)
        for name in ("one", "other")
    ]
    return Engine(
        {"m": MODEL},
        processors=processors,
        profile=Profile.from_seconds({"m": {"one": 1e-4, "other": 1e-4}}),
        backends={"null": NullBackend()},
        pin=False,
        keep_awake=keep_awake,
    )


def n_spinning() -> int:
    return len(psutil.Process().children())


def test_each_core_spins_once_until_the_engine_stops() -> None:
    with engine(keep_awake=True) as awake:
        assert n_spinning() == 1
        assert set(awake.infer("m", FEED)) == {"y"}
        assert awake.warnings == []
    assert n_spinning() == 0


def test_cores_may_go_idle_unless_it_is_asked_for() -> None:
    with engine(keep_awake=False):
        assert n_spinning() == 0


def test_a_core_that_cannot_be_kept_awake_is_a_warning() -> None:
    with engine(keep_awake=True, cores=(10_000,)) as awake:
        assert awake.warnings == ["cores are not kept awake: [Errno 22] Invalid argument"]
        assert set(awake.infer("m", FEED)) == {"y"}


def test_nothing_spins_on_if_the_user_does_not_wait_for_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    awake = engine(keep_awake=True)
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "drain", interrupted)
        with pytest.raises(KeyboardInterrupt):
            awake.stop()
    assert n_spinning() == 0
    awake.stop()


def interrupted(_engine: Engine, _timeout_s: float | None = None) -> bool:
    raise KeyboardInterrupt


def test_an_engine_whose_start_is_interrupted_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = threading.active_count()
    monkeypatch.setattr("coinfer.api.engine.awake", interrupted_start)
    with pytest.raises(KeyboardInterrupt):
        engine(keep_awake=True)
    assert threading.active_count() == before


def interrupted_start(_cores: list[int]) -> AbstractContextManager[str]:
    raise KeyboardInterrupt
