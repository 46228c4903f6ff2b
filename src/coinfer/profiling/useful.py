"""Which processors are worth loading a model on: those that no other makes superfluous."""

from __future__ import annotations

from collections.abc import Container, Sequence

from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.span import completes

__all__ = ["WIDE_GAIN", "useful", "within_pools"]

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
    return _restricted(
        profile,
        {
            (model, name)
            for model in profile.models()
            for name in _wanted(model, profile, processors, keep)
        },
    )


def within_pools(
    profile: Profile,
    processors: Sequence[Processor],
    *,
    threads: int,
    keep: _Pairs = frozenset(),
) -> Profile:
    """Leave out the processors of several threads if their sessions would hold too many threads.

    Each of those sessions, one per span of a model that is cut, owns a pool. So many that their
    pools exceed the limit keep the cores busy with one thread each; which few of them would get a
    pool would be arbitrary.

    Args:
        profile: What is to be loaded.
        processors: Those in use.
        threads: Threads that all pools together may hold.
        keep: (model, processor) pairs that stay in any case.
    """
    wide = {processor.name: processor.threads for processor in processors if processor.threads > 1}
    sessions = {(key.model, key.span, key.processor) for key in profile.entries}
    if sum(wide.get(name, 0) for _, _, name in sessions) <= threads:
        return profile
    narrow = {
        model
        for model in profile.models()
        if completes(
            [span for of, span, name in sessions if of == model and name not in wide],
            profile.units(model),
        )
    }
    return _restricted(
        profile,
        {
            (model, name)
            for model, _, name in sessions
            if name not in wide or model not in narrow or (model, name) in keep
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


def _restricted(profile: Profile, pairs: set[tuple[str, str]]) -> Profile:
    return Profile(
        {
            key: entry
            for key, entry in profile.entries.items()
            if (key.model, key.processor) in pairs
        }
    )
