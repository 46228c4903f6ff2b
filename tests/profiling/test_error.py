"""The output error is relative, takes the worst output, and does not hide what is not finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coinfer.profiling.error import relative_error

REFERENCE = arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(1.0, 1000.0, width=32))


@given(REFERENCE, st.floats(0.0, 1.0))
def test_scaling_all_outputs_gives_that_error(reference: np.ndarray, error: float) -> None:
    wide = reference.astype(np.float64)
    found = relative_error([{"y": wide * (1 + error)}], [{"y": wide}])
    assert found == pytest.approx(error, abs=1e-12)


@given(REFERENCE, st.floats(1e-3, 1e3))
def test_the_error_does_not_depend_on_the_scale(reference: np.ndarray, scale: float) -> None:
    out = reference.astype(np.float64) + 1.0
    plain = relative_error([{"y": out}], [{"y": reference}])
    scaled = relative_error([{"y": out * scale}], [{"y": reference.astype(np.float64) * scale}])
    assert scaled == pytest.approx(plain, rel=1e-9)


def test_the_worst_output_and_sample_counts() -> None:
    good, bad = {"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2), "b": np.full(2, 1.5)}
    assert relative_error([good, bad], [good, good]) == pytest.approx(0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_an_infinite_error(value: float) -> None:
    broken = {"y": np.array([1.0, value])}
    assert relative_error([broken], [{"y": np.ones(2)}]) == np.inf
    assert relative_error([{"y": np.ones(2)}], [broken]) == np.inf


def test_infinities_that_both_have_do_not_count() -> None:
    masked = {"y": np.array([1.0, -np.inf])}
    assert relative_error([masked], [masked]) == 0.0


def test_integers_do_not_overflow() -> None:
    small, large = np.array([0], np.uint8), np.array([255], np.uint8)
    assert relative_error([{"y": small}], [{"y": large}]) == 1.0
