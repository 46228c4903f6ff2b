"""Processor: what can run a (sub)graph. A pure value; `hardware` finds those of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coinfer.errors import ConfigurationError

__all__ = ["Processor"]


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

    def __post_init__(self) -> None:
        """Refuse two declarations that may contradict each other.

        Raises:
            ConfigurationError: both `supported_ops` and `unsupported_ops` are given.
        """
        if self.supported_ops and self.unsupported_ops:
            raise ConfigurationError(
                f"processor {self.name!r} declares supported_ops and unsupported_ops; keep one"
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

    def excludes(self, other: Processor) -> bool:
        """Tell whether the two cannot run at the same time."""
        return not self.units.isdisjoint(other.units)
