"""One request on its way, step by step: the engine answers when the test says so."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinfer.core.request import OnLate
from coinfer.ensembles import Ensemble, EnsembleFuture
from coinfer.errors import (
    CoinferError,
    DroppedError,
    ExecutionError,
    InputError,
    RejectedError,
)
from coinfer.runtime import clock
from coinfer.testing.models import model_from_text
from ensembles.pipelines import MODELS, EngineByHand, described, picture

WAIT_S = 20.0

TWO_WAYS = """
ensemble: two
inputs: {image: {datatype: FP32, shape: [1, 1, 64, 64]}}
stages:
  - {name: left, model: detector, inputs: {image: image}}
  - {name: right, model: detector, inputs: {image: image}}
  - name: both
    call: "steps:both"
    inputs: {left: left.heat, right: right.heat}
    outputs: {sum: {datatype: FP32, shape: [1, 1, 8, 8]}}
outputs: {sum: both.sum}
"""
BOTH = "def both(left, right): return left + right"
HEAT = {"heat": np.ones((1, 1, 8, 8), np.float32)}


def _heat(*cells: int) -> dict[str, Any]:
    heat = np.zeros((1, 1, 8, 8), np.float32)
    heat.reshape(-1)[list(cells)] = 1
    return {"heat": heat}


def _when(engine: EngineByHand, count: int, future: EnsembleFuture) -> None:
    """Wait until so many requests were made, or the pipeline is over."""
    limit_s = clock.now() + WAIT_S
    while len(engine.asked) < count and not future.done():
        assert clock.now() < limit_s
        threading.Event().wait(0.001)


def test_all_stages_share_moment_deadline_and_priority(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path), engine, MODELS) as ensemble:
        due_s = clock.now()
        terms: dict[str, Any] = {"deadline_s": 60.0, "priority": 3, "due_s": due_s}
        future = ensemble.submit(picture(1, 2), on_late="drop", **terms)
        engine.asked[0].future.set_result(_heat(1, 2))
        _when(engine, 3, future)
        assert [each.model for each in engine.asked] == ["detector", "classifier", "classifier"]
        assert all(each.terms == {**terms, "on_late": OnLate.DROP} for each in engine.asked)
        assert [each.inputs["crop"].shape for each in engine.of("classifier")] == [(1, 1, 8, 8)] * 2
        for n, each in reversed(list(enumerate(engine.of("classifier")))):
            each.future.set_result({"scores": np.full((1, 64), n, np.float32)})
        assert future.result(WAIT_S)["scores"][:, 0].tolist() == [0, 1]


def test_stages_that_need_nothing_of_each_other_are_asked_together(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path, TWO_WAYS, BOTH), engine, MODELS) as ensemble:
        future = ensemble.submit(picture())
        assert len(engine.asked) == 2
        for each in engine.asked:
            each.future.set_result(HEAT)
        assert future.result(WAIT_S)["sum"].max() == 2


def test_an_error_names_the_stage_and_cancels_the_others(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path, TWO_WAYS, BOTH), engine, MODELS) as ensemble:
        future = ensemble.submit(picture())
        engine.asked[1].future.set_exception(DroppedError("too late"))
        with pytest.raises(DroppedError) as found:
            future.result(0)
        assert str(found.value) == "ensemble 'two', stage 'right': too late"
        assert str(found.value.__cause__) == "too late"
        assert engine.asked[0].future.cancelled()


def test_a_failed_item_is_counted_and_the_other_items_are_cancelled(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path), engine, MODELS) as ensemble:
        future = ensemble.submit(picture())
        engine.asked[0].future.set_result(_heat(1, 2, 3))
        _when(engine, 4, future)
        engine.asked[2].future.set_exception(ExecutionError.of("model 'c' on 'p'", "no memory"))
        with pytest.raises(
            ExecutionError, match=r"stage 'name', item 2: model 'c' on 'p': no"
        ) as e:
            future.result(0)
        assert e.value.reason == "no memory"
        assert [each.future.cancelled() for each in engine.of("classifier")] == [True, False, True]


def test_a_refusal_stays_what_it_is(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path), engine, MODELS) as ensemble:
        engine.refusal = RejectedError("1000 wait")
        engine.refusal.retry_after_s = 2.5
        with pytest.raises(RejectedError, match="stage 'find': 1000 wait") as found:
            ensemble.submit(picture()).result(0)
        assert found.value.retry_after_s == 2.5


def test_wrong_inputs_are_the_callers_fault_in_a_stage_that_gets_his_only(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path), engine, MODELS) as ensemble:
        engine.refusal = InputError("no")
        with pytest.raises(InputError, match="stage 'find': no"):
            ensemble.submit(picture()).result(0)
        engine.refusal = None
        future = ensemble.submit(picture())
        engine.refusal = InputError("no")
        engine.asked[0].future.set_result(_heat(1))
        with pytest.raises(ExecutionError, match="stage 'name': no"):
            future.result(WAIT_S)


def test_cancelling_cancels_what_was_asked(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path, TWO_WAYS, BOTH), engine, MODELS) as ensemble:
        future, told = ensemble.submit(picture()), []
        future.add_done_callback(told.append)
        assert future.cancel()
        assert told == [future]
        assert all(each.future.cancelled() for each in engine.asked)
        with pytest.raises(CancelledError):
            future.result(0)


def test_a_pipeline_that_is_answered_cannot_be_cancelled(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path, TWO_WAYS, BOTH), engine, MODELS) as ensemble:
        future = ensemble.submit(picture())
        for each in engine.asked:
            each.future.set_result(HEAT)
        future.result(WAIT_S)
        assert not future.cancel()


def test_a_request_that_somebody_else_cancels_ends_the_pipeline(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path), engine, MODELS) as ensemble:
        future = ensemble.submit(picture())
        engine.asked[0].future.cancel()
        with pytest.raises(ExecutionError, match="stage 'find': its request was cancelled"):
            future.result(0)


def test_a_function_is_not_called_when_it_would_be_too_late(tmp_path: Path) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path), engine, MODELS) as ensemble:
        past = {"due_s": clock.now() - 10, "deadline_s": 1.0}
        dropped, late = (
            ensemble.submit(picture(), on_late="drop", **past),
            ensemble.submit(picture(), **past),
        )
        for each in engine.asked:
            each.future.set_result(_heat())
        with pytest.raises(DroppedError, match="stage 'cut': the deadline passed before it began"):
            dropped.result(WAIT_S)
        assert late.result(WAIT_S)["scores"].shape == (0, 64)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("raise ValueError('bad')", ExecutionError, r"steps:cut failed: ValueError: bad \(steps.p"),
        (
            "return heat[0]",
            ExecutionError,
            r"returned float32\[1, 8, 8\] as 'crops', which is to be f",
        ),
        ("return [heat]", ExecutionError, "returned a list as 'crops'"),
        (
            "return {'crop': heat}",
            ExecutionError,
            "returned a mapping of crop; return a mapping of",
        ),
        ("heat[...] = 0", ExecutionError, "read-only"),
        ("from coinfer.errors import InputError; raise InputError('dark')", InputError, "dark"),
    ],
)
def test_what_a_function_does_wrong_is_said(
    tmp_path: Path, body: str, kind: type[CoinferError], said: str
) -> None:
    engine = EngineByHand()
    description = described(tmp_path, steps=f"def cut(image, heat):\n    {body}\n")
    with Ensemble(description, engine, MODELS) as ensemble:
        future = ensemble.submit(picture())
        engine.asked[0].future.set_result(_heat(1))
        with pytest.raises(kind, match=f"ensemble 'faces', stage 'cut': .*{said}") as found:
            future.result(WAIT_S)
        assert type(found.value) is kind


LISTS = """
ensemble: lists
inputs: {numbers: {datatype: INT64, shape: [N]}}
stages:
  - {name: spread, call: "steps:spread", inputs: {numbers: numbers}, outputs: [parts]}
  - {name: sum, call: "steps:add", each: spread.parts, inputs: {part: spread.parts},
     outputs: {total: {datatype: INT64, shape: []}}}
  - {name: names, call: "steps:name", each: sum.total, inputs: {total: sum.total}, outputs: [text]}
  - {name: join, call: "steps:join", inputs: {texts: names.text, numbers: numbers},
     outputs: {text: {datatype: BYTES, shape: [1]}}}
outputs: {totals: sum.total, text: join.text}
"""
LISTED = """
import numpy as np
def spread(numbers): return [np.arange(n) for n in numbers]
def add(part): return np.asarray(part.sum())
def name(total): return f"<{total}>"
def join(texts, numbers): return np.array([" ".join(texts)], object)
"""


@pytest.mark.parametrize("numbers", [[], [1, 4, 3]])
def test_items_may_be_those_of_a_list_and_results_lists(tmp_path: Path, numbers: list[int]) -> None:
    with Ensemble(described(tmp_path, LISTS, LISTED), EngineByHand(), {}) as ensemble:
        answer = ensemble.infer({"numbers": np.array(numbers, np.int64)}, timeout_s=WAIT_S)
        totals = [n * (n - 1) // 2 for n in numbers]
        assert answer["totals"].dtype == np.int64
        assert answer["totals"].tolist() == totals
        assert answer["text"].tolist() == [" ".join(f"<{total}>" for total in totals)]


def test_items_whose_results_differ_in_shape_are_an_error(tmp_path: Path) -> None:
    steps = LISTED.replace("np.asarray(part.sum())", "part")
    text = LISTS.replace("shape: []", "shape: [K]")
    with (
        Ensemble(described(tmp_path, text, steps), EngineByHand(), {}) as ensemble,
        pytest.raises(ExecutionError, match=r"'total' differs in its shape .* \(\[1\], \[2\]\)"),
    ):
        ensemble.infer({"numbers": np.array([1, 2])}, timeout_s=WAIT_S)


OPEN = """
ensemble: open
inputs: {rows: {datatype: FP32, shape: [COUNT, K]}}
stages: [{name: each_row, model: open, each: rows, inputs: {x: rows}}]
outputs: {y: each_row.y}
"""


def test_no_items_of_an_unknown_shape_are_an_error(tmp_path: Path) -> None:
    model = model_from_text("agraph (float[N,K] x) => (float[N,K] y) {y = Relu(x)}", name="open")
    with (
        Ensemble(described(tmp_path, OPEN), EngineByHand(), {"open": model}) as ensemble,
        pytest.raises(ExecutionError, match=r"no items, and of output 'y' only \[\?,K\] is known"),
    ):
        ensemble.infer({"rows": np.zeros((0, 3), np.float32)}, timeout_s=WAIT_S)


@pytest.mark.parametrize("ending", ["answered", "failed", "cancelled"])
def test_a_future_that_is_kept_does_not_keep_what_was_computed(tmp_path: Path, ending: str) -> None:
    engine = EngineByHand()
    with Ensemble(described(tmp_path, TWO_WAYS, BOTH), engine, MODELS) as ensemble:
        inputs = picture()
        image = weakref.ref(inputs["image"])
        future = ensemble.submit(inputs)
        if ending == "answered":
            engine.asked[0].future.set_result(HEAT)
            engine.asked[1].future.set_result(HEAT)
            future.result(WAIT_S)
        elif ending == "failed":
            engine.asked[0].future.set_exception(DroppedError("late"))
        else:
            future.cancel()
    engine.asked.clear()
    del inputs
    assert image() is None
    assert future.done()
