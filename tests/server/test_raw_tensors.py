"""Arrays to and from the bytes of the protocol."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.errors import CoinferError
from coinfer.model.datatypes import DTYPES
from coinfer.server.raw_tensors import checked_shape, from_raw, to_raw


@given(
    st.sampled_from([name for name in DTYPES if name not in ("BYTES", "BOOL")]),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_numbers_go_there_and_back_bit_by_bit(
    datatype: str, sizes: list[int], offset: int, random: object
) -> None:
    count = int(np.prod(sizes)) * DTYPES[datatype].itemsize
    data = random.randbytes(count)  # type: ignore[attr-defined]
    placed = memoryview(bytes(offset) + data)[offset:]  # at any address
    array = from_raw("x", datatype, tuple(sizes), placed)
    assert array.shape == tuple(sizes)
    assert array.dtype == DTYPES[datatype]
    assert array.flags.aligned
    assert bytes(to_raw(array)) == data


@given(st.lists(st.text(max_size=5), max_size=5))
def test_texts_go_there_and_back(found: list[str]) -> None:
    array = np.empty(len(found), object)
    array[:] = found
    assert from_raw("x", "BYTES", (len(found),), to_raw(array)).tolist() == found


@given(st.binary(max_size=40), st.integers(0, 5))
def test_any_bytes_are_texts_or_an_error(data: bytes, count: int) -> None:
    try:
        array = from_raw("x", "BYTES", (count,), data)
    except CoinferError:
        return
    assert bytes(to_raw(array)) == data


def test_aligned_numbers_are_not_copied() -> None:
    data = np.arange(4, dtype=np.float32)
    array = from_raw("x", "FP32", (2, 2), data.view(np.uint8).data)
    assert np.shares_memory(array, data)
    assert np.shares_memory(np.frombuffer(to_raw(array), np.uint8), data)


def test_arrays_that_are_not_contiguous_and_bfloat16() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3).T
    assert bytes(to_raw(array)) == array.tobytes()
    half = np.array([1.5, -2], ml_dtypes.bfloat16)
    assert bytes(to_raw(half)) == half.tobytes()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=6))
def test_any_value_is_a_shape_or_an_error(value: object) -> None:
    try:
        shape = checked_shape("x", value)
    except CoinferError:
        return
    assert list(shape) == value


@pytest.mark.parametrize("shape", [[2**62, 2**62, 0], [10**30]])
def test_shapes_do_not_overflow(shape: list[int]) -> None:
    with pytest.raises(CoinferError, match="too large"):
        checked_shape("x", shape)
