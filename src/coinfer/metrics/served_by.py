"""Served by: which variant serves each request, of models that have several."""

from __future__ import annotations

from collections.abc import Mapping

from coinfer.core.commands import Execution
from coinfer.core.request import Request

__all__ = ["ServedBy", "mean_error"]


class ServedBy:
    """Follows the executions of requests that are not answered yet.

    Attributes:
        names: Variants of models that have several; others are not followed.

    >>> from coinfer.machine.span import Span
    >>> served = ServedBy({"m": 0.0, "m@int8": 0.02})
    >>> request = Request(id=1, model="m", arrival_s=0.0)
    >>> served.begins(Execution(0, "m@int8", Span(), "cpu", (request,), 0.0, 1.0))
    >>> served.ends(request), served.ends(request)
    ('m@int8', '')
    """

    __slots__ = ("_of", "names")

    def __init__(self, names: Mapping[str, float]) -> None:
        self.names = dict(names)
        self._of: dict[int, str] = {}

    def begins(self, execution: Execution) -> None:
        """Take note of an execution."""
        if execution.variant in self.names:
            for request in execution.requests:
                self._of[request.id] = execution.variant

    def ends(self, request: Request) -> str:
        """Return which variant served a request that is answered now; empty if none is known."""
        return self._of.pop(request.id, "")


def mean_error(served: Mapping[str, int], errors: Mapping[str, float]) -> float | None:
    """Return the mean stated error of answers, given how many each variant gave; None of none.

    >>> mean_error({"m": 3, "m@int8": 1}, {"m": 0.0, "m@int8": 0.02})
    0.005
    """
    total = sum(served.values())
    if not total:
        return None
    return sum(count * errors.get(name, 0.0) for name, count in served.items()) / total
