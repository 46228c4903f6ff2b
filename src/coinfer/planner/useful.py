"""Useful: which processors are worth loading a model on: those that no other makes superfluous."""

from __future__ import annotations

from collections.abc import Container, Sequence

from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile

__all__ = ["WIDE_GAIN", "useful"]

WIDE_GAIN = 0.9
"""A processor that contains a smaller one must take at most this share of its time."""

_Pairs = Container[tuple[str, str]]


def useful(
    profile: Profile, processors: Sequence[Processor], *, keep: _Pairs = frozenset()
) -> Profile:
    """Leave out entries that a scheduler would never want, so that they are not loaded.

    An entry is superfluous if a processor that stays and occupies the same units takes no longer,
    or if one that stays and occupies some of them takes hardly longer. So, with two backends on
    the same cores, each model is left with the faster one, and whatever goes, one of at most
    1 / `WIDE_GAIN` of its time stays.

    Args:
        profile: What was measured.
        processors: Those in use.
        keep: (model, processor) pairs that stay in any case.
    """
    return profile.of_pairs(
        {
            (model, name)
            for model in profile.models()
            for name in _wanted(model, profile, processors, keep)
        },
    )


def _wanted(
    model: str, profile: Profile, processors: Sequence[Processor], keep: _Pairs
) -> list[str]:
    timed = [
        (processor, seconds)
        for processor in processors
        if (seconds := profile.expected_s(model, processor.name)) is not None
    ]
    # Smallest first, and of those that occupy the same units the fastest: whoever makes an entry
    # superfluous is decided before it. Of two that take equally long, the first listed stays.
    timed.sort(key=lambda pair: (len(pair[0].units), pair[1]))
    stay: list[tuple[Processor, float]] = []
    for processor, seconds in timed:
        if (model, processor.name) in keep or not any(
            _replaces(other, others, processor, seconds) for other, others in stay
        ):
            stay.append((processor, seconds))
    return [processor.name for processor, _ in stay]


def _replaces(other: Processor, others_s: float, processor: Processor, seconds: float) -> bool:
    if other.units == processor.units:
        return others_s <= seconds
    return other.units < processor.units and seconds > WIDE_GAIN * others_s
