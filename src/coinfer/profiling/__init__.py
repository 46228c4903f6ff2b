"""The profiler: runs models on processors and notes the times. Knows no policy and no engine."""

from __future__ import annotations

from coinfer.profiling.cache import ProfileCache, default_cache
from coinfer.profiling.gauge import Gauge
from coinfer.profiling.measure import Effort
from coinfer.profiling.profiler import Progress, profile_models
from coinfer.profiling.skip import Skip, require_runnable
from coinfer.profiling.useful import useful, within_pools

__all__ = [
    "Effort",
    "Gauge",
    "ProfileCache",
    "Progress",
    "Skip",
    "default_cache",
    "profile_models",
    "require_runnable",
    "useful",
    "within_pools",
]
