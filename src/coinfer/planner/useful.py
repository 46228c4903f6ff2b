"""Useful: which processors are worth loading a model on: those that no other makes superfluous."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile

__all__ = ["WIDE_GAIN", "useful", "wanted"]

WIDE_GAIN = 0.9
"""A processor that contains a smaller one must take at most this share of its time."""

_Pairs = Container[tuple[str, str]]


def useful(
    profile: Profile, processors: Sequence[Processor], *, keep: _Pairs = frozenset()
) -> Profile:
    """Leave out entries that a scheduler would never want, so that they are not loaded.

    So, with two backends on the same cores, each model is left with the faster one, and whatever
    goes, one of at most 1 / `WIDE_GAIN` of its time stays. Where requests of one class of sizes
    want another processor than those of another class, both stay.

    Args:
        profile: What was measured.
        processors: Those in use.
        keep: (model, processor) pairs that stay in any case.
    """
    stay: set[tuple[str, str]] = set()
    for model, shape in dict.fromkeys((key.model, key.shape) for key, _ in profile):
        times = {p.name: profile.expected_s(model, p.name, shape=shape) for p in processors}
        row = {name: seconds for name, seconds in times.items() if seconds is not None}
        kept = [name for name in row if (model, name) in keep]
        stay.update((model, name) for name in wanted(row, processors, kept))
    return profile.of_pairs(stay)


def wanted(
    seconds: Mapping[str, float], processors: Sequence[Processor], keep: Container[str] = ()
) -> list[str]:
    """Return the processors that are worth it for one model or span.

    One is superfluous if a processor that stays and occupies the same units takes no longer, or if
    one that stays and occupies some of them takes hardly longer.

    Args:
        seconds: How long each takes that can run it.
        processors: Those in use, in the order of preference.
        keep: Names of those that stay in any case.
    """
    timed = [
        (processor, seconds[processor.name])
        for processor in processors
        if processor.name in seconds
    ]
    # Smallest first, and of those that occupy the same units the fastest: whoever makes an entry
    # superfluous is decided before it. Of two that take equally long, the first listed stays.
    timed.sort(key=lambda pair: (len(pair[0].units), pair[1]))
    stay: list[tuple[Processor, float]] = []
    for processor, own_s in timed:
        if processor.name in keep or not any(
            _replaces(other, others_s, processor, own_s) for other, others_s in stay
        ):
            stay.append((processor, own_s))
    return [processor.name for processor, _ in stay]


def _replaces(other: Processor, others_s: float, processor: Processor, seconds: float) -> bool:
    if other.units == processor.units:
        return others_s <= seconds
    return other.units < processor.units and seconds > WIDE_GAIN * others_s
