"""The bound: the best that any schedule could reach on measured times. Knows no policy."""

from __future__ import annotations

from coinfer.bound.program import (
    Bound,
    Makespan,
    makespan,
    sustainable_factor,
    throughput_bound,
)

__all__ = ["Bound", "Makespan", "makespan", "sustainable_factor", "throughput_bound"]
