"""An engine whose models do not all fit: it loads and evicts, and loses no request."""

from __future__ import annotations

import dataclasses
import time

import pytest

from coinfer import Engine
from coinfer.backends.null import Faults, NullBackend
from coinfer.errors import ConfigurationError, ExecutionError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.testing.models import tiny_linear

NAMES = ("a", "b", "c")
SIZE = 100
CPUS = tuple(
    Processor(name=f"cpu{n}", backend="null", units=frozenset({f"core{n}"})) for n in range(2)
)


def profile(processors: tuple[Processor, ...] = CPUS) -> Profile:
    entry = Measurement(seconds=(0.001,), load_s=0.001, resident_bytes=SIZE)
    return Profile({ProfileKey(m, p.name): entry for m in NAMES for p in processors})


def engine(
    memory: object, faults: Faults | None = None, processors: tuple[Processor, ...] = CPUS[:1]
) -> Engine:
    model = tiny_linear().model
    return Engine(
        dict.fromkeys(NAMES, model),
        processors=processors,
        profile=profile(processors),
        backends={"null": NullBackend(0.001, faults=faults)},
        memory=memory,  # type: ignore[arg-type]
        pin=False,
    )


def ask(running: Engine, name: str) -> None:
    running.infer(name, tiny_linear().model.sample_inputs(), timeout_s=20.0)


def test_more_models_than_memory_holds_are_served_within_it() -> None:
    with engine(2 * SIZE) as running:
        before = running.stats().memory
        assert before.budget_bytes == {"host": 2 * SIZE}
        assert before.resident_bytes == {"host": 2 * SIZE}, "filled before the first request"
        for name in NAMES * 4:
            ask(running, name)
            assert running.stats().memory.resident_bytes["host"] <= 2 * SIZE
        stats = running.stats()
        assert [stats.models[name].completed for name in NAMES] == [4, 4, 4]
        assert stats.memory.evictions > 0
        assert stats.memory.loads - stats.memory.evictions == 2
        assert sum(len(spans) for spans in stats.processors["cpu0"].loaded.values()) == 2
        assert not running.warnings


def test_with_room_for_everything_nothing_is_loaded_later() -> None:
    with engine({"host": "1MiB"}) as running:
        for name in NAMES * 2:
            ask(running, name)
        memory = running.stats().memory
    assert (memory.loads, memory.evictions) == (0, 0)
    assert memory.resident_bytes == {"host": 3 * SIZE}


def test_a_budget_too_small_for_a_model_says_how_much_it_needs() -> None:
    with pytest.raises(ConfigurationError, match="model 'a' needs at least 100 B at a time"):
        engine(SIZE - 1)


def test_a_memory_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="no memory 'gpu'; those of this machine are host"):
        engine({"gpu": "1GiB"})


def test_a_load_that_fails_once_is_tried_again_with_one_warning() -> None:
    faults = Faults()
    with engine(SIZE, faults) as running:
        ask(running, "a")
        faults.fail_load(model="b", times=1)
        ask(running, "b")
        ask(running, "a")
        (warning,) = running.warnings
        assert "model 'b' could not be loaded on cpu0 and is tried again" in warning
        assert running.stats().memory.failed == 1


def test_what_cannot_be_loaded_fails_its_requests_with_the_reason_and_no_others() -> None:
    faults = Faults()
    with engine(SIZE, faults) as running:
        ask(running, "a")
        faults.fail_load(model="b", times=1000)
        with pytest.raises(ExecutionError, match="'b' on processor cpu0: it cannot be loaded"):
            ask(running, "b")
        ask(running, "a")
        ask(running, "c")
        assert len(running.warnings) == 1


def test_what_one_processor_cannot_load_another_one_does() -> None:
    faults = Faults()
    with engine(SIZE, faults, CPUS) as running:
        faults.fail_load(model="b", processor="cpu0", times=1000)
        for name in NAMES * 3:
            ask(running, name)
        assert running.stats().models["b"].completed == 3


def test_a_model_that_comes_later_makes_room_for_itself_and_goes() -> None:
    with engine(3 * SIZE) as running:
        for name in NAMES:
            ask(running, name)
        entry = Measurement(seconds=(0.001,), resident_bytes=SIZE)
        extra = Profile({ProfileKey("d", "cpu0"): entry})
        running.load("d", dataclasses.replace(tiny_linear().model), extra)
        for name in (*NAMES, "d") * 2:
            ask(running, name)
            assert running.stats().memory.resident_bytes["host"] <= 3 * SIZE
        running.unload("d")
        for name in NAMES:
            ask(running, name)
        deadline = time.monotonic() + 10
        while running.stats().memory.resident_bytes["host"] < 3 * SIZE:
            assert time.monotonic() < deadline, "what is left is not loaded again"
            time.sleep(0.01)


def test_nothing_is_kept_of_the_places_of_models_that_came_and_went() -> None:
    with engine(3 * SIZE) as running:
        entry = Measurement(seconds=(0.001,), resident_bytes=SIZE)
        for number in range(3):
            name = f"tenant{number}"
            profile = Profile({ProfileKey(name, "cpu0"): entry})
            running.load(name, dataclasses.replace(tiny_linear().model), profile)
            for each in (*NAMES, name) * 2:
                ask(running, each)
            running.unload(name)
        watch = running._event_loop.loader.watch
        assert watch is not None
        assert {key[0] for key in watch._places} <= {*NAMES, "tenant2"}


def test_pinned_models_are_there_from_the_start_and_stay() -> None:
    with engine({"budget": 2 * SIZE, "pin": ["c"]}) as running:
        for name in NAMES * 3:
            assert "c" in running.stats().processors["cpu0"].loaded
            ask(running, name)
        assert running.plan.pinned == ("c",)
    with pytest.raises(ConfigurationError, match="b, c cannot be pinned: they take 200 B"):
        engine({"budget": SIZE, "pin": ["b", "c"]})


def test_stopping_answers_what_waits_for_a_load() -> None:
    running = engine(SIZE)
    inputs = tiny_linear().model.sample_inputs()
    futures = [running.submit(name, inputs) for name in NAMES * 5]
    running.stop(drain=False)
    assert all(future.done() for future in futures)


def test_a_limit_that_is_lowered_while_it_runs_lowers_the_budget_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = [1000 * SIZE]
    monkeypatch.setattr("coinfer.api.engine.memory_limit_bytes", lambda: limits[-1])
    monkeypatch.setattr("coinfer.runtime.memory_watch.process_memory", lambda: None)
    with engine(3 * SIZE) as running:
        for name in NAMES:
            ask(running, name)
        limits.append(SIZE * 5 // 2)  # four fifths of it hold two models
        inputs = tiny_linear().model.sample_inputs()
        futures, until_s = [], time.monotonic() + 20
        while running.stats().memory.budget_bytes["host"] != 2 * SIZE:
            assert time.monotonic() < until_s, "the budget does not follow"
            futures += [running.submit(name, inputs) for name in NAMES]
            time.sleep(0.01)
        futures += [running.submit(name, inputs) for name in NAMES * 3]
        for future in futures:
            future.result(20.0)
        stats = running.stats()
        assert stats.memory.resident_bytes["host"] <= 2 * SIZE
        assert sum(each.completed for each in stats.models.values()) == 3 + len(futures)
        (warning,) = running.warnings
        assert "the limit of this process was lowered to 250 B, so models get 200 B" in warning


def test_without_a_budget_a_limit_that_is_lowered_is_followed_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[int | None] = [None]
    monkeypatch.setattr("coinfer.api.engine.memory_limit_bytes", lambda: limits[-1])
    monkeypatch.setattr("coinfer.runtime.limit_watch.PERIOD_S", 0.01)
    monkeypatch.setattr("coinfer.runtime.limit_watch.process_memory", lambda: None)
    monkeypatch.setattr("coinfer.runtime.memory_watch.process_memory", lambda: None)
    inputs = tiny_linear().model.sample_inputs()
    with engine(None, processors=CPUS) as running:
        assert running.stats().memory.budget_bytes == {}
        futures = [running.submit(name, inputs) for name in NAMES * 20]
        limits.append(SIZE * 9)  # all that is loaded, on two cores: 600 bytes
        time.sleep(0.05)
        assert running.stats().memory.budget_bytes == {}, "everything fits"
        limits.append(SIZE * 5)
        until_s = time.monotonic() + 20
        while running.stats().memory.resident_bytes.get("host", 600) > 4 * SIZE:
            assert time.monotonic() < until_s, "the limit is not followed"
            futures += [running.submit(name, inputs) for name in NAMES]
            time.sleep(0.01)
        futures += [running.submit(name, inputs) for name in NAMES * 10]
        for future in futures:
            future.result(20.0)
        stats = running.stats()
        assert stats.memory.budget_bytes == {"host": 4 * SIZE}
        assert stats.memory.resident_bytes["host"] <= 4 * SIZE
        assert sum(each.completed for each in stats.models.values()) == len(futures)
        (warning,) = running.warnings
        assert "the limit of this process was lowered to 500 B, so models get 400 B" in warning
        running.unload("a")
        ask(running, "b")


def test_the_process_is_held_against_what_is_believed() -> None:
    with engine(2 * SIZE) as running:
        memory = running.stats().memory
        ask(running, "c")
    if memory.process is None or memory.before is None:
        pytest.skip("this system does not say what a process holds")
    assert memory.process.anonymous > 1 << 20
    assert memory.before.total > 1 << 20
    assert memory.corrected_bytes == 0
    assert running.stats().to_json()["memory"]["before"].keys() == {"anonymous", "mapped"}
