"""Libraries that run networks, each behind the same small protocol and found by name.

Imports no inference library: `get_backend` does that on first use.
"""

from __future__ import annotations

from coinfer.backends.base import Backend, Device
from coinfer.backends.registry import Availability, available, backend_names, get_backend

__all__ = [
    "Availability",
    "Backend",
    "Device",
    "available",
    "backend_names",
    "get_backend",
]
