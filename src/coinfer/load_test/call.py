"""Call: one inference as it goes to a server, prepared as far as it can be before it is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from coinfer.backends.base import Tensors
from coinfer.core.request import Outcome

__all__ = ["Answered", "Call", "Sender"]


class Answered(NamedTuple):
    """What became of a call.

    Attributes:
        outcome: As an engine would have answered.
        reason: Why it was not completed; empty if it was.
    """

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One inference, but for when it is due.

    Attributes:
        model: Name of the model.
        head: What is sent before the parameters.
        tail: What is sent after them.
    """

    model: str
    head: bytes
    tail: bytes


class Sender(Protocol):
    """Sends calls over one protocol. Its coroutines run in one event loop."""

    def prepared(self, model: str, feed: Tensors) -> Call:
        """Write a request as far as it does not depend on the moment; called before the loop."""
        ...

    async def inputs(self, model: str) -> dict[str, str]:
        """Ask which inputs a model takes; return their datatypes by name.

        Raises:
            ConfigurationError: the server does not answer, or has no such model.
        """
        ...

    async def send(self, call: Call, parameters: Mapping[str, Any]) -> Answered:
        """Send a call with its parameters and wait for the answer; raises nothing."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
