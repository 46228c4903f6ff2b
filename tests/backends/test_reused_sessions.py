"""Sessions that outlive an engine: made once, run by each engine, closed at the end."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from coinfer.api import Engine
from coinfer.backends.base import Backend, Session
from coinfer.backends.null import NullBackend, NullSession
from coinfer.backends.reused_sessions import reused_sessions
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.testing.models import tiny_linear

MODEL = tiny_linear().model
PROFILE = Profile.from_seconds({"m": {"p": 1e-4, "q": 1e-4}})
CPUS = tuple(Processor(name=n, backend="null", units=frozenset({n})) for n in ("p", "q"))


class Counting(NullBackend):
    """Counts the sessions that it makes, and those that are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []
        self.closed = 0

    def load(self, model: Model, processor: Processor) -> NullSession:
        self.made.append(processor.name)
        session = super().load(model, processor)
        inner = session.close

        def close() -> None:
            self.closed += 1
            inner()

        session.close = close  # type: ignore[method-assign]
        return session


def ask(backends: Mapping[str, Backend]) -> None:
    with Engine(
        {"m": MODEL}, processors=CPUS, profile=PROFILE, backends=backends, pin=False
    ) as engine:
        assert engine.infer("m", MODEL.sample_inputs())["y"].shape == (1, 3)


def test_engines_one_after_the_other_use_the_same_sessions() -> None:
    backend = Counting()
    with reused_sessions(CPUS, {"null": backend}) as backends:
        for _ in range(3):
            ask(backends)
        assert backend.made == ["p", "q"]
        assert backend.closed == 0
    assert backend.closed == 2


def interrupted(backend: NullBackend) -> None:
    with reused_sessions(CPUS, {"null": backend}) as backends:
        ask(backends)
        raise KeyboardInterrupt


def test_sessions_are_closed_even_after_an_interruption() -> None:
    backend = Counting()
    with pytest.raises(KeyboardInterrupt):
        interrupted(backend)
    assert backend.closed == len(backend.made) == 2


def test_the_rest_of_a_backend_is_its_own() -> None:
    backend = NullBackend()
    with reused_sessions(CPUS, {"null": backend}) as backends:
        kept = backends["null"]
        assert kept.name == backend.name
        assert kept.versions() == backend.versions()
        assert kept.devices() == backend.devices()
        assert kept.sharing_key(CPUS[0]) == backend.sharing_key(CPUS[0])
        assert kept.supported(MODEL, CPUS[0]) == backend.supported(MODEL, CPUS[0])
        session: Session = kept.load(MODEL, CPUS[0])
        assert session.placement() == backend.load(MODEL, CPUS[0]).placement()
        assert not hasattr(session, "run_part")


class Parts(NullBackend):
    """Makes sessions that can run a part."""

    def load(self, model: Model, processor: Processor) -> NullSession:
        session = super().load(model, processor)
        session.run_part = session.owned = lambda values: dict(values)  # type: ignore[attr-defined]
        return session


def test_parts_of_a_model_stay_parts() -> None:
    with reused_sessions(CPUS, {"null": Parts()}) as backends:
        session = backends["null"].load(MODEL, CPUS[0])
        values = MODEL.sample_inputs()
        assert session.run_part(values) == dict(values)  # type: ignore[attr-defined]
        assert session.owned(values) == dict(values)  # type: ignore[attr-defined]
