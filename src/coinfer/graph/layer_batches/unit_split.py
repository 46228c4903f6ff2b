"""Unit split: how many compute units and bytes each of several networks gets, to end all soonest.

Greedy by marginal gain, each network at the batch sizes that its path would pick: the one that ends
last gets what brings it most for its part of the whole. One network at a time on all units and all
memory is always looked at, so the answer is never longer than that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coinfer.errors import ConfigurationError
from coinfer.graph.layer_batches.batch_path import find_batch_path
from coinfer.graph.layer_batches.layer_group import BatchProblem

__all__ = ["Contender", "Share", "UnitSplit", "split_units"]

_SLICES = 16
"""Memory is dealt out in so many parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A network with requests that wait.

    Attributes:
        name: The network.
        problems: By number of units what is asked there; all with the whole memory.
    """

    name: str
    problems: Mapping[int, BatchProblem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a network gets.

    Attributes:
        units: Compute units that it runs on.
        bytes: Memory.
        seconds: When it ends.
    """

    units: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSplit:
    """How several networks share units and memory.

    Attributes:
        shares: By network, if they run side by side; empty if they cannot.
        sequential: By network, if they run one after the other, each on the best number of units.
    """

    shares: Mapping[str, Share]
    sequential: Mapping[str, Share]

    @property
    def parallel_s(self) -> float:
        """When all end that run side by side; infinite if they cannot."""
        return max((share.seconds for share in self.shares.values()), default=math.inf)

    @property
    def sequential_s(self) -> float:
        """When all end that run one after the other."""
        return sum(share.seconds for share in self.sequential.values())

    @property
    def is_parallel(self) -> bool:
        """Whether side by side is chosen."""
        return self.parallel_s < self.sequential_s

    @property
    def seconds(self) -> float:
        """When all end by the better one of both."""
        return min(self.parallel_s, self.sequential_s)


def split_units(contenders: Sequence[Contender], units: int) -> UnitSplit:
    """Deal out compute units and memory to networks.

    Args:
        contenders: The networks, with the same memory budget.
        units: How many compute units there are.

    Raises:
        ConfigurationError: there is no network, or one has no times on so few units.
    """
    if not contenders:
        raise ConfigurationError("name at least one network to share the compute units")
    for each in contenders:
        if not any(width <= units for width in each.problems):
            raise ConfigurationError(f"{each.name} has no times on {units} compute units or fewer")
    budget = next(iter(contenders[0].problems.values())).memory.bytes
    times = {each.name: _Times(each) for each in contenders}
    sequential = {name: each.best(units, budget) for name, each in times.items()}
    return UnitSplit(shares=_dealt(times, units, budget), sequential=sequential)


@dataclass(slots=True)
class _Times:
    """Seconds of a network on some units with some memory, each computed once."""

    contender: Contender
    _known: dict[tuple[int, int], float] = field(default_factory=dict)

    def least(self) -> Share:
        width = min(self.contender.problems)
        needed = max(1, self.contender.problems[width].least_bytes)
        return self._share(width, needed)

    def best(self, units: int, size: int) -> Share:
        widths = [width for width in sorted(self.contender.problems) if width <= units]
        return min((self._share(w, size) for w in widths), key=lambda share: share.seconds)

    def wider(self, share: Share, left: int) -> Share | None:
        """Return the next number of units with which it ends sooner."""
        for width in sorted(self.contender.problems):
            if share.units < width <= share.units + left:
                found = self._share(width, share.bytes)
                if found.seconds < share.seconds:
                    return found
        return None

    def larger(self, share: Share, left: int, part: int) -> Share | None:
        """Return the next amount of memory with which it ends sooner."""
        for size in range(part, left + 1, part):
            found = self._share(share.units, share.bytes + size)
            if found.seconds < share.seconds:
                return found
        return None

    def _share(self, width: int, size: int) -> Share:
        if (width, size) not in self._known:
            problem = self.contender.problems[width]
            memory = dataclasses.replace(problem.memory, bytes=size)
            path = find_batch_path(dataclasses.replace(problem, memory=memory))
            self._known[width, size] = path.seconds
        return Share(units=width, bytes=size, seconds=self._known[width, size])


def _dealt(times: Mapping[str, _Times], units: int, budget: int) -> dict[str, Share]:
    """Begin with the least for each, and give to the one that ends last while that helps it."""
    shares = {name: each.least() for name, each in times.items()}
    part = max(1, budget // _SLICES)
    while True:
        left = units - sum(share.units for share in shares.values())
        left_bytes = budget - sum(share.bytes for share in shares.values())
        if left < 0 or left_bytes < 0:
            return {}
        last = max(shares, key=lambda name: shares[name].seconds)
        now = shares[last]
        wider, larger = (
            times[last].wider(now, left),
            times[last].larger(now, left_bytes, part),
        )
        options = []
        if wider is not None:
            options.append((_gain(now, wider) * units / (wider.units - now.units), 1, wider))
        if larger is not None:
            options.append((_gain(now, larger) * budget / (larger.bytes - now.bytes), 0, larger))
        if not options:
            return shares
        shares[last] = max(options, key=lambda option: option[:2])[2]


def _gain(before: Share, after: Share) -> float:
    return before.seconds - after.seconds
