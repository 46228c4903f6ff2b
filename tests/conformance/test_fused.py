"""A sample of the official suite, fused; `make conformance` runs all of it."""

from __future__ import annotations

import zlib
from collections import Counter

import pytest

from coinfer.graph.fusing.layout import Layout
from conformance.fused import FUSED_EXCLUSIONS, FusedVerdict, Weights, fused_verdict, unexplained
from conformance.suite import Case, cases
from conformance.verdict import plain_attempt

pytestmark = pytest.mark.xdist_group("conformance")

_ONE_OF = 12


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    found = cases(tmp_path_factory.mktemp("expected"))
    return [case for case in found if case.category == "Node"]


@pytest.fixture(scope="module")
def verdicts(suite: list[Case]) -> list[FusedVerdict]:
    chosen = [case for case in suite if zlib.crc32(case.name.encode()) % _ONE_OF == 1]
    passed = [case for case in chosen if plain_attempt(case).passed]
    return [
        fused_verdict(case, weights, layout, passed=True)
        for case in passed
        for weights in Weights
        for layout in (Layout.PACKED, Layout.STACKED)
    ]


def test_fused_cases_pass_what_plain_onnxruntime_passes(verdicts: list[FusedVerdict]) -> None:
    assert unexplained(verdicts) == []


def test_the_sample_is_large_and_much_of_it_is_merged(verdicts: list[FusedVerdict]) -> None:
    """So that the test above cannot pass for want of cases."""
    assert len(verdicts) >= 300
    merged: Counter[str] = sum((each.merged for each in verdicts), Counter())
    assert sum(bool(each.merged) for each in verdicts) >= 200
    assert len(merged) >= 30


def test_every_exclusion_is_a_case_with_a_reason(suite: list[Case]) -> None:
    assert FUSED_EXCLUSIONS.keys() <= {case.name for case in suite}
    assert all(len(reason) > 40 for reason in FUSED_EXCLUSIONS.values())
