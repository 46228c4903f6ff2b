"""Alike: processors that differ in nothing but their cores, to be looked at as one.

On a machine of many cores there are hundreds of processors but few kinds of them. Which of those
that are alike runs something makes no difference to it; so whoever compares need not look at each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter

from coinfer.machine.processor import Processor

__all__ = ["MANY", "Alike", "alike_among"]

MANY = 16
"""Of more processors than this those that are alike are looked at together, and of those of more
than two widths."""

_NEARLY = 1.1
"""Of alike ones that are free, the first is taken whose learnt time is at most this many times the
least: what they differ by is noise, and runs side by side leave room for a wide one."""

_INF = math.inf


class Alike:
    """Processors that are alike (`Processor.likeness`), in the order of preference.

    Attributes:
        names: Their names.
        width: How many compute units each occupies.
        place: Device and kind of the cores: those of equal ones differ in width or backend only.
    """

    __slots__ = ("_bits", "_of_all", "names", "place", "width")

    def __init__(self, processors: Sequence[Processor], bits: Iterable[int]) -> None:
        first = processors[0]
        self.names = [processor.name for processor in processors]
        self.width = len(first.units)
        self.place = (first.device, first.spread)
        self._bits = list(bits)
        # Of one name it would return no tuple.
        self._of_all: Callable[[Mapping[str, float]], tuple[float, ...]] = itemgetter(
            self.names[0], *self.names
        )

    def least_s(self, seconds: Mapping[str, float]) -> float:
        """Return the least of their seconds; infinite if none has any."""
        try:
            return min(self._of_all(seconds))
        except KeyError:  # a loop of ours takes four times as long, and seldom any is missing
            return min([seconds[name] for name in self.names if name in seconds], default=_INF)

    def free(self, seconds: Mapping[str, float], used: int, least_s: float) -> str:
        """Return the first that is free and about as fast as the fastest free one; empty if none.

        Args:
            seconds: By processor; those without any are left out.
            used: The compute units in use, a bit each.
            least_s: The least of their seconds.
        """
        limit_s, found_s, found = least_s * _NEARLY, _INF, ""
        for at, bits in enumerate(self._bits):
            if not bits & used:
                name = self.names[at]
                own_s = seconds.get(name, _INF)
                if own_s <= limit_s:
                    return name
                if own_s < found_s:
                    found_s, found = own_s, name
        return found


def alike_among(
    processors: Mapping[str, Processor], bits_of: Mapping[str, int]
) -> tuple[Alike, ...]:
    """Group processors, the narrowest first; nothing if there are few of them, of one core or all.

    Args:
        processors: Those in service, in the order of preference.
        bits_of: By processor, its compute units, a bit each.

    >>> few = {n: Processor(name=n, backend="null", units=frozenset({n})) for n in "ab"}
    >>> alike_among(few, {"a": 1, "b": 2})
    ()
    """
    if len(processors) <= MANY and len({len(p.units) for p in processors.values()}) <= 2:
        return ()
    groups: dict[tuple[object, ...], list[Processor]] = {}
    for processor in processors.values():
        groups.setdefault(processor.likeness, []).append(processor)
    found = [Alike(group, [bits_of[p.name] for p in group]) for group in groups.values()]
    return tuple(sorted(found, key=_width))


def _width(alike: Alike) -> int:
    return alike.width
