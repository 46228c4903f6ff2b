"""Engine warnings: what users must know of an engine, each logged once as a warning."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable
from typing import Self

__all__ = ["EngineWarnings"]

_log = logging.getLogger(__name__)


class EngineWarnings(list[str]):
    """A list of sentences. What is added to its end is logged, too.

    >>> warnings = EngineWarnings(["p1 was left out"])
    >>> warnings.put("front on p0", "front failed once")
    >>> warnings.put("front on p0", "front failed twice")
    >>> warnings
    ['p1 was left out', 'front failed twice']
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        super().__init__()
        self._texts: dict[Hashable, str] = {}
        self.extend(texts)

    def append(self, text: str) -> None:
        """Add a sentence."""
        super().append(text)
        _log.warning("%s", text)

    def extend(self, texts: Iterable[str]) -> None:
        """Add several."""
        for text in texts:
            self.append(text)

    def __iadd__(self, texts: Iterable[str]) -> Self:  # type: ignore[override,misc]
        self.extend(texts)
        return self

    def begin_with(self, texts: Iterable[str]) -> None:
        """Put sentences before those that are there."""
        first = list(texts)
        for text in first:
            _log.warning("%s", text)
        self[:0] = first

    def put(self, key: Hashable, text: str) -> None:
        """Add a sentence that changes, e.g. because it has a count; only the first is logged.

        Args:
            key: What it is about; the sentence replaces the last one of the same key.
            text: The sentence as it is now.
        """
        old = self._texts.get(key)
        self._texts[key] = text
        if old is None:
            self.append(text)
        elif old in self:  # else somebody took it out
            self[self.index(old)] = text
