"""A sample of the official suite on torch; `conformance.torch_table` runs all of it."""

from __future__ import annotations

import zlib

import pytest

pytest.importorskip("torch", reason="the backend torch needs torch")

from conformance.suite import Case, cases
from conformance.torch_backend import (
    TORCH_EXCLUSIONS,
    TorchRun,
    TorchVerdict,
    torch_verdict,
    unexplained,
)
from conformance.verdict import plain_attempt

pytestmark = pytest.mark.xdist_group("conformance")

_ONE_OF = 8


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    return cases(tmp_path_factory.mktemp("expected"))


@pytest.fixture(scope="module")
def verdicts(suite: tuple[Case, ...]) -> list[TorchVerdict]:
    found = []
    for case in suite:
        if zlib.crc32(case.name.encode()) % _ONE_OF == 2 and case.category != "Real":
            plain = plain_attempt(case)
            if plain.passed:
                found += [torch_verdict(case, plain, run) for run in TorchRun]
    return found


def test_what_torch_takes_it_passes_and_the_rest_falls_back(verdicts: list[TorchVerdict]) -> None:
    assert unexplained(verdicts) == []


def test_the_sample_is_large_and_much_of_it_runs_on_torch(verdicts: list[TorchVerdict]) -> None:
    alone = [v for v in verdicts if v.run is TorchRun.ALONE]
    assert sum(v.passed for v in alone) >= 100
    assert sum(v.refused for v in alone) >= 20
    assert sum(len(set(v.parts)) > 1 for v in verdicts) >= 20


def test_every_exclusion_is_a_case_with_a_reason(suite: tuple[Case, ...]) -> None:
    assert TORCH_EXCLUSIONS.keys() <= {case.name for case in suite}
    assert all(len(reason) > 40 for reason in TORCH_EXCLUSIONS.values())
