"""An engine lets parts of a model hand values on in blocks; callers never see them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backends.blocked_parts import Network, needs_blocks, relative_error, whole
from coinfer.api import Engine
from coinfer.backends.onnxruntime import OnnxRuntimePart, part
from coinfer.backends.onnxruntime.packing import Packed
from coinfer.backends.values import Value, Values
from coinfer.errors import ExecutionError
from coinfer.graph.partition_options import Mode
from coinfer.machine.processor import Processor
from coinfer.model import Model
from planner.cut_models import cut
from runtime.all_at_once import AllAtOnce

pytestmark = needs_blocks

WAIT_S = 20.0
TOLERANCE = 1e-5
CUTS = (2, 3, 5)


def network() -> Model:
    """A skip connection over two cuts, and an output that is made early."""
    net = Network(3)
    net.conv("a", "x", 24, kernel=3)
    net.node("r", "Relu(a)", 24)
    net.conv("b", "r", 24, kernel=3)
    net.conv("early", "b", 32)
    net.conv("c", "early", 24)
    net.node("d", "Add(c, r)", 24)
    net.conv("y", "d", 8)
    return net.model("early", "y")


MODEL = network()


def computing(*names: str, backend: str = "onnxruntime") -> tuple[Processor, ...]:
    return tuple(Processor(name=n, backend=backend, units=frozenset({n})) for n in names)


def assert_right(outputs: Mapping[str, Any], feed: Mapping[str, Any]) -> None:
    expected = whole(MODEL, feed)
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        assert isinstance(outputs[name], np.ndarray)
        assert relative_error(outputs[name], value) <= TOLERANCE


def test_requests_of_many_threads_do_not_mix_their_values() -> None:
    """All parts take their memory from one place."""
    model = cut(MODEL, CUTS, ["p0", "p1"], mode=Mode.UNIT)
    feeds = [MODEL.sample_inputs(seed=seed, batch=1 + seed % 3) for seed in range(6)]
    expected = [whole(MODEL, feed) for feed in feeds]

    def ask(number: int) -> None:
        outputs = engine.submit("m", feeds[number % 6]).result(WAIT_S)
        for name, value in expected[number % 6].items():
            assert relative_error(outputs[name], value) <= TOLERANCE

    with (
        Engine({"m": model}, processors=computing("p0", "p1")) as engine,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(ask, range(200)))


class Watch:
    """Notes what parts are given, and lets one run of one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, failing: str = "") -> None:
        self.given: list[Values] = []
        self.failed = False
        real = OnnxRuntimePart.run_part

        def run_part(session: OnnxRuntimePart, inputs: Values) -> dict[str, Value]:
            self.given.append(inputs)
            if failing and failing in session.what and not self.failed:
                self.failed = True
                raise ExecutionError("not today")
            return real(session, inputs)

        monkeypatch.setattr(OnnxRuntimePart, "run_part", run_part)

    @property
    def packed(self) -> set[str]:
        """Names of the values that came in blocks."""
        found = (item for inputs in self.given for item in inputs.items())
        return {name for name, value in found if isinstance(value, Packed)}


@pytest.mark.parametrize("mode", [Mode.UNIT, Mode.MERGED])
def test_outputs_equal_those_of_the_whole_model(mode: Mode) -> None:
    model = cut(MODEL, CUTS, ["p0", "p1"], mode=mode)
    with Engine({"m": model}, processors=computing("p0", "p1")) as engine:
        for seed in range(6):
            feed = MODEL.sample_inputs(seed=seed, batch=1 + seed % 3)
            assert_right(engine.submit("m", feed).result(WAIT_S), feed)


def test_values_stay_in_blocks_between_two_processors_of_one_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = Watch(monkeypatch)
    only = {"p0": [(0, 0), (2, 2)], "p1": [(1, 1), (3, 3)]}
    model = cut(MODEL, CUTS, ["p0", "p1"], mode=Mode.UNIT, only=only)
    feed = MODEL.sample_inputs()
    with Engine({"m": model}, processors=computing("p0", "p1")) as engine:
        assert_right(engine.submit("m", feed).result(WAIT_S), feed)
    assert watch.packed == {"r", "b", "c"}


def test_another_library_in_between_gets_and_gives_arrays() -> None:
    only = {"p0": [(0, 0), (2, 2)], "other": [(1, 1), (3, 3)]}
    model = cut(MODEL, CUTS, ["p0", "other"], mode=Mode.UNIT, only=only)
    processors = (*computing("p0"), *computing("other", backend="openvino"))
    with Engine({"m": model}, processors=processors) as engine:
        for batch in (1, 3):
            feed = MODEL.sample_inputs(batch=batch)
            assert_right(engine.submit("m", feed).result(WAIT_S), feed)


def test_requests_are_stacked_and_parted_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    policy = AllAtOnce()
    model = cut(MODEL, CUTS, ["p0"], mode=Mode.UNIT)
    feeds = [MODEL.sample_inputs(seed=seed, batch=1 + seed % 3) for seed in range(20)]
    with Engine({"m": model}, processors=computing("p0"), policy=policy) as engine:
        futures = [engine.submit("m", feed) for feed in feeds]
        for feed, future in zip(feeds, futures, strict=True):
            assert_right(future.result(WAIT_S), feed)
    assert policy.largest > 1
    assert watch.packed == {"r", "b", "c"}


@pytest.mark.parametrize("failing", ["m[1-1]", "m[2-2]", "m[3-3]"])
def test_a_part_that_fails_starts_again_elsewhere_from_blocks(
    monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    model = cut(MODEL, CUTS, ["p0", "p1"], mode=Mode.UNIT)
    feed = MODEL.sample_inputs()
    with Engine({"m": model}, processors=computing("p0", "p1")) as engine:
        watch = Watch(monkeypatch, failing=failing)  # parts were measured before
        assert_right(engine.submit("m", feed).result(WAIT_S), feed)
    assert watch.failed
    assert len(watch.given) == 5


def test_parts_that_convert_what_they_hand_on_are_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = cut(MODEL, CUTS, ["p0", "p1"], mode=Mode.UNIT)
    feed = MODEL.sample_inputs()
    with Engine({"m": model}, processors=computing("p0", "p1")) as engine:
        assert engine.warnings == []
    monkeypatch.setattr(part, "_MOST_WEIGHT_BYTES", 1)
    with Engine({"m": model}, processors=computing("p0", "p1")) as engine:
        [warning] = engine.warnings
        assert_right(engine.infer("m", feed), feed)
    assert warning == (
        "m: its parts convert the values that they hand on: one has more than 1 B of weights"
    )
