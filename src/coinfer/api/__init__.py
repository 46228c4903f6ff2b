"""The interface for programs: the engine that plans for itself. Re-exported by `coinfer`."""

from __future__ import annotations

from coinfer.api.engine import Engine

__all__ = ["Engine"]
