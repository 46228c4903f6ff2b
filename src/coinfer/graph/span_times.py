"""Span times: expected seconds of any span on any processor, from the few that were measured.

A span that was not measured takes the sum of its operators and what its borders cost. Of a measured
run, what its parts do not account for falls on its other operators, by their shares of arithmetic
and bytes. Pure; measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coinfer.machine.span import Span

if TYPE_CHECKING:  # it needs the heavy libraries, and engines that start need this file
    from coinfer.graph.partition import Partition

__all__ = ["SpanTimes", "Table"]

Table = dict[Span, dict[str, float]]
"""Seconds by span and processor."""

_BORDER_BYTES_PER_S = 6e9
"""Bytes of a border per second: they leave the caches, and nothing is fused across. Seen with
ResNet50 cut into 4 and 8 spans on one core of 2026. Where the library changes, it takes longer."""

_LEAST_RATE = 0.1
"""No operator counts as this much faster than the mean of its processor, whatever the parts of a
run that are known leave over for the others."""

_Members = tuple[int, ...]


@dataclass(slots=True)
class SpanTimes:
    """What was measured, by processor and operators; estimates for the rest.

    Measurements are kept by operators and not by span, so they hold for other cuts of the model.

    Args:
        shares: Each operator's guessed share of the model's time.

    >>> times = SpanTimes((0.25, 0.75))
    >>> times.note("cpu0", (0, 1), 0.008)
    >>> times.operator_seconds("cpu0")
    (0.002, 0.006)
    """

    shares: Sequence[float]
    _measured: dict[str, dict[_Members, float]] = field(default_factory=dict)
    _refused: set[tuple[str, _Members]] = field(default_factory=set)
    _spans: tuple[Partition | None, dict[Span, _Members]] = (None, {})

    def note(self, processor: str, members: _Members, seconds: float) -> None:
        """Note what a run of these operators took."""
        self._measured.setdefault(processor, {})[members] = seconds

    def refuse(self, processor: str, members: _Members) -> None:
        """Note that a processor does not run these operators after all."""
        self._refused.add((processor, members))

    def operator_seconds(self, processor: str) -> tuple[float, ...] | None:
        """Return each operator's expected seconds; None if nothing was measured there."""
        runs = self._measured.get(processor)
        if not runs:
            return None
        mean = sum(runs.values()) / sum(self._share(members) for members in runs)
        found: dict[int, float] = {}
        # The shortest run first: it tells the most about what is in it.
        for members, seconds in sorted(runs.items(), key=lambda run: len(run[0])):
            rest = [index for index in members if index not in found]
            share = self._share(rest)
            left_s = seconds - sum(found[index] for index in members if index in found)
            rate = max(left_s / share, _LEAST_RATE * mean)
            found.update((index, self.shares[index] * rate) for index in rest)
        return tuple(found.get(i, share * mean) for i, share in enumerate(self.shares))

    def row(self, partition: Partition, span: Span) -> dict[str, float]:
        """Return the seconds of one span by processor, measured or expected."""
        members = partition.members(span)
        borders_s = sum(_crossing_s(partition, at) for at in (span.first, span.last + 1)) / 2
        return {
            name: self._expected_s(name, members, row, borders_s)
            for name in sorted(partition.spans[span])
            if (row := self.operator_seconds(name)) is not None
        }

    def table(self, partition: Partition) -> Table:
        """Return the seconds of all spans that may be run, measured or expected."""
        rows = {
            name: row
            for name in {name for able in partition.spans.values() for name in able}
            if (row := self.operator_seconds(name)) is not None
        }
        if self._spans[0] is not partition:
            known = {span: partition.members(span) for span in sorted(partition.spans)}
            self._spans = (partition, known)
        crossing = [_crossing_s(partition, at) for at in range(len(partition.units) + 1)]
        table: Table = {}
        for span, members in self._spans[1].items():
            borders_s = (crossing[span.first] + crossing[span.last + 1]) / 2
            found = {
                name: self._expected_s(name, members, rows[name], borders_s)
                for name in sorted(partition.spans[span])
                if name in rows and (name, members) not in self._refused
            }
            if found:
                table[span] = found
        return table

    def _expected_s(
        self, processor: str, members: _Members, row: Sequence[float], borders_s: float
    ) -> float:
        """Add half of what each border costs; a measured run has paid for its borders."""
        known = self._measured[processor].get(members)
        return sum(row[index] for index in members) + borders_s if known is None else known

    def _share(self, members: Iterable[int]) -> float:
        return max(sum(self.shares[index] for index in members), 1e-12)


def _crossing_s(partition: Partition, position: int) -> float:
    """Seconds that a cut before a unit costs; the ends of the model are no cuts."""
    if position in (0, len(partition.units)):
        return 0.0
    return (partition.border(position).bytes or 0) / _BORDER_BYTES_PER_S
