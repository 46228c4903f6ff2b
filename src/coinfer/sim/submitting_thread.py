"""Submitting thread: which core it takes while it submits, and whom that stops, as Linux does it.

It has slept, and is of normal priority: it goes to a core that is idle, else to one on which only
lowered threads run, which stand still then, else to any; of equal ones to that of last time. Knows
no times.
"""

from __future__ import annotations

from collections.abc import Iterable

from coinfer.core.commands import Execution
from coinfer.core.preemption import stays_on_top
from coinfer.machine.machine import Machine
from coinfer.machine.memories import HOST, lowers_threads, memory_of
from coinfer.machine.processor import ordinary

__all__ = ["SubmittingThread"]


class SubmittingThread:
    """Where it computes.

    Args:
        machine: Its cores are the units of processors that compute in the host's memory.

    >>> from coinfer.machine.processor import Processor
    >>> from coinfer.machine.profile import Profile
    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> SubmittingThread(Machine(processors=(cpu,), profile=Profile())).stops([])
    []
    """

    def __init__(self, machine: Machine) -> None:
        on_cores = [p for p in machine.processors if memory_of(p) == HOST]
        self._units = {p.name: p.units for p in ordinary(on_cores)}
        self._express = {p.name: p.overlays for p in on_cores if lowers_threads(p)}
        self._cores = sorted(frozenset[str]().union(*self._units.values()))
        topology = machine.topology
        # On a core that no processor has it is in nobody's way.
        self._has_own = topology is not None and len(topology.used) > len(self._cores)

    def stops(self, running: Iterable[Execution]) -> list[int]:
        """Return the numbers of the executions that stand still meanwhile.

        A run on several cores stands still as a whole, for its threads wait for each other. One
        that an express run overlays does so anyway.

        Args:
            running: What runs.
        """
        if self._has_own or not self._cores:
            return []
        below: list[Execution] = []
        on_top: dict[str, Execution] = {}
        for execution in running:
            name = execution.processor
            if name in self._express:
                on_top |= dict.fromkeys(self._express[name], execution)
            elif name in self._units:
                below.append(execution)
        rank, stopped = dict.fromkeys(self._cores, 0), dict[str, int]()
        for execution in below:
            units = self._units[execution.processor]
            stands = any(unit in on_top for unit in units)
            for unit in units:
                rank[unit] = 2 if stays_on_top(execution) or not self._express else 1
                if not stands:
                    stopped[unit] = execution.id
        for unit, execution in on_top.items():
            rank[unit], stopped[unit] = 2, execution.id
        # Stable: the core of last time is the first.
        core = min(self._cores, key=rank.__getitem__)
        self._cores.remove(core)
        self._cores.insert(0, core)
        return [stopped[core]] if core in stopped else []
