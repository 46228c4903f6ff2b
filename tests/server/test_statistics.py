"""Counts are right whoever counts at once."""

from __future__ import annotations

import threading
from typing import Any

from coinfer.server.statistics import ModelStatistics, Statistics


class Told:
    """A lock that tells when somebody has to wait for it."""

    def __init__(self, lock: Any, waits: threading.Event) -> None:
        self._lock = lock
        self._waits = waits

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waits.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_the_first_refusals_of_two_threads_are_both_counted() -> None:
    statistics, second_came = Statistics(), threading.Event()
    statistics._ending = Told(statistics._ending, second_came)  # type: ignore[assignment]

    def refuse() -> None:
        statistics.refused("m", "REJECTED", "too much waits")
        second_came.set()

    second = threading.Thread(target=refuse)

    class Slow(dict[str, ModelStatistics]):
        """Has another thread count while the first one finds that there are no counts yet."""

        def __missing__(self, model: str) -> ModelStatistics:
            made = ModelStatistics()
            if second.ident is None:
                second.start()
                assert second_came.wait(20)
            self[model] = made
            return made

    statistics.models = Slow()  # type: ignore[assignment]
    statistics.refused("m", "REJECTED", "too much waits")
    second.join(20)
    assert statistics.models["m"].refused == 2
    assert dict(statistics.models["m"].failures) == {"REJECTED": 2}
