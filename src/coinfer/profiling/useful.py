"""Which processors are worth loading a model on: those that no other makes superfluous."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from coinfer.processor import Processor
from coinfer.profiles import Profile, ProfileKey

__all__ = ["WIDE_GAIN", "WIDE_MIN_S", "useful"]

WIDE_GAIN = 0.9
"""A processor that contains a smaller one must take at most this share of its time ..."""

WIDE_MIN_S = 2e-3
"""... and the smaller one at least this long: below it, waking a pool costs what it gains."""


def useful(
    profile: Profile,
    processors: Sequence[Processor],
    *,
    keep: Container[tuple[str, str]] = frozenset(),
) -> Profile:
    """Leave out entries that a scheduler would never want, so that they are not loaded.

    An entry is superfluous if another processor that occupies the same units, or some of them,
    takes no longer. With two backends on the same cores, each model is so left with the faster one.
    A processor of several cores stays only where it is clearly faster than one of them: its session
    needs threads of its own.

    Args:
        profile: What was measured.
        processors: Those in use.
        keep: (model, processor) pairs that stay in any case.
    """
    by_name = {processor.name: processor for processor in processors}
    seconds = {
        model: {
            name: value
            for name in by_name
            if (value := profile.expected_s(model, name)) is not None
        }
        for model in profile.models()
    }
    return Profile(
        {
            key: entry
            for key, entry in profile.entries.items()
            if key.processor in by_name
            and ((key.model, key.processor) in keep or _wanted(key, seconds[key.model], by_name))
        }
    )


def _wanted(
    key: ProfileKey, seconds: Mapping[str, float], by_name: Mapping[str, Processor]
) -> bool:
    if key.processor not in seconds:
        return False
    mine, units = seconds[key.processor], by_name[key.processor].units
    for other, theirs in seconds.items():
        if other == key.processor or not by_name[other].units <= units:
            continue
        if by_name[other].units == units:
            # Of two that take equally long, the first one stays.
            earlier = list(by_name).index(other) < list(by_name).index(key.processor)
            if theirs < mine or (theirs == mine and earlier):
                return False
        elif mine > WIDE_GAIN * theirs or theirs < WIDE_MIN_S:
            return False
    return True
