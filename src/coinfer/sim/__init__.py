"""The simulator: performs the core's commands in virtual time. Knows no clock and no backend."""

from __future__ import annotations

from coinfer.sim.simulate import Simulated, simulate
from coinfer.sim.simulation import Simulation

__all__ = ["Simulated", "Simulation", "simulate"]
