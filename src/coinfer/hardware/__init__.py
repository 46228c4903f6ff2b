"""What this machine has: cores, memory, processors. Runs no model."""

from __future__ import annotations

from coinfer.hardware.catalogue import default_processors
from coinfer.hardware.cores import Cores, available_cores, find_cores
from coinfer.hardware.environment import describe

__all__ = [
    "Cores",
    "available_cores",
    "default_processors",
    "describe",
    "find_cores",
]
