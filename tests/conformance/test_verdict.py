"""The comparison notices what it is there for."""

from __future__ import annotations

import dataclasses
import unittest
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import parser

from conformance.exclusions import Exclusion, unexplained
from conformance.suite import Attempt, Case
from conformance.verdict import Run, Verdict, plain_attempt, verdict

X = np.array([[0.3, 1.7]], np.float32)
WANTED = np.exp(-X)


def case(model: onnx.ModelProto, wanted: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Case:
    """A case that passes if the only output is close to `wanted`."""
    runner = SimpleNamespace(backend=None)

    def run(_: unittest.TestCase) -> None:
        (out,) = runner.backend.prepare(model, "CPU").run([X])
        np.testing.assert_allclose(out, wanted, rtol=1e-3)

    return Case(name="test_own", category="Own", _run=run, _runner=runner)


def exp_of_neg() -> onnx.ModelProto:
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[N, 2] x) => (float[N, 2] y) '
        "{ a = Neg(x)  y = Exp(a) }"
    )


GOOD = case(exp_of_neg(), WANTED)


def against(plain: Attempt, run: Run = Run.WHOLE) -> Verdict:
    return verdict(GOOD, plain, run)


@pytest.mark.parametrize(("run", "parts"), [(Run.WHOLE, 1), (Run.RANDOM, 2), (Run.EVERYWHERE, 2)])
def test_equal_answers_make_no_difference(run: Run, parts: int) -> None:
    found = against(plain_attempt(GOOD), run)
    assert (found.passed, found.plain_passed, found.difference) == (True, True, "")
    assert (found.parts, found.error < 1e-6) == (parts, True)


def test_a_case_that_only_one_side_passes_is_a_difference() -> None:
    plain = plain_attempt(GOOD)
    failed = dataclasses.replace(plain, problem="plain broke")
    assert against(failed).difference.endswith("not on plain onnxruntime: plain broke")
    wrong = verdict(case(exp_of_neg(), WANTED + 1), plain, Run.WHOLE)
    assert wrong.difference.startswith("passes on plain onnxruntime but not on coinfer: Assertion")


def test_the_last_bit_of_the_whole_model_counts() -> None:
    plain = plain_attempt(GOOD)
    off = [[np.nextafter(plain.outputs[0][0], np.float32(9))]]
    assert "to the last bit" in against(dataclasses.replace(plain, outputs=off)).difference
    assert not against(dataclasses.replace(plain, outputs=off), Run.RANDOM).difference


def test_what_the_case_allows_may_be_too_much_for_a_cut() -> None:
    plain = plain_attempt(GOOD)
    off = dataclasses.replace(plain, outputs=[[plain.outputs[0][0] * np.float32(1.0001)]])
    found = against(off, Run.EVERYWHERE)
    assert found.passed
    assert found.difference.startswith("relative error 0.0001 against plain onnxruntime")


def test_answers_that_the_suite_does_not_compare_are_compared() -> None:
    plain = dataclasses.replace(plain_attempt(GOOD), problem="refused later", outputs=[])
    failing = case(exp_of_neg(), WANTED + 1)
    assert verdict(failing, plain, Run.WHOLE).difference.startswith("1 runs on coinfer")


def test_differences_must_be_excluded_and_exclusions_must_differ() -> None:
    plain = plain_attempt(GOOD)
    same = against(plain)
    different = dataclasses.replace(same, difference="it broke")
    for_whole = {"test_own": Exclusion(reason="", runs=frozenset({Run.WHOLE}))}
    for_random = {"test_own": Exclusion(reason="", runs=frozenset({Run.RANDOM}))}
    assert unexplained([same], {}) == []
    assert unexplained([different], {}) == ["test_own (whole): it broke"]
    assert unexplained([different], for_whole) == []
    assert unexplained([different], for_random) == ["test_own (whole): it broke"]
    assert "does not differ" in unexplained([same], for_whole)[0]
    assert unexplained([dataclasses.replace(same, run=Run.RANDOM)], for_random) == []
