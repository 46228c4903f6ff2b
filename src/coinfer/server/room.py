"""Room: how many bytes of requests are under way at a time. For the thread of an event loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coinfer.errors import RejectedError
from coinfer.units import format_bytes

__all__ = ["Held", "Room"]

_RETRY_AFTER_S = 1.0


class Held:
    """What one request holds."""

    __slots__ = ("_room", "n_bytes")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.n_bytes = 0

    def take(self, n_bytes: int) -> None:
        """Hold more.

        Raises:
            RejectedError: there is no room now.
        """
        self._room.take(n_bytes)
        self.n_bytes += n_bytes

    def give_back(self) -> None:
        """Hold nothing any more. Again is fine."""
        self._room.held_bytes -= self.n_bytes
        self.n_bytes = 0


class Room:
    """Bytes that requests may hold together.

    Attributes:
        most_bytes: So many.
        held_bytes: What they hold now.

    >>> room = Room(100)
    >>> with room.holding() as held:
    ...     held.take(60)
    ...     room.held_bytes
    60
    >>> room.held_bytes
    0
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0

    def take(self, n_bytes: int) -> None:
        """Hold more; whoever takes takes them off `held_bytes` again.

        Raises:
            RejectedError: there is no room now.
        """
        held_bytes = self.held_bytes + n_bytes
        if held_bytes > self.most_bytes:
            error = RejectedError(
                f"requests under way hold {format_bytes(self.held_bytes)} of "
                f"{format_bytes(self.most_bytes)}, which leaves no room for this one now"
            )
            error.retry_after_s = _RETRY_AFTER_S
            raise error
        self.held_bytes = held_bytes

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """Give back at the end what is taken meanwhile."""
        held = Held(self)
        try:
            yield held
        finally:
            held.give_back()
