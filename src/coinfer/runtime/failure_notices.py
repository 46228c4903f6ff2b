"""Failure notices: what failed and was tried again, and which processors were set aside."""

from __future__ import annotations

import logging

from coinfer.core.dispatcher import Dispatcher
from coinfer.runtime.engine_warnings import EngineWarnings

__all__ = ["FailureNotices"]

_log = logging.getLogger(__name__)


class FailureNotices:
    """Tells users of the failures that the core counts. The owner of the core asks for it.

    Attributes:
        fresh: Whose counts changed since they were told; empty where there is nothing to tell.
    """

    __slots__ = ("_core", "_outages", "_warnings", "fresh")

    def __init__(self, core: Dispatcher, warnings: EngineWarnings) -> None:
        self.fresh = core.failures.fresh
        self._core = core
        self._warnings = warnings
        self._outages: dict[str, int] = {}

    def tell(self) -> None:
        """Warn of what failed and is tried again, and of processors that are set aside for it."""
        for key in self.fresh:
            count = self._core.failures.counts[key]
            _log.debug("%s: failed on processor %r: %s", *key, count.reason)
            if count.retried:
                self._warnings.put(key, str(count))
        self.fresh.clear()
        for outage in self._core.outages:
            if outage.times > self._outages.get(outage.processor, 0):
                self._outages[outage.processor] = outage.times
                _log.warning("processor %r is set aside: %s", outage.processor, outage.reason)
