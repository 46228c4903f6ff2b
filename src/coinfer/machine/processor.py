"""Processor: what can run a (sub)graph. A pure value; `hardware` finds those of a machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from coinfer.errors import ConfigurationError, UnknownNameError

__all__ = ["LEFT_SHARE", "WAKE_S", "Processor", "named", "ordinary", "overlaid_units", "twins"]

LEFT_SHARE = 15 / (15 + 1024)
"""Share of a core that a thread of niceness 19 gets beside one of 0: the weights of Linux's fair
scheduler (`sched_prio_to_weight` in kernel/sched/core.c)."""

WAKE_S = 60e-6
"""Seconds of a run below which two threads of an interpreter do less than one alone where requests
share runs: they wait for each other at both ends. `benchmarks/turns.py` measures it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """One backend on one device with its compute units in one precision.

    Processors whose `units` overlap exclude each other: while one runs, the others wait.

    Attributes:
        name: Unique in a machine, e.g. `cpu0`.
        backend: Name of the backend that runs it, e.g. `onnxruntime`.
        device: The backend's device, e.g. `CPU`.
        units: Compute units it occupies while it runs, e.g. `{"core0"}`.
        threads: Threads that one execution uses; 1 means no thread pool at all.
        precision: `fp32`, or lower where the user allowed it (`bf16`, `fp16`, `int8`).
        cores: Operating-system core numbers to pin its worker to; empty means do not pin.
        options: Passed to the backend as they are.
        supported_ops: The operator types that it runs, such as `Conv` or `com.microsoft.Gelu`;
            empty if not declared: then the backend is asked.
        unsupported_ops: The operator types that it must not be given; at most one of the two.
        overlays: Empty for an ordinary processor. An *express* one runs on top of the ordinary ones
            that occupy these units, by the operating system's priority or the device's: it does not
            exclude them, but they hardly get on while it runs.
        spread: What tells its cores from as many others: their kind, and how many caches or NUMA
            nodes they are spread over (`Topology.spread`). Processors that differ in nothing but
            name, units and cores are alike: models take equally long on them.
        wake_s: Seconds that it takes to have another thread do something: for requests that may
            share runs and take no longer than this, none is worth waking. 0: not known, or no
            matter.

    >>> Processor(name="cpu0", backend="null", units=frozenset({"core0"})).excludes(
    ...     Processor(name="all", backend="null", units=frozenset({"core0", "core1"})))
    True
    """

    name: str
    backend: str
    device: str = "CPU"
    units: frozenset[str]
    threads: int = 1
    precision: str = "fp32"
    cores: tuple[int, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    supported_ops: frozenset[str] = frozenset()
    unsupported_ops: frozenset[str] = frozenset()
    overlays: frozenset[str] = frozenset()
    spread: str = ""
    wake_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigurationError: both `supported_ops` and `unsupported_ops` are given, or an express
                processor has several threads or occupies what it overlays.
        """
        if self.supported_ops and self.unsupported_ops:
            raise ConfigurationError(
                f"processor {self.name!r} declares supported_ops and unsupported_ops; keep one"
            )
        if self.overlays and self.threads > 1:
            raise ConfigurationError(
                f"express processor {self.name!r} has {self.threads} threads; give it one"
            )
        if not self.overlays.isdisjoint(self.units):
            raise ConfigurationError(
                f"express processor {self.name!r} occupies what it overlays; give it a unit of its "
                "own, as in `units: [core0+]`"
            )

    @property
    def declares_support(self) -> bool:
        """Whether it says itself which operators it runs."""
        return bool(self.supported_ops or self.unsupported_ops)

    def declared(self, op_type: str) -> bool:
        """Tell whether it may be given operators of a type, by its own declaration."""
        if self.supported_ops:
            return op_type in self.supported_ops
        return op_type not in self.unsupported_ops

    @property
    def likeness(self) -> tuple[object, ...]:
        """What processors that are alike have in common.

        >>> one, other = (Processor(name=n, backend="null", units=frozenset({n})) for n in "ab")
        >>> one.likeness == other.likeness
        True
        """
        return (
            self.backend,
            self.device,
            self.precision,
            self.threads,
            len(self.units),
            self.spread,
            self.wake_s,
            bool(self.cores),
            bool(self.overlays),
            tuple(sorted(self.options.items())),
            self.supported_ops,
            self.unsupported_ops,
        )

    def excludes(self, other: Processor) -> bool:
        """Tell whether the two cannot run at the same time."""
        return not self.units.isdisjoint(other.units)


def named(name: str, processors: Iterable[Processor]) -> Processor:
    """Return the processor of this machine that has a name.

    Raises:
        UnknownNameError: none has.
    """
    known = {each.name: each for each in processors}
    if name not in known:
        raise UnknownNameError.of("processor", name, known, hint="See `coinfer doctor`.")
    return known[name]


def ordinary(processors: Iterable[Processor]) -> tuple[Processor, ...]:
    """Return those that are not express: what policies, bounds and measurements consider."""
    return tuple(processor for processor in processors if not processor.overlays)


def overlaid_units(processors: Iterable[Processor]) -> frozenset[str]:
    """Return the units that express processors overlay; who occupies one of them must yield."""
    return frozenset[str]().union(*(processor.overlays for processor in processors))


def twins(processors: Iterable[Processor]) -> dict[str, str]:
    """Return by express processor the ordinary one on which it stands: it takes as long.

    Raises:
        ConfigurationError: an express processor without one, or one that shares a unit of its own
            with an ordinary processor.

    >>> cpu = Processor(name="cpu0", backend="null", units=frozenset({"core0"}))
    >>> twins([cpu, Processor(name="cpu0+", backend="null", units=frozenset({"core0+"}),
    ...                       overlays=cpu.units)])
    {'cpu0+': 'cpu0'}
    """
    everyone = tuple(processors)
    others = ordinary(everyone)
    found = {}
    for express in everyone:
        if not express.overlays:
            continue
        shared = [other.name for other in others if express.excludes(other)]
        if shared:
            raise ConfigurationError(
                f"express processor {express.name!r} and {shared[0]!r} occupy the same unit; give "
                "the express one a unit of its own"
            )
        names = [other.name for other in others if _is_twin(express, other)]
        if not names:
            raise ConfigurationError(
                f"express processor {express.name!r} stands on no other: none of the same backend, "
                f"device and precision has one thread and occupies just "
                f"{', '.join(sorted(express.overlays))}; add one or remove it"
            )
        found[express.name] = names[0]
    return found


def _is_twin(express: Processor, other: Processor) -> bool:
    return (
        other.units == express.overlays
        and other.threads == 1
        and (other.backend, other.device, other.precision)
        == (express.backend, express.device, express.precision)
    )
