"""Budget: how long measuring may take in all. What the cache knows costs nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coinfer.errors import ConfigurationError

__all__ = ["Budget"]


class Budget:
    """Seconds of measuring that are left.

    Args:
        seconds: All of them, from 0; infinite: as long as it takes.
        clock: Seconds; replaced in tests.

    Raises:
        ConfigurationError: that is no number of seconds.

    Attributes:
        left_s: Seconds that are left; not above 0 once it is spent.

    >>> moments = iter([0.0, 3.0])
    >>> budget = Budget(2.0, clock=lambda: next(moments))
    >>> with budget.spending():
    ...     budget.is_spent
    False
    >>> budget.is_spent
    True
    """

    def __init__(
        self, seconds: float = math.inf, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        given: object = seconds
        if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0:
            raise ConfigurationError(
                f"the time for measuring is {given!r}; give seconds from 0, or math.inf to "
                "measure everything"
            )
        self.left_s = seconds
        self._clock = clock

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.left_s <= 0

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count what is done inside."""
        began = self._clock()
        try:
            yield
        finally:
            self.left_s -= self._clock() - began
