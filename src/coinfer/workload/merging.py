"""Merge the times of several arrival processes into one order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from coinfer.workload.times import Times

__all__ = ["merged"]


def merged(
    processes: Sequence[Iterator[Times]], end_s: float = math.inf
) -> Iterator[tuple[list[float], list[int], list[int]]]:
    """Yield blocks of times in order, with the process of each and how many it had before.

    What falls together comes in the order of the processes. A block of each is sorted at once: that
    costs a tenth of a heap that holds the next time of each.

    Args:
        processes: The times of each, in blocks, in order; endless or not.
        end_s: Nothing from this moment on is among them.

    >>> times = [iter([np.array([1.0, 4.0])]), iter([np.array([1.0]), np.array([2.0])])]
    >>> list(merged(times))
    [([1.0, 1.0], [0, 1], [0, 0]), ([2.0], [1], [1]), ([4.0], [0], [1])]
    """
    known: list[Times] = [np.empty(0) for _ in processes]
    n_before = [0] * len(processes)
    while True:
        for at, times in enumerate(known):
            if not len(times):
                known[at] = next((block for block in processes[at] if len(block)), times)
        last_s = [times[-1] if len(times) else math.inf for times in known]
        soonest = int(np.argmin(last_s))
        upto_s = last_s[soonest]
        if upto_s == math.inf:
            return
        # All times before this moment are known. The process whose known times end here may have
        # more at this very moment; they come before those of later processes.
        counts = [
            int(t.searchsorted(upto_s, "right" if at <= soonest else "left"))
            for at, t in enumerate(known)
        ]
        times = np.concatenate([t[:n] for t, n in zip(known, counts, strict=True)])
        owners = np.repeat(np.arange(len(known)), counts)
        numbers = np.concatenate([k + np.arange(n) for k, n in zip(n_before, counts, strict=True)])
        order = np.argsort(times, kind="stable")
        known = [t[n:] for t, n in zip(known, counts, strict=True)]
        n_before = [k + n for k, n in zip(n_before, counts, strict=True)]
        order = order[: int(np.searchsorted(times, end_s, sorter=order))]
        yield times[order].tolist(), owners[order].tolist(), numbers[order].tolist()
        if upto_s >= end_s:
            return
