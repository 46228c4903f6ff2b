"""ServerLimits: what one request or connection may take. A value."""

from __future__ import annotations

from dataclasses import dataclass

from coinfer.errors import ConfigurationError

__all__ = ["ServerLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one request or connection may take.

    Attributes:
        body_bytes: Of a request, also after it was unpacked.
        bodies_bytes: Of the requests over HTTP that are under way together.
        json_bytes: Of these of one, those that are JSON: while it is read, nothing else is.
        tensors: Inputs of a request, and as many outputs.
        body_s: Seconds in which the head of a request must be there, and then its body.
        idle_s: Seconds after which a connection is closed on which nothing is asked, or an answer
            is not read.
        connections: Of HTTP that are open at a time; the next ones are closed at once.
        drain_s: Seconds that requests have to end when the server stops.

    >>> ServerLimits(body_bytes=1 << 20).tensors
    256
    """

    body_bytes: int = 256 << 20
    bodies_bytes: int = 2 << 30
    json_bytes: int = 32 << 20
    tensors: int = 256
    body_s: float = 60.0
    idle_s: float = 75.0
    connections: int = 20_000
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigurationError: one is not positive.
        """
        for name in self.__slots__:
            value: object = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise ConfigurationError(f"{name} must be a number above 0")
