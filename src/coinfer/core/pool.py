"""Pool: room in which only so much is loaded at a time, in bytes or in slots. Decides nothing."""

from __future__ import annotations

__all__ = ["Pool"]


class Pool:
    """What is in it takes part of its room.

    Attributes:
        capacity: Its room: bytes, or how many slots of size 1.
        held: The size of what is in it, that which was used longest ago first.
        taken: Their sum.

    >>> slot = Pool(1)
    >>> slot.use("a", 1)
    >>> slot.fits(1), "a" in slot.held
    (False, True)
    """

    __slots__ = ("capacity", "held", "taken")

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.held: dict[str | int, float] = {}
        self.taken = 0.0

    def fits(self, size: float) -> bool:
        """Tell whether something of a size would find room now."""
        return self.taken + size <= self.capacity

    def lacks(self, size: float) -> float:
        """Return how much room would have to be made for something of a size; 0 if none."""
        return max(0.0, self.taken + size - self.capacity)

    def use(self, key: str | int, size: float) -> None:
        """Put something in, or note that what is in is used now."""
        self.drop(key)
        self.held[key] = size
        self.taken += size

    def drop(self, key: str | int) -> None:
        """Take something out, if it is in."""
        self.taken -= self.held.pop(key, 0.0)
        if not self.held:
            self.taken = 0.0  # sums of fractions need not cancel

    def copy(self) -> Pool:
        """Return a pool with the same in it."""
        other = Pool(self.capacity)
        other.held, other.taken = dict(self.held), self.taken
        return other
