"""What this machine has: cores, memory, processors. Pins threads to cores; runs no model."""

from __future__ import annotations

from coinfer.hardware.catalogue import default_processors
from coinfer.hardware.cores import Cores, available_cores, find_cores
from coinfer.hardware.environment import describe
from coinfer.threads.pinning import can_pin, pin_current_thread

__all__ = [
    "Cores",
    "available_cores",
    "can_pin",
    "default_processors",
    "describe",
    "find_cores",
    "pin_current_thread",
]
