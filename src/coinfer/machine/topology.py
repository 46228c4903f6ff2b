"""Topology: the cores of a machine, what they share, and which of them may be used. A pure value.

`coinfer.hardware.topology` finds it; `coinfer.machine.core_groups` says which cores are worth using
together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from coinfer.errors import ConfigurationError

__all__ = ["Core", "Topology"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """One physical core.

    Attributes:
        threads: The system's numbers of its hardware threads, ascending; several if it has SMT.
        cache: Number of its last-level cache; cores with equal ones share it.
        node: Number of its NUMA node.
        kind: `performance`, `efficiency` or between; empty where all cores of the machine are
            alike.
    """

    threads: tuple[int, ...]
    cache: int = 0
    node: int = 0
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """All cores of a machine, and what affinity and quota leave of them.

    Attributes:
        cores: In the order of locality: those of one kind, of one NUMA node and of one cache stand
            together, the fastest kind first.
        used: Of each core that may be used one hardware thread, in the same order.
        quota: Processors' worth of time that the control group grants; None: no limit.

    Raises:
        ConfigurationError: a thread is there twice, or a used one belongs to no core.

    >>> two = Topology(cores=(Core(threads=(0, 2)), Core(threads=(1, 3), cache=1)), used=(0, 3))
    >>> two.core_of(3).cache, len(two.caches), two.spread([0, 3])
    (1, 2, '2 caches')
    """

    cores: tuple[Core, ...]
    used: tuple[int, ...]
    quota: float | None = None
    _by_thread: dict[int, Core] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        threads = [thread for core in self.cores for thread in core.threads]
        if len(set(threads)) < len(threads) or not all(core.threads for core in self.cores):
            raise ConfigurationError(
                "the topology names a hardware thread twice, or a core without threads"
            )
        by_thread = {thread: core for core in self.cores for thread in core.threads}
        foreign = [thread for thread in self.used if thread not in by_thread]
        if foreign:
            raise ConfigurationError(f"the topology uses thread {foreign[0]}, which no core has")
        object.__setattr__(self, "_by_thread", by_thread)

    @classmethod
    def flat(cls, numbers: Iterable[int]) -> Topology:
        """Return cores that share all and are all used: what is known where nothing is.

        >>> Topology.flat([4, 6]).used
        (4, 6)
        """
        used = tuple(numbers)
        return cls(cores=tuple(Core(threads=(number,)) for number in used), used=used)

    @property
    def caches(self) -> tuple[int, ...]:
        """Numbers of the last-level caches, in the order of the cores."""
        return tuple(dict.fromkeys(core.cache for core in self.cores))

    @property
    def nodes(self) -> tuple[int, ...]:
        """Numbers of the NUMA nodes, in the order of the cores."""
        return tuple(dict.fromkeys(core.node for core in self.cores))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of cores, the fastest first; one empty kind where all are alike."""
        return tuple(dict.fromkeys(core.kind for core in self.cores))

    def core_of(self, thread: int) -> Core:
        """Return the core that a hardware thread belongs to."""
        return self._by_thread[thread]

    def using(self, numbers: Iterable[int]) -> Topology:
        """Copy it with other threads in use; a core that it does not know shares all with none.

        >>> Topology.flat([0, 1, 2, 3]).using([2, 9]).used
        (2, 9)
        """
        wanted = list(dict.fromkeys(numbers))
        strange = [number for number in wanted if number not in self._by_thread]
        cores = (*self.cores, *(Core(threads=(number,), cache=-1 - number) for number in strange))
        place = {thread: at for at, core in enumerate(cores) for thread in core.threads}
        used = tuple(sorted(wanted, key=place.__getitem__))
        return dataclasses.replace(self, cores=cores, used=used)

    def spread(self, numbers: Iterable[int]) -> str:
        """Tell in words what cores have in common, so far as that makes a difference.

        Processors of equally many cores with equal words take equally long: it names the kind of
        the cores unless all are alike, and how many caches or nodes they are spread over.
        """
        cores = [self._by_thread[number] for number in numbers]
        words = sorted({core.kind for core in cores} - {""})
        nodes, caches = len({c.node for c in cores}), len({c.cache for c in cores})
        if nodes > 1:
            words.append(f"{nodes} nodes")
        elif caches > 1:
            words.append(f"{caches} caches")
        return ", ".join(words)

    def between(self, some: Iterable[int], others: Iterable[int]) -> str:
        """Tell what is the nearest that two groups of cores share: `cache`, `node` or `machine`.

        >>> far = Topology(cores=(Core(threads=(0,)), Core(threads=(1,), cache=1)), used=(0, 1))
        >>> far.between([0], [0]), far.between([0], [1])
        ('cache', 'node')
        """
        mine = [self._by_thread[n] for n in some if n in self._by_thread]
        theirs = [self._by_thread[n] for n in others if n in self._by_thread]
        if not {core.cache for core in mine}.isdisjoint({core.cache for core in theirs}):
            return "cache"
        near = not {core.node for core in mine}.isdisjoint({core.node for core in theirs})
        return "node" if near else "machine"
