"""The profiler: runs models on processors and notes the times. Knows no policy and no engine."""

from __future__ import annotations

from coinfer.profiling.cache import ProfileCache, default_cache
from coinfer.profiling.deployment import Progress
from coinfer.profiling.measure import Effort
from coinfer.profiling.model_profiles import profile_models
from coinfer.profiling.profiler import Profiler
from coinfer.profiling.skip import Skip, require_runnable

__all__ = [
    "Effort",
    "ProfileCache",
    "Profiler",
    "Progress",
    "Skip",
    "default_cache",
    "profile_models",
    "require_runnable",
]
