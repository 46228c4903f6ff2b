"""Checked: what was found out about the form of a request, and holds for others of that form."""

from __future__ import annotations

from typing import NamedTuple

from coinfer.server.asked import Asked
from coinfer.server.request import RequestForm
from coinfer.server.served_model import ServedModel

__all__ = ["Checked", "checked_for"]

_MOST = 8
"""Heads of answers that are kept for a form: one for each set of shapes."""

_MOST_BYTES = 2048
"""Of such a head."""


class Checked(NamedTuple):
    """What was found out. A version that takes over has one of its own.

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


def checked_for(form: RequestForm, served: ServedModel) -> Checked | None:
    """Return what was found out about a form, if that is true for a version."""
    checked: Checked | None = form.checked
    return checked if checked is not None and checked.served is served else None
