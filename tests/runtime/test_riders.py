"""Requests that share an execution of a real session get what they would get alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from coinfer.api import Engine
from coinfer.backends.null import NullBackend
from coinfer.core.commands import Run
from coinfer.errors import ConfigurationError, ExecutionError
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.testing.models import tiny_linear, two_inputs
from runtime.engines import cpus

WAIT_S = 20.0
CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))
FULL = {"max": 8, "max_delay": 0.05}


def profile(model: str = "m", processor: str = "cpu0") -> Profile:
    """As fast for eight as for one."""
    fast = Measurement(seconds=(1e-4,))
    return Profile({ProfileKey(model, processor, batch): fast for batch in (1, 8)})


class Sizes:
    """Observer that notes how many requests each execution serves."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def observe(self, event: Any, commands: Any, now: float) -> None:
        self.seen += [len(c.execution.requests) for c in commands if type(c) is Run]


def right(outputs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("example", [tiny_linear(), two_inputs()], ids=["linear", "two inputs"])
def test_each_gets_what_it_would_get_alone(example: Any) -> None:
    sizes = Sizes()
    feeds = [example.model.sample_inputs(seed=seed) for seed in range(40)]
    with Engine(
        {"m": example.model}, processors=[CPU], profile=profile(), batch=FULL, observer=sizes
    ) as engine:
        assert engine.plan.models["m"].batching == Batching(8, 0.05)
        answers = [engine.submit("m", feed) for feed in feeds]
        for feed, answer in zip(feeds, answers, strict=True):
            right(answer.result(WAIT_S), example.reference(feed))
    assert sum(sizes.seen) == 40
    assert max(sizes.seen) > 1
    assert max(sizes.seen) <= 8


def test_requests_of_several_samples_count_as_such() -> None:
    sizes, example = Sizes(), tiny_linear()
    feeds = [example.model.sample_inputs(seed=seed, batch=3) for seed in range(12)]
    with Engine(
        {"m": example.model}, processors=[CPU], profile=profile(), batch=FULL, observer=sizes
    ) as engine:
        answers = [engine.submit("m", feed) for feed in feeds]
        for feed, answer in zip(feeds, answers, strict=True):
            right(answer.result(WAIT_S), example.reference(feed))
    assert max(sizes.seen) == 2  # six of eight samples


def test_without_a_wish_a_given_profile_is_not_batched() -> None:
    with Engine({"m": tiny_linear().model}, processors=[CPU], profile=profile()) as engine:
        assert engine.plan.models["m"].batching is None


def test_a_cancelled_rider_does_not_spoil_the_run() -> None:
    example, sizes = tiny_linear(), Sizes()
    feeds = [example.model.sample_inputs(seed=seed) for seed in range(8)]
    with Engine(
        {"m": example.model}, processors=[CPU], profile=profile(), batch=FULL, observer=sizes
    ) as engine:
        answers = [engine.submit("m", feed) for feed in feeds]
        answers[3].cancel()
        for at, answer in enumerate(answers):
            if not answer.cancelled():
                right(answer.result(WAIT_S), example.reference(feeds[at]))


def test_after_a_failure_each_goes_on_alone() -> None:

    example, sizes = tiny_linear(), Sizes()

    class Session:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
            if np.isnan(inputs["x"]).any():
                raise ValueError("not a number")
            return dict(example.reference(inputs))

        def close(self) -> None:
            pass

    class Backend(NullBackend):
        def load(self, model: Any, processor: Any, placement: Any = None) -> Any:
            return Session()

    feeds = [example.model.sample_inputs(seed=seed) for seed in range(6)]
    feeds[2] = {"x": np.full((1, 4), np.nan, np.float32)}
    with Engine(
        {"m": example.model},
        processors=cpus("p0"),
        profile=profile("m", "p0"),
        backends={"null": Backend()},
        pin=False,
        batch={"m": FULL},
        observer=sizes,
    ) as engine:
        answers = [engine.submit("m", feed) for feed in feeds]
        for at, answer in enumerate(answers):
            if at == 2:
                with pytest.raises(ExecutionError, match="not a number"):
                    answer.result(WAIT_S)
            else:
                right(answer.result(WAIT_S), example.reference(feeds[at]))
    assert sizes.seen == [6, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("wrong", ["always", {"max": 0}, {"m": {"max_delay": -1}}, {"most": 3}, 4])
def test_nonsense_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="batch"):
        Engine({"m": tiny_linear().model}, processors=[CPU], profile=profile(), batch=wrong)
