"""Workers are pinned to the cores that their backend leaves to them."""

from __future__ import annotations

import os
import sys

import pytest

from coinfer import Engine
from coinfer.backends.base import Session, Tensor, Tensors
from coinfer.backends.null import NullBackend
from coinfer.hardware.cores import available_cores
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.profiling import profile_models
from coinfer.testing.models import tiny_linear
from coinfer.threads.pinning import can_pin

if sys.platform != "linux":
    pytest.skip("threads are pinned on Linux only", allow_module_level=True)
if len(available_cores()) < 2 or not can_pin(available_cores()):
    pytest.skip("needs two cores to which threads can be pinned", allow_module_level=True)

CORES = tuple(available_cores()[:2])
LINEAR = tiny_linear()


class Observed:
    """A session that notes where it is called."""

    def __init__(self, session: Session, seen: list[set[int]]) -> None:
        self._session = session
        self._seen = seen

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        self._seen.append(os.sched_getaffinity(0))
        return self._session.run(inputs)

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)


class KeepsOne(NullBackend):
    """Leaves only the last core to the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[set[int]] = []
        self.loaded: list[Processor] = []

    def caller_cores(self, processor: Processor) -> tuple[int, ...]:
        return processor.cores[-1:]

    def load(self, model: Model, processor: Processor) -> Session:
        self.loaded.append(processor)
        return Observed(super().load(model, processor), self.seen)  # type: ignore[return-value]


def run(*, pin: bool) -> KeepsOne:
    backend = KeepsOne()
    wide = Processor(
        name="wide", backend="null", units=frozenset({"a", "b"}), threads=2, cores=CORES
    )
    with Engine(
        {"m": LINEAR.model},
        processors=[wide],
        profile=Profile.from_seconds({"m": {"wide": 0.001}}),
        backends={"null": backend},
        pin=pin,
    ) as engine:
        engine.submit("m", LINEAR.model.sample_inputs()).result()
    return backend


def test_a_worker_is_pinned_to_the_cores_left_to_it() -> None:
    assert run(pin=True).seen == [{CORES[1]}]


def test_nothing_is_pinned_where_that_is_turned_off() -> None:
    backend = run(pin=False)
    assert backend.seen == [os.sched_getaffinity(0)]
    assert [processor.cores for processor in backend.loaded] == [()]  # so no pool is pinned


def test_times_are_measured_where_the_worker_will_be() -> None:
    backend = KeepsOne()
    wide = Processor(
        name="wide", backend="null", units=frozenset({"a", "b"}), threads=2, cores=CORES
    )
    profile_models({"m": LINEAR.model}, [wide], backends={"null": backend})
    assert {frozenset(cores) for cores in backend.seen} == {frozenset({CORES[1]})}
