"""A sample of the official suite; `make conformance` runs all of it."""

from __future__ import annotations

import zlib

import pytest

from conformance.exclusions import load_exclusions, unexplained
from conformance.suite import Case, cases
from conformance.verdict import Run, Verdict, plain_attempt, verdict

pytestmark = pytest.mark.xdist_group("conformance")  # so that the cases are run once

_ONE_OF = 6
_EXCLUSIONS = load_exclusions()


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    return cases(tmp_path_factory.mktemp("expected"))


@pytest.fixture(scope="module")
def verdicts(suite: tuple[Case, ...]) -> list[Verdict]:
    found = []
    for case in suite:
        if zlib.crc32(case.name.encode()) % _ONE_OF == 0 or case.name in _EXCLUSIONS:
            plain = plain_attempt(case)
            found += [verdict(case, plain, run) for run in (Run.WHOLE, Run.RANDOM)]
    return found


def test_coinfer_passes_exactly_what_plain_onnxruntime_passes(verdicts: list[Verdict]) -> None:
    assert unexplained(verdicts, _EXCLUSIONS) == []


def test_the_sample_is_large_and_much_of_it_is_cut(verdicts: list[Verdict]) -> None:
    """So that the test above cannot pass for want of cases."""
    assert sum(v.passed for v in verdicts if v.run is Run.WHOLE) >= 200
    assert sum(v.passed for v in verdicts if v.parts > 1) >= 40
    assert max(v.parts for v in verdicts) >= 5


def test_every_exclusion_is_a_case_with_a_reason(suite: tuple[Case, ...]) -> None:
    assert _EXCLUSIONS.keys() <= {case.name for case in suite}
    assert all(len(exclusion.reason) > 40 for exclusion in _EXCLUSIONS.values())
