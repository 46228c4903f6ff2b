"""Shares: disjoint parts of a GPU's multiprocessors. Imports no library.

A GPU is split once in a process: parts of two splits would overlap.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coinfer.errors import BackendError

__all__ = ["Multiprocessors", "Part", "Share", "Shares", "Splitter"]


@dataclass(frozen=True, slots=True)
class Share:
    """One of several equal parts.

    Attributes:
        number: Which one, from 1.
        of: How many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str, what: str) -> Share:
        """Read `1of2`.

        Raises:
            BackendError: it says something else.

        >>> Share.parse("1of2", "it")
        Share(number=1, of=2)
        """
        found = re.fullmatch(r"(\d+)of(\d+)", text)
        share = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= share.number <= share.of or share.of < 2:
            raise BackendError(
                f"{what}: a share of a GPU is written like 1of2, the first of two; got {text!r}"
            )
        return share


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiprocessors:
    """What a GPU has, and how it can be split.

    Attributes:
        count: How many.
        least: The fewest that a part may have.
        multiple: What the number of a part is a multiple of.
    """

    count: int
    least: int
    multiple: int

    def each(self, parts: int) -> int:
        """Return the most that each of several equal parts can have; 0 if there are too many.

        >>> Multiprocessors(count=132, least=8, multiple=8).each(2)
        64
        """
        multiple = max(1, self.multiple)
        size = self.count // parts // multiple * multiple
        return size if size >= max(1, self.least) else 0


class Part(Protocol):
    """A part of a GPU."""

    @property
    def multiprocessors(self) -> int:
        """How many it has, read back from the driver."""
        ...

    def stream(self, *, is_urgent: bool) -> Any:
        """Return a new stream of torch whose work runs on this part only."""
        ...


class Splitter(Protocol):
    """What can split GPUs."""

    def multiprocessors(self, device: int) -> Multiprocessors:
        """Return what a GPU has.

        Raises:
            Exception: what the library raises.
        """
        ...

    def split(self, device: int, sizes: Sequence[int]) -> Sequence[Part]:
        """Make disjoint parts of so many multiprocessors each.

        Raises:
            Exception: what the library raises.
        """
        ...


class Shares:
    """The parts of all GPUs.

    Args:
        splitter: Makes them.
    """

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        self._parts: dict[int, Sequence[Part]] = {}
        self._lock = threading.Lock()

    def part(self, device: int, share: Share, what: str) -> Part:
        """Return a part of a GPU, which is split when the first one is asked for.

        Raises:
            BackendError: the GPU is split into another number of parts, has too few
                multiprocessors, or cannot be split; the driver did not do what it was asked to.
        """
        with self._lock:
            if device not in self._parts:
                self._parts[device] = self._split(device, share.of, what)
            parts = self._parts[device]
        if len(parts) != share.of:
            raise BackendError(
                f"{what}: CUDA:{device} is split into {len(parts)} shares in this process, and "
                f"others would overlap these; ask for a share of {len(parts)}"
            )
        return parts[share.number - 1]

    def _split(self, device: int, count: int, what: str) -> Sequence[Part]:
        try:
            there = self._splitter.multiprocessors(device)
            size = there.each(count)
            if not size:
                raise BackendError(
                    f"{what}: CUDA:{device} has {there.count} multiprocessors, of which a share "
                    f"has {there.least} at least; ask for fewer than {count} shares"
                )
            parts = self._splitter.split(device, [size] * count)
        except BackendError:
            raise
        except Exception as error:
            # The library raises errors of several kinds.
            raise BackendError(
                f"{what}: CUDA:{device} cannot be split into shares: {error}"
            ) from error
        found = [part.multiprocessors for part in parts]
        if found != [size] * count:
            raise BackendError(
                f"{what}: CUDA:{device} was to be split into {count} shares of {size} "
                f"multiprocessors, and the driver made {found}; leave the shares out"
            )
        return parts
