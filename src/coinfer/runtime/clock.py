"""The engine's clock: seconds from an arbitrary origin, never backwards."""

from __future__ import annotations

import time

__all__ = ["now"]

now = time.perf_counter
