"""The null backend takes the time it is told, returns zeros, and fails on demand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from coinfer.backends import null
from coinfer.backends.null import Faults, NullBackend, NullSession
from coinfer.errors import BackendError, ConfigurationError, ExecutionError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.testing.models import model_from_text, tiny_linear, two_inputs

CPU0 = Processor(name="cpu0", backend="null", device="NULL", units=frozenset({"core0"}))
CPU1 = Processor(name="cpu1", backend="null", device="NULL", units=frozenset({"core1"}))


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    naps: list[float] = []
    monkeypatch.setattr(null.time, "sleep", naps.append)
    return naps


def run(backend: NullBackend, *, processor: Processor = CPU0, batch: int = 1) -> NullSession:
    example = tiny_linear()
    session = backend.load(example.model, processor)
    session.run(example.model.sample_inputs(batch=batch))
    return session


def test_no_service_time_makes_no_call_to_sleep(slept: list[float]) -> None:
    run(NullBackend())
    assert slept == []


def test_a_number_is_the_time_of_every_run(slept: list[float]) -> None:
    run(NullBackend(0.25), batch=3)
    assert slept == [0.25]


def test_a_function_gets_model_processor_and_batch(slept: list[float]) -> None:
    calls: list[tuple[str, str, int]] = []

    def service(model: str, processor: str, batch: int) -> float:
        calls.append((model, processor, batch))
        return 0.5 * batch

    run(NullBackend(service), processor=CPU1, batch=3)
    assert calls == [("tiny_linear", "cpu1", 3)]
    assert slept == [1.5]


def test_a_profile_gives_the_mean_of_its_processor(slept: list[float]) -> None:
    profile = Profile.from_seconds({"tiny_linear": {"cpu0": 0.1, "cpu1": 0.2}})
    run(NullBackend(profile), processor=CPU1, batch=2)
    assert slept == [pytest.approx(0.4)]


def test_a_model_that_the_profile_lacks_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no entry for model 'tiny_linear'"):
        run(NullBackend(Profile()))


def test_outputs_are_zeros_of_the_batchs_shape() -> None:
    example = two_inputs()
    session = NullBackend().load(example.model, CPU0)
    outputs = session.run(example.model.sample_inputs(batch=4))
    assert list(outputs) == ["product", "total"]
    assert all(array.shape == (4, 5) and not array.any() for array in outputs.values())


def test_a_size_that_no_input_determines_is_one() -> None:
    model = model_from_text(
        "agraph (float[N] x) => (int64[D,M] y) { y = NonZero(x) }", name="nonzero"
    )
    session = NullBackend().load(model, CPU0)
    assert session.run({"x": np.ones(3, np.float32)})["y"].shape == (1, 1)


def test_shared_outputs_cannot_be_written() -> None:
    example = tiny_linear()
    session = NullBackend().load(example.model, CPU0)
    outputs = session.run(example.model.sample_inputs())
    with pytest.raises(ValueError, match="read-only"):
        outputs["y"][0] = 1


def test_the_returned_mapping_belongs_to_the_caller() -> None:
    example = tiny_linear()
    session = NullBackend().load(example.model, CPU0)
    session.run(example.model.sample_inputs()).clear()
    assert "y" in session.run(example.model.sample_inputs())


def test_processors_do_not_share_sessions() -> None:
    backend = NullBackend()
    assert backend.sharing_key(CPU0) != backend.sharing_key(CPU1)


def test_runs_fail_as_often_as_asked_and_where_asked() -> None:
    backend = NullBackend()
    backend.faults.fail(model="tiny_linear", processor="cpu1", times=2)
    run(backend, processor=CPU0)
    for _ in range(2):
        with pytest.raises(ExecutionError, match=r"'tiny_linear' on processor 'cpu1'"):
            run(backend, processor=CPU1)
    run(backend, processor=CPU1)


def test_a_fault_of_another_model_does_no_harm() -> None:
    backend = NullBackend()
    backend.faults.fail(model="other")
    run(backend)


def test_a_load_fails_once() -> None:
    backend = NullBackend()
    backend.faults.fail_load(processor="cpu0")
    with pytest.raises(BackendError, match="cannot be loaded"):
        run(backend)
    run(backend)


def test_a_hanging_run_ends_when_it_is_released() -> None:
    backend = NullBackend(faults=Faults())
    backend.faults.hang(times=2)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(run, backend, processor=p) for p in (CPU0, CPU1)]
        assert backend.faults.wait_until_hanging(2)
        assert not any(future.done() for future in futures)
        backend.faults.release()
        assert all(future.result(timeout=10) for future in futures)
    run(backend)


def test_release_forgets_every_rule() -> None:
    backend = NullBackend()
    backend.faults.fail(times=5)
    backend.faults.fail_load(times=5)
    backend.faults.release()
    run(backend)
    assert not backend.faults.armed
