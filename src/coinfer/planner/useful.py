"""Useful: which processors are worth loading a model on: those that no other makes superfluous."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType

from coinfer.machine.memories import HOST, memory_of
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile

__all__ = ["LIGHT_GAIN", "WIDE_GAIN", "sizes_of", "useful", "wanted"]

WIDE_GAIN = 0.9
"""A processor that contains a smaller one must take at most this share of its time."""

LIGHT_GAIN = 0.97
"""Of those that occupy the same units, one that takes more memory must take at most this share of
the time of another: measured times differ by as much from one measurement to the next."""

LIGHT_SIZE = 0.9
"""And the other must take at most this share of its memory: for less nothing becomes slower."""

_Pairs = Container[tuple[str, str]]


def useful(
    profile: Profile,
    processors: Sequence[Processor],
    *,
    keep: _Pairs = frozenset(),
    shares: Mapping[str, str] | None = None,
) -> Profile:
    """Leave out entries that a scheduler would never want, so that they are not loaded.

    So, with two backends on the same cores, each model is left with the faster one, and whatever
    goes, one of at most 1 / `WIDE_GAIN` of its time stays. Where requests of one class of sizes
    want another processor than those of another class, both stay.

    Args:
        profile: What was measured.
        processors: Those in use.
        keep: (model, processor) pairs that stay in any case.
        shares: By processor, the name of the first one whose sessions it uses, if not its own;
            None: memory does not count.
    """
    stay: set[tuple[str, str]] = set()
    sizes = {} if shares is None else sizes_of(profile, processors, shares)
    for model, shape in dict.fromkeys((key.model, key.shape) for key, _ in profile):
        times = {p.name: profile.expected_s(model, p.name, shape=shape) for p in processors}
        row = {name: seconds for name, seconds in times.items() if seconds is not None}
        kept = [name for name in row if (model, name) in keep]
        bytes_of = {name: sizes.get((model, name), 0.0) for name in row}
        stay.update((model, name) for name in wanted(row, processors, kept, bytes_of))
    return profile.of_pairs(stay)


def sizes_of(
    profile: Profile, processors: Sequence[Processor], shares: Mapping[str, str]
) -> dict[tuple[str, str], float]:
    """Return the bytes of a session in the memory of the CPU cores, by model and processor.

    Who shares one has a part of them; of other memories nobody asks.
    """
    on_host = {processor.name for processor in processors if memory_of(processor) == HOST}
    firsts = Counter(shares.get(processor.name, processor.name) for processor in processors)
    sizes: dict[tuple[str, str], float] = {}
    for key, entry in profile.at_smallest:
        if key.processor not in on_host:
            continue
        count = max(1, firsts[shares.get(key.processor, key.processor)])
        size = (entry.resident_bytes + entry.run_bytes) / count
        pair = key.model, key.processor
        sizes[pair] = max(size, sizes.get(pair, 0.0))
    return sizes


def wanted(
    seconds: Mapping[str, float],
    processors: Sequence[Processor],
    keep: Container[str] = (),
    sizes: Mapping[str, float] = MappingProxyType({}),
) -> list[str]:
    """Return the processors that are worth it for one model or span.

    One is superfluous if a processor that stays and occupies the same units takes no longer, or
    hardly longer and clearly less memory, or if one that stays and occupies some of them takes
    hardly longer.

    Args:
        seconds: How long each takes that can run it.
        processors: Those in use, in the order of preference.
        keep: Names of those that stay in any case.
        sizes: Bytes that each takes; 0 or none: nobody knows, and then memory does not count. It
            neither does where precisions differ.
    """
    timed = [
        (processor, seconds[processor.name])
        for processor in processors
        if processor.name in seconds
    ]
    fastest: dict[frozenset[str], tuple[Processor, float]] = {}
    for processor, own_s in timed:
        if processor.units not in fastest or own_s < fastest[processor.units][1]:
            fastest[processor.units] = processor, own_s
    is_unknown = not all(sizes.get(processor.name) for processor, _ in timed)
    is_unknown = is_unknown or len({processor.precision for processor, _ in timed}) > 1

    def order(pair: tuple[Processor, float]) -> tuple[int, float, float]:
        processor, own_s = pair
        best, least_s = fastest[processor.units]
        is_light = (
            not is_unknown
            and LIGHT_GAIN * own_s <= least_s
            and sizes[processor.name] <= LIGHT_SIZE * sizes[best.name]
        )
        return len(processor.units), sizes[processor.name] if is_light else math.inf, own_s

    # Smallest first, and of those that occupy the same units the lightest of those that are hardly
    # slower than the fastest, if any is lighter: whoever makes an entry superfluous is decided
    # before it. Of two that are alike the first listed stays.
    timed.sort(key=order)
    stay: list[tuple[Processor, float]] = []
    for processor, own_s in timed:
        if processor.name in keep or not any(
            _replaces(other, others_s, processor, own_s) for other, others_s in stay
        ):
            stay.append((processor, own_s))
    return [processor.name for processor, _ in stay]


def _replaces(other: Processor, others_s: float, processor: Processor, seconds: float) -> bool:
    if other.units == processor.units:
        return LIGHT_GAIN * others_s <= seconds
    return other.units < processor.units and seconds > WIDE_GAIN * others_s
