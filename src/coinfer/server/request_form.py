"""RequestForm: what requests have in common that differ in their tensors only.

Clients that ask again and again send the same fields each time. What the checks of one request
found is true for the next, as long as the same version of the model answers.
"""

from __future__ import annotations

from typing import NamedTuple

from coinfer.server.asked import Asked
from coinfer.server.served_model import ServedModel

__all__ = ["Checked", "RequestForm"]

_MOST = 8
"""Heads of answers that are kept for a form: one for each set of shapes."""

_MOST_BYTES = 2048
"""Of such a head."""


class Checked(NamedTuple):
    """What was found out about a form. A version that takes over has one of its own.

    Attributes:
        served: The version that answers.
        asked: What the parameters ask of the scheduler.
        heads: What goes before the tensors of an answer, by names, types and shapes of these.
    """

    served: ServedModel
    asked: Asked
    heads: dict[tuple[object, ...], bytes]

    def learn(self, key: tuple[object, ...], head: bytes) -> None:
        """Keep the head of an answer."""
        if len(head) <= _MOST_BYTES:
            if len(self.heads) >= _MOST:
                self.heads.clear()
            self.heads[key] = head


class RequestForm:
    """The form of a request that was read. Any thread may use it.

    Attributes:
        checked: What was found out; None: nothing was yet.
    """

    __slots__ = ("checked",)

    def __init__(self) -> None:
        self.checked: Checked | None = None

    def checked_for(self, served: ServedModel) -> Checked | None:
        """Return what was found out, if it is true for a version; None: it is to be checked."""
        checked = self.checked
        return checked if checked is not None and checked.served is served else None
