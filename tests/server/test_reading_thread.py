"""The thread that reads requests has a core soon after it wakes up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from coinfer.server.front_end import FrontEnds
from coinfer.threads.time_slice import SHORTEST_S, shorten_time_slice, time_slice_s


def test_it_has_short_time_slices() -> None:
    with ThreadPoolExecutor(1) as threads:
        if not threads.submit(shorten_time_slice).result():
            pytest.skip("the system has none")
        granted_s = threads.submit(time_slice_s).result()  # older ones have others

    async def found() -> float | None:
        return time_slice_s()

    front_ends = FrontEnds([])
    front_ends.start()
    try:
        assert front_ends.call(found).result(20) == granted_s
    finally:
        front_ends.stop(0.0)
    if granted_s == SHORTEST_S:
        assert time_slice_s() != SHORTEST_S
