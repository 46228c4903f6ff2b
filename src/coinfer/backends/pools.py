"""PoolBudget: limits the threads that sessions with thread pools hold. Knows no inference library.

Neither onnxruntime nor OpenVINO lets the sessions of a process share one thread pool without
changing every other session of that process, so each session with more than one thread owns its
own. A hundred of them would be hundreds of threads; this refuses them long before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from coinfer.errors import BackendError
from coinfer.fork_locks import free_after_fork
from coinfer.threads.affinity import allowed_threads

__all__ = ["POOLS", "PoolBudget", "reserved"]

_MIN_THREADS = 16
_MIN_POOLS = 4
_PER_CORE = 8
"""Threads of a pool spin only while it runs something; a waiting one takes a stack and no time."""


class PoolBudget:
    """Counts pool threads of a process. Thread-safe.

    Any process may hold `_MIN_THREADS` pool threads, `_MIN_POOLS` pools of the size asked for, or
    `_PER_CORE` threads for each hardware thread that it may use, whichever is most.

    >>> budget = PoolBudget()
    >>> budget.reserve(2, what="model 'a' on processor 'cpu_all'")
    >>> budget.in_use
    2
    """

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self._in_use = 0

    @property
    def in_use(self) -> int:
        """Pool threads reserved now."""
        return self._in_use

    def room(self, threads: int) -> int:
        """Return how many threads sessions of at most `threads` threads can still take together.

        >>> PoolBudget().room(2)
        16
        """
        return max(0, _limit(threads) - self._in_use)

    def reserve(self, threads: int, *, what: str) -> None:
        """Take threads out of the budget; give them back with `release`.

        Raises:
            BackendError: the budget is used up.
        """
        limit = _limit(threads)
        with self._lock:
            if self._in_use + threads > limit:
                raise BackendError(
                    f"{what}: {self._in_use} threads are held by sessions with thread pools "
                    f"already and the limit is {limit}; use its 1-thread processors, which need "
                    f"no pool, or unload another model from the processors with several threads"
                )
            self._in_use += threads

    def release(self, threads: int) -> None:
        """Give threads back."""
        with self._lock:
            self._in_use -= threads


def _limit(threads: int) -> int:
    return max(_MIN_THREADS, _MIN_POOLS * threads, _PER_CORE * len(allowed_threads()))


POOLS = PoolBudget()
"""The budget of this process."""


@contextmanager
def reserved(threads: int, what: str) -> Iterator[None]:
    """Take threads for a session that is made inside of this; give them back if that fails.

    Raises:
        BackendError: the budget is used up.
    """
    POOLS.reserve(threads, what=what)
    try:
        yield
    except BaseException:
        POOLS.release(threads)
        raise
