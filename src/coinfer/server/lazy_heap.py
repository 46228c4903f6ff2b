"""LazyHeap: a heap whose entries may go at any time; those that are gone are skipped."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["LazyHeap"]

_T = TypeVar("_T")
_FEW = 64


class LazyHeap(Generic[_T]):
    """The smallest of those entries that still count.

    Args:
        counts: Whether an entry still counts.

    Attributes:
        n_gone: Entries in the heap that do not count any more, as far as its owner said so.

    >>> heap = LazyHeap[str](lambda entry: entry != "gone")
    >>> heap.push((1.0, 0), "gone")
    >>> heap.push((2.0, 1), "there")
    >>> heap.first()
    ((2.0, 1), 'there')
    """

    def __init__(self, counts: Callable[[_T], bool]) -> None:
        self.n_gone = 0
        self._counts = counts
        self._entries: list[tuple[tuple[float, ...], _T]] = []

    def push(self, order: tuple[float, ...], entry: _T) -> None:
        """Add an entry. Orders are unique."""
        if len(self._entries) > 2 * (len(self._entries) - self.n_gone) + _FEW:
            self._entries = [each for each in self._entries if self._counts(each[1])]
            heapq.heapify(self._entries)
            self.n_gone = 0
        heapq.heappush(self._entries, (order, entry))

    def first(self) -> tuple[tuple[float, ...], _T]:
        """Return the smallest entry that counts, with its order.

        Raises:
            IndexError: there is none.
        """
        self._skip()
        return self._entries[0]

    @property
    def is_empty(self) -> bool:
        """Whether there is no entry that counts."""
        self._skip()
        return not self._entries

    def _skip(self) -> None:
        entries = self._entries
        while entries and not self._counts(entries[0][1]):
            heapq.heappop(entries)
            self.n_gone = max(0, self.n_gone - 1)
