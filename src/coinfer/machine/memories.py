"""Memories: what is loaded where, and what it takes there. Pure; knows no plan and no request."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from coinfer.machine.processor import Processor, twins

__all__ = ["HOST", "SHARE", "lowers_threads", "memory_of", "sharing"]

HOST = "host"
"""The memory of the CPU cores."""

SHARE = 0.8
"""Of the memory that a process may use, for what is loaded; the rest is for everything else."""

_ON_HOST = frozenset({"CPU", "NULL", "imagined"})


def memory_of(processor: Processor) -> str:
    """Return the name of the memory in which a processor's models are: `host`, or its device.

    >>> memory_of(Processor(name="gpu", backend="null", device="GPU", units=frozenset({"gpu"})))
    'GPU'
    """
    return HOST if processor.device in _ON_HOST else processor.device


def lowers_threads(processor: Processor) -> bool:
    """Tell whether an express processor runs on top by the priority of threads, on CPU cores.

    Elsewhere the device does it: a stream of high priority goes first.
    """
    return bool(processor.overlays) and memory_of(processor) == HOST


def sharing(
    processors: Sequence[Processor], shares: Mapping[str, str], among: Collection[str]
) -> list[tuple[Processor, ...]]:
    """Return which of these processors share sessions or weights, express ones with those below.

    Args:
        processors: All of the machine.
        shares: By processor, the name of the first one of those that it shares with.
        among: Names of the ordinary ones that are meant.
    """
    groups: dict[str, list[Processor]] = {}
    pairs = twins(processors)
    for processor in processors:
        if processor.overlays:
            under = pairs[processor.name]
            if under not in among:
                continue
            first = shares.get(under, under)
        elif processor.name in among:
            first = shares.get(processor.name, processor.name)
        else:
            continue
        groups.setdefault(first, []).append(processor)
    # An express one never comes first: those that policies know name a place.
    return [tuple(sorted(group, key=_is_express)) for group in groups.values()]


def _is_express(processor: Processor) -> bool:
    return bool(processor.overlays)
