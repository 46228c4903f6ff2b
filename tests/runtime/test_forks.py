"""A model whose branches run on two processors at once: the values of both sides come together."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from coinfer.api import Engine
from coinfer.backends.base import Tensor, Tensors
from coinfer.core.commands import Run as RunCommand
from coinfer.core.dispatcher import Limits
from coinfer.errors import ExecutionError
from coinfer.graph.cut_model import CutModel
from coinfer.graph.operators import Operators
from coinfer.graph.partition import choose_partition
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.span import Fork, Span
from coinfer.planner.model_source import resolve_model
from core.forking import Forking
from planner.cut_models import cut, partitioned, two_branches
from runtime.engines import cpus
from runtime.test_spans import AroundBackend, Spans

WAIT_S = 20.0
BRANCHY = two_branches("chain")  # the name that `AroundBackend` takes off
CUTS = (1, 3, 5, 6)
NAMES = ("p0", "p1")

Outputs = dict[str, Tensor]
Run = Callable[[Tensors], Outputs]


def model(mode: Mode = Mode.UNIT, names: tuple[str, ...] = NAMES, **options: Any) -> CutModel:
    return cut(BRANCHY.model, CUTS, names, mode=mode, **options)


def computing(*names: str) -> tuple[Processor, ...]:
    return tuple(Processor(name=n, backend="onnxruntime", units=frozenset({n})) for n in names)


def assert_right(outputs: Mapping[str, Tensor], feed: Tensors) -> None:
    expected = BRANCHY.reference(feed)
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-6)


class Together:
    """Lets both sides of a fork wait for each other, or one for the other's end."""

    def __init__(self, *, first: str = "", failing: str = "") -> None:
        self.first = first
        self.failing = failing
        self.barrier = threading.Barrier(2)
        self.ended = threading.Event()

    def __call__(self, span: str, processor: str, run: Run, inputs: Tensors) -> Outputs:
        if span not in ("[1-1]", "[2-2]") or self.ended.is_set():
            return run(inputs)
        self.barrier.wait(WAIT_S)  # both run at the same time, or this never ends
        if self.first and span != self.first:
            assert self.ended.wait(WAIT_S)
        try:
            if span == self.failing:
                raise RuntimeError("told to fail")
            return run(inputs)
        finally:
            if span == self.first or not self.first:
                self.ended.set()


class Starts:
    """Observer that notes which spans start at the same moment."""

    def __init__(self) -> None:
        self.together: list[list[Span]] = []

    def observe(self, event: Any, commands: Any, now: float) -> None:
        spans = [command.execution.span for command in commands if type(command) is RunCommand]
        self.together += [spans] if spans else []


def run_one(around: Together, *names: str, **options: Any) -> tuple[list[tuple[Span, str]], Any]:
    feed, spans = BRANCHY.model.sample_inputs(batch=2), Spans()
    with Engine(
        {"m": model(names=names)},
        processors=cpus(*names),
        backends={"null": AroundBackend(around)},
        policy=Forking(patient=True),
        observer=spans,
        pin=False,
        **options,
    ) as engine:
        future = engine.submit("m", feed)
        error = future.exception(WAIT_S)
        if error is None:
            assert_right(future.result(), feed)
    return spans.ran[0], error


def test_the_cut_model_has_the_fork_that_its_branches_make() -> None:
    assert model().forks == (Fork(1, 2, 2),)


@pytest.mark.parametrize("first", ["[1-1]", "[2-2]"])
def test_both_sides_run_at_the_same_time_and_may_end_in_any_order(first: str) -> None:
    ran, error = run_one(Together(first=first), *NAMES)
    assert error is None
    assert [span for span, _ in ran] == [Span(i, i) for i in range(5)]
    assert ran[1][1] != ran[2][1]


@pytest.mark.parametrize("first", ["[1-1]", "[2-2]"])
@pytest.mark.parametrize("failing", ["[1-1]", "[2-2]"])
def test_a_side_that_fails_is_tried_again_from_a_border_whose_values_are_there(
    first: str, failing: str
) -> None:
    ran, error = run_one(Together(first=first, failing=failing), "p0", "p1", "p2")
    assert error is None
    failed_on = ran[1 if failing == "[1-1]" else 2][1]
    again = ran[3:]
    # The left side, if it ended well, is not run again.
    assert again[0][0] == (Span(1, 1) if failing == "[1-1]" else Span(2, 2))
    assert failed_on not in [name for _, name in again]


def test_a_request_of_which_a_side_fails_too_often_is_answered_once_both_have_ended() -> None:
    ran, error = run_one(Together(first="[2-2]", failing="[1-1]"), *NAMES, limits=Limits(retries=0))
    assert isinstance(error, ExecutionError)
    assert "told to fail" in str(error)
    assert len(ran) == 3


def test_requests_from_many_threads_fork_and_keep_their_own_values() -> None:
    spans = Spans()

    def ask(seed: int) -> None:
        feed = BRANCHY.model.sample_inputs(seed=seed, batch=1 + seed % 4)
        assert_right(engine.submit("m", feed).result(WAIT_S), feed)

    with (
        Engine(
            {"m": model()},
            processors=computing(*NAMES),
            policy=Forking(patient=True),
            observer=spans,
        ) as engine,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(ask, range(200)))
    assert len(spans.ran) == 200
    for ran in spans.ran.values():
        assert ran[1][1] != ran[2][1]


@pytest.mark.parametrize("name", ["heft", "heft_reserved", "least_slack", "two_queues"])
def test_a_policy_that_plans_forks_a_lone_request_where_that_is_sooner(name: str) -> None:
    slow = model(Mode.MERGED, unit_s=dict.fromkeys(NAMES, 0.01))
    feed, starts = BRANCHY.model.sample_inputs(), Starts()
    with Engine({"m": slow}, processors=computing(*NAMES), policy=name, observer=starts) as engine:
        assert_right(engine.infer("m", feed), feed)
    assert starts.together == [[Span(0, 0)], [Span(1, 1), Span(2, 2)], [Span(3, 4)]]


@pytest.mark.parametrize(("name", "forks"), [("inception_v3", 11), ("tiny_branchy", 2)])
def test_networks_with_branches_compute_the_same_on_two_processors_at_once(
    name: str, forks: int
) -> None:
    whole = resolve_model(f"zoo:{name}")
    everything = frozenset(range(len(Operators.of(whole.graph))))
    options = PartitionOptions(mode=Mode.UNIT, branches=True)
    partition = choose_partition(whole, dict.fromkeys(NAMES, everything), options)
    model = partitioned(whole, partition, NAMES)
    assert len(model.forks) == forks
    feeds = [whole.sample_inputs(seed=seed) for seed in range(2)]
    times = Profile.from_seconds({"m": dict.fromkeys(NAMES, 0.1)})
    with Engine({"m": whole}, processors=computing(*NAMES), profile=times) as engine:
        expected = [engine.infer("m", feed) for feed in feeds]
    starts = Starts()
    with Engine(
        {"m": model},
        processors=computing(*NAMES),
        policy=Forking(patient=True),
        observer=starts,
    ) as engine:
        answers = [future.result(60.0) for future in [engine.submit("m", f) for f in feeds]]
    assert sum(len(spans) == 2 for spans in starts.together) >= 2 * forks
    for right, outputs in zip(expected, answers, strict=True):
        assert list(outputs) == list(right)
        for key, value in right.items():
            assert np.linalg.norm(outputs[key] - value) <= 1e-5 * np.linalg.norm(value)


@pytest.mark.parametrize("policy", [Forking(patient=True), "heft", "two_queues"])
def test_whatever_fails_in_between_answers_are_right_and_there_is_one_each(policy: Any) -> None:
    turns = itertools.count(1)

    def sometimes(_span: str, _processor: str, run: Run, inputs: Tensors) -> Outputs:
        if next(turns) % 7 == 0:
            raise RuntimeError("told to fail")
        return run(inputs)

    names = ("p0", "p1", "p2")
    feeds = [BRANCHY.model.sample_inputs(seed=seed, batch=1 + seed % 3) for seed in range(60)]
    with Engine(
        {"m": model(Mode.MERGED, names, unit_s=dict.fromkeys(names, 0.01))},
        processors=cpus(*names),
        backends={"null": AroundBackend(sometimes)},
        policy=policy,
        limits=Limits(set_aside_after=math.inf),
        pin=False,
    ) as engine:

        def ask(feed: Tensors) -> bool:
            future = engine.submit("m", feed)
            error = future.exception(WAIT_S)
            if error is None:
                assert_right(future.result(), feed)
            return error is None

        with ThreadPoolExecutor(3) as pool:
            answered = list(pool.map(ask, feeds))
    assert sum(answered) > 30
    assert engine.n_unanswered == 0
